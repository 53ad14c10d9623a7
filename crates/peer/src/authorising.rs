//! Letting a client in, or telling it what the registry would.
//!
//! What is known decides at once. What is not is asked as anybody first, so that public content costs no more than ever;
//! then, by a HEAD, with what the client has shown. The answer counts for this client, repository and content alone.

use std::sync::Arc;

use bytes::Bytes;
use mirror::Document;
use piece::{Blob, Digest};
use wire::Authorization;
use wire::control::{Access, Failure, Query, Repository, Source, Upstream, UpstreamAnswer};

use crate::access::{Now, Standing, Verdict, depends_on_who_asks, is_unanswered};
use crate::children::Child;
use crate::parts::Parts;
use crate::upstream;

/// When whoever was refused because the registry cannot be asked may try again, in seconds.
const AGAIN: u32 = 5;

/// A client's wish for a content.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) source: &'a Source,
    pub(crate) digest: &'a Digest,
    /// What the client has shown.
    pub(crate) client: Option<&'a Authorization>,
}

impl Wish<'_> {
    fn repository(&self) -> &Repository {
        &self.source.repository
    }

    fn probe(&self) -> Upstream {
        Upstream {
            repository: self.source.repository.clone(),
            query: Query::Probe {
                digest: *self.digest,
                kind: self.source.kind,
            },
        }
    }
}

/// Decides as far as that can be done before anybody has asked the registry about the content: true if the client may have
/// it, false if that is still unknown.
pub(crate) async fn settle_known(parts: &Arc<Parts>, wish: Wish<'_>) -> Result<bool, Failure> {
    match parts
        .verdicts
        .standing(Now::read(), wish.repository(), wish.digest, wish.client)
    {
        Standing::Admitted => Ok(true),
        Standing::Refused(failure) => Err(failure),
        Standing::Ask => show(parts, wish).await.map(|()| true),
        Standing::Unknown => Ok(false),
    }
}

/// Decides, by asking the registry if need be.
pub(crate) async fn settle(parts: &Arc<Parts>, wish: Wish<'_>) -> Result<(), Failure> {
    if settle_known(parts, wish).await? {
        return Ok(());
    }
    let repository = wish.repository();
    match content(upstream::ask(parts, wish.probe()).await, repository) {
        Ok((_, _, access)) => {
            learn(parts, repository, *wish.digest, Verdict::bare(access));
            if parts.verdicts.is_open(access) {
                Ok(())
            } else {
                show(parts, wish).await
            }
        }
        Err(failure) if depends_on_who_asks(&failure) => refused_to_anybody(parts, wish, failure).await,
        Err(failure) => in_need(parts, wish, failure),
    }
}

/// The registry has refused the content to anybody: whoever has shown a credential is asked about with it.
pub(crate) async fn refused_to_anybody(parts: &Arc<Parts>, wish: Wish<'_>, failure: Failure) -> Result<(), Failure> {
    note_refusal(parts, wish.repository(), &failure);
    match wish.client {
        Some(_) => show(parts, wish).await,
        None => Err(failure),
    }
}

/// Remembers that a repository wants credentials, and how it says so.
pub(crate) fn note_refusal(parts: &Parts, repository: &Repository, failure: &Failure) {
    if failure.status == 401 {
        let challenge = failure.challenge.clone();
        parts.verdicts.learn_refusal(Now::read().clock, repository, challenge);
    }
}

/// Shows the registry what the client has shown, and abides by its answer.
async fn show(parts: &Arc<Parts>, wish: Wish<'_>) -> Result<(), Failure> {
    let Some(client) = wish.client else {
        return show_nothing(parts, wish).await;
    };
    let (clients, repository, digest) = (&parts.verdicts.clients, wish.repository(), wish.digest);
    let turn = clients.turn(client, repository, digest);
    let _turn = turn.lock().await;
    if clients.holds(Now::read(), client, repository, digest) {
        return Ok(());
    }
    let answer = upstream::ask_for_client(parts, wish.probe(), Some(client)).await;
    match content(answer, repository) {
        Ok((blob, media_type, _)) if blob.digest == *digest => {
            clients.learn(Now::read(), client, repository, digest);
            learn_told(parts, repository, &blob, &media_type, Access::Personal);
            Ok(())
        }
        Ok(_) => Err(misunderstood(repository)),
        Err(failure) if is_unanswered(&failure) => in_need(parts, wish, failure),
        Err(failure) => {
            clients.forget(client, repository, digest);
            Err(failure)
        }
    }
}

/// For a client that has shown nothing: the registry's own words to such a one.
async fn show_nothing(parts: &Arc<Parts>, wish: Wish<'_>) -> Result<(), Failure> {
    let repository = wish.repository();
    let answer = upstream::ask_for_client(parts, wish.probe(), None).await;
    match content(answer, repository) {
        Ok((blob, media_type, Access::Public)) if blob.digest == *wish.digest => {
            learn_told(parts, repository, &blob, &media_type, Access::Public);
            Ok(())
        }
        Ok(_) => Err(misunderstood(repository)),
        Err(failure) if is_unanswered(&failure) => in_need(parts, wish, failure),
        Err(failure) => {
            note_refusal(parts, repository, &failure);
            Err(failure)
        }
    }
}

/// Which manifest a tag names, for this client.
pub(crate) async fn resolve(
    parts: &Arc<Parts>,
    upstream: Upstream,
    client: Option<&Authorization>,
) -> Result<(Blob, String), Failure> {
    let repository = upstream.repository.clone();
    let resolved = ask(
        parts,
        upstream,
        client,
        |answer| content(answer, &repository),
        |(_, _, access)| *access,
    )
    .await?;
    let (blob, media_type, access) = resolved;
    learn_told(parts, &repository, &blob, &media_type, access);
    if let Some(client) = client.filter(|_| access == Access::Personal) {
        parts
            .verdicts
            .clients
            .learn(Now::read(), client, &repository, &blob.digest);
    }
    Ok((blob, media_type))
}

