//! What only a registry can answer: tags, listings, referrers, and who may read what.
//!
//! A node that needs such an answer asks the scheduler, which asks one seed for everybody. Without a scheduler it asks the
//! seeds that Kademlia knows, and at last, after `origin.wait`, the registry itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control::{AskError, To};
use piece::{Bitfield, Blob};
use store::StoreError;
use swarm::node::Input;
use tokio::task::spawn_blocking;
use wire::control::{Failure, Kind, Query, Repository, Request, Response, Role, Source, Upstream, UpstreamAnswer};

use crate::asking;
use crate::parts::{Parts, remember_source, storage_failure};

/// Tags whose answers are kept or under way.
const MAX_TAGS: usize = 4096;

/// How upstream questions are asked and answered.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// How long a tag's answer counts.
    tag_ttl: Duration,
    /// How long to wait for somebody else to ask the registry.
    wait: Duration,
    /// Whether to ask it ourselves then.
    fallback: bool,
    /// One entry per tag: its lock makes all who ask at once wait for one request.
    tags: Mutex<HashMap<Upstream, Arc<TagEntry>>>,
}

type TagEntry = tokio::sync::Mutex<Option<(UpstreamAnswer, Instant)>>;

impl Upstreams {
    pub(crate) fn new(tag_ttl: Duration, wait: Duration, fallback: bool) -> Self {
        Self {
            tag_ttl,
            wait,
            fallback,
            tags: Mutex::default(),
        }
    }

    fn entry(&self, upstream: &Upstream) -> Arc<TagEntry> {
        let mut tags = self.tags.lock().expect("no holder of this lock panics");
        if tags.len() >= MAX_TAGS {
            tags.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        Arc::clone(tags.entry(upstream.clone()).or_default())
    }
}

/// Asks whoever is to ask the registry.
pub(crate) async fn ask(parts: &Arc<Parts>, upstream: Upstream) -> UpstreamAnswer {
    let begun = Instant::now();
    loop {
        let request = Request::Upstream {
            upstream: upstream.clone(),
        };
        match parts.control.ask(To::Scheduler, request.clone()).await {
            Ok(Response::Upstream { answer }) => return answer,
            Ok(other) => tracing::debug!(?other, "the scheduler did not answer for the registry"),
            Err(AskError::NoScheduler) => {}
            Err(error) => tracing::debug!(%error, "the scheduler could not be asked about the registry"),
        }
        if parts.role == Role::Seed {
            return answer(parts, &upstream).await;
        }
        for seed in asking::find_seeds(parts).await {
            if let Ok(Response::Upstream { answer }) = parts.control.ask(To::Node(seed), request.clone()).await {
                return answer;
            }
        }
        if begun.elapsed() >= parts.upstreams.wait {
            if parts.upstreams.fallback {
                return answer(parts, &upstream).await;
            }
            let repository = &upstream.repository;
            let message = format!(
                "asking about {}/{}: no scheduler and no seed answers, and this node may not ask the registry itself \
                 (origin.fallback)",
                repository.registry, repository.name
            );
            return failed(Failure {
                status: 504,
                message,
                retry_after: None,
                challenge: None,
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Answers from the registry.
pub(crate) async fn answer(parts: &Arc<Parts>, upstream: &Upstream) -> UpstreamAnswer {
    let repository = &upstream.repository;
    let answered = match &upstream.query {
        Query::Tag { tag } => return tag_answer(parts, upstream, tag).await,
        Query::Probe { digest, kind } => {
            let source = Source {
                repository: repository.clone(),
                kind: *kind,
            };
            parts
                .registry
                .head(&source, &digest.to_string())
                .await
                .map(|head| UpstreamAnswer::Content {
                    blob: head.blob,
                    media_type: head.media_type,
                    access: head.access,
                })
        }
        Query::Tags { .. } | Query::Referrers { .. } => parts.registry.document(upstream).await,
    };
    answered.unwrap_or_else(|error| failed(error.to_failure()))
}

async fn tag_answer(parts: &Arc<Parts>, upstream: &Upstream, tag: &str) -> UpstreamAnswer {
    let entry = parts.upstreams.entry(upstream);
    let mut known = entry.lock().await;
    if let Some((answer, until)) = &*known
        && *until > Instant::now()
    {
        return answer.clone();
    }
    let answer = match &*known {
        Some((old @ UpstreamAnswer::Content { blob, .. }, _)) if is_here(parts, blob) => {
            revalidate(parts, &upstream.repository, tag, old).await
        }
        _ => fetch(parts, &upstream.repository, tag).await,
    };
    // A failure is not remembered: whoever asks next, asks the registry.
    *known = match &answer {
        UpstreamAnswer::Content { .. } => Some((answer.clone(), Instant::now() + parts.upstreams.tag_ttl)),
        UpstreamAnswer::Document { .. } | UpstreamAnswer::Failed { .. } => None,
    };
    answer
}

fn is_here(parts: &Parts, blob: &Blob) -> bool {
    parts.file(&blob.digest).is_some_and(|file| file.is_complete())
}

/// Asks by HEAD whether a tag still names what we hold: no manifest travels, and registries do not count it against quotas.
async fn revalidate(parts: &Arc<Parts>, repository: &Repository, tag: &str, old: &UpstreamAnswer) -> UpstreamAnswer {
    let source = Source {
        repository: repository.clone(),
        kind: Kind::Manifest,
    };
    match (parts.registry.head(&source, tag).await, old) {
        (Ok(head), UpstreamAnswer::Content { blob, media_type, .. }) if head.blob.digest == blob.digest => {
            UpstreamAnswer::Content {
                blob: *blob,
                media_type: media_type.clone(),
                access: head.access,
            }
        }
        (Ok(_), _) => fetch(parts, repository, tag).await,
        (Err(error), _) => failed(error.to_failure()),
    }
}

/// One request both resolves the tag and brings the manifest, which goes into the store.
async fn fetch(parts: &Arc<Parts>, repository: &Repository, tag: &str) -> UpstreamAnswer {
    let manifest = match parts.registry.manifest(repository, tag).await {
        Ok(manifest) => manifest,
        Err(error) => return failed(error.to_failure()),
    };
    let blob = Blob {
        digest: manifest.digest,
        size: manifest.body.len() as u64,
    };
    let (media_type, access) = (manifest.media_type, manifest.access);
    let stored = {
        let (parts, media_type) = (Arc::clone(parts), media_type.clone());
        let source = Source {
            repository: repository.clone(),
            kind: Kind::Manifest,
        };
        spawn_blocking(move || {
            let file = parts.store.insert(blob, Some(&media_type), &manifest.body)?;
            remember_source(&file, &source);
            Ok::<(), StoreError>(())
        })
        .await
    };
    match stored {
        Ok(Ok(_)) => {
            let bits = Bitfield::full(&blob.geometry());
            parts
                .engine
                .tell(Input::Opened {
                    blob,
                    bits,
                    media_type: Some(media_type.clone()),
                })
                .await;
            UpstreamAnswer::Content {
                blob,
                media_type,
                access,
            }
        }
        Ok(Err(error)) => failed(storage_failure(&error)),
        Err(_) => failed(internal("storing a manifest")),
    }
}

fn failed(failure: Failure) -> UpstreamAnswer {
    UpstreamAnswer::Failed { failure }
}

fn internal(what: &str) -> Failure {
    let message = format!("{what}: a task of this node ended unexpectedly; see its log");
    Failure {
        status: 500,
        message,
        retry_after: None,
        challenge: None,
    }
}