/// What only the registry can answer, for this client.
pub(crate) async fn document(
    parts: &Arc<Parts>,
    upstream: Upstream,
    client: Option<&Authorization>,
) -> Result<Document, Failure> {
    let repository = upstream.repository.clone();
    let read = |answer| match answer {
        UpstreamAnswer::Document {
            body,
            media_type,
            link,
            filters,
            access,
        } => Ok((
            Document {
                body: Bytes::from(body),
                media_type,
                link,
                filters,
            },
            access,
        )),
        UpstreamAnswer::Failed { failure } => Err(failure),
        UpstreamAnswer::Content { .. } => Err(misunderstood(&repository)),
    };
    let (document, _) = ask(parts, upstream, client, read, |(_, access)| *access).await?;
    Ok(document)
}

/// A manifest's verdict, for what it names.
pub(crate) fn cover(parts: &Parts, wish: Wish<'_>, children: &[Child]) {
    let (now, repository) = (Now::read(), wish.repository());
    let Some(of_manifest) = parts.verdicts.get(now.clock, repository, wish.digest) else {
        return;
    };
    let clients = &parts.verdicts.clients;
    for child in children.iter().filter(|child| child.is_covered) {
        let Blob { digest, size } = child.blob;
        let verdict = Verdict {
            size: Some(size),
            ..Verdict::bare(of_manifest.access)
        };
        learn(parts, repository, digest, verdict);
        if let Some(client) = wish.client {
            clients.cover(client, repository, wish.digest, &digest);
        }
    }
}

/// Asks as anybody, and with what the client has shown where that is not enough.
async fn ask<T>(
    parts: &Arc<Parts>,
    upstream: Upstream,
    client: Option<&Authorization>,
    read: impl Fn(UpstreamAnswer) -> Result<T, Failure>,
    access: impl Fn(&T) -> Access,
) -> Result<T, Failure> {
    let (now, repository) = (Now::read().clock, upstream.repository.clone());
    let known = match client {
        // It spares the registry the request that it would refuse.
        Some(_) => parts.verdicts.wants_credentials(now, &repository),
        None => match parts.verdicts.refusal(now, &repository) {
            Some(refusal) => return Err(refusal),
            None => false,
        },
    };
    if !known {
        match read(upstream::ask(parts, upstream.clone()).await) {
            Ok(answer) if parts.verdicts.is_open(access(&answer)) => return Ok(answer),
            Ok(_) => {}
            Err(failure) if depends_on_who_asks(&failure) => {
                note_refusal(parts, &repository, &failure);
                if client.is_none() {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    let answered = read(upstream::ask_for_client(parts, upstream, client).await);
    if let (Err(failure), None) = (&answered, client) {
        note_refusal(parts, &repository, failure);
    }
    answered
}

/// What an answer says of a content.
fn content(answer: UpstreamAnswer, repository: &Repository) -> Result<(Blob, String, Access), Failure> {
    match answer {
        UpstreamAnswer::Content {
            blob,
            media_type,
            access,
        } => Ok((blob, media_type, access)),
        UpstreamAnswer::Failed { failure } => Err(failure),
        UpstreamAnswer::Document { .. } => Err(misunderstood(repository)),
    }
}

/// Remembers who may read a content.
fn learn(parts: &Parts, repository: &Repository, digest: Digest, verdict: Verdict) {
    parts.verdicts.learn(Now::read().clock, repository, digest, verdict);
}

/// Remembers what was told of a content besides, under this access.
fn learn_told(parts: &Parts, repository: &Repository, blob: &Blob, media_type: &str, access: Access) {
    let verdict = Verdict {
        access,
        // A registry that only redirects to its storage tells none.
        size: (blob.size > 0).then_some(blob.size),
        media_type: Some(media_type.to_owned()),
    };
    learn(parts, repository, blob.digest, verdict);
}

/// The registry cannot be asked: an older verdict counts for a while if the operator grants that. Else the client is refused, in
/// words that say that this may pass.
fn in_need(parts: &Parts, wish: Wish<'_>, failure: Failure) -> Result<(), Failure> {
    if !is_unanswered(&failure) {
        return Err(failure);
    }
    let (now, repository) = (Now::read(), wish.repository());
    let accepted = |client| {
        parts
            .verdicts
            .clients
            .holds_in_need(now, client, repository, wish.digest)
    };
    if wish.client.is_some_and(accepted) || parts.verdicts.was_open(now.clock, repository, wish.digest) {
        tracing::info!(digest = %wish.digest, reason = failure.message, "served by a verdict within its grace");
        return Ok(());
    }
    let status = if failure.status == 504 { 504 } else { 503 };
    let message = format!(
        "{} cannot be asked who may read {}, and without that nobody may (access.grace): {}",
        repository.registry, repository.name, failure.message
    );
    Err(Failure {
        status,
        message,
        retry_after: failure.retry_after.or(Some(AGAIN)),
        challenge: None,
    })
}

pub(crate) fn misunderstood(repository: &Repository) -> Failure {
    let message = format!(
        "asking about {}/{}: the node asked gave an answer to another question; do all nodes run the same release?",
        repository.registry, repository.name
    );
    Failure {
        status: 502,
        message,
        retry_after: None,
        challenge: None,
    }
}
