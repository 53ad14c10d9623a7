//! What only a registry can answer: tags, listings, referrers, and who may read what.
//!
//! A node that needs such an answer asks the scheduler that is responsible for the question, which asks one seed for everybody. Without a scheduler it asks the
//! seeds that Kademlia knows, and at last, after `origin.wait`, the registry itself. What a client's credential belongs to
//! goes to a seed directly, and the scheduler never sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{AskError, To};
use piece::{Digest, NodeId};
use wire::Authorization;
use wire::control::{Failure, Query, Request, Response, Role, Upstream, UpstreamAnswer};

use crate::asking;
use crate::parts::Parts;
use crate::tags;

/// Between two rounds of asking while nobody answers.
const PAUSE: Duration = Duration::from_millis(500);

/// How upstream questions are asked.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// How long to wait for somebody else to ask the registry.
    wait: Duration,
    /// Whether to ask it ourselves then.
    fallback: bool,
}

impl Upstreams {
    pub(crate) const fn new(wait: Duration, fallback: bool) -> Self {
        Self { wait, fallback }
    }
}

/// Asks whoever is to ask the registry, as anybody or with what operators gave their nodes.
pub(crate) async fn ask(parts: &Arc<Parts>, upstream: Upstream) -> UpstreamAnswer {
    let (begun, topic) = (Instant::now(), topic(&upstream));
    let request = Request::Upstream {
        upstream: upstream.clone(),
    };
    loop {
        for scheduler in schedulers(parts, &topic) {
            match parts.control.ask(To::Node(scheduler), request.clone()).await {
                Ok(Response::Upstream { answer }) => return answer,
                Ok(other) => tracing::debug!(?other, "a scheduler did not answer for the registry"),
                Err(error) => tracing::debug!(%error, "a scheduler could not be asked about the registry"),
            }
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
            return failed(nobody_answers(&upstream, "no scheduler and no seed answers"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks a seed to ask the registry with a client's credential, or for what it says to a client without any. The seed is the
/// one that ranks first for the content, so that one of them gathers what several clients ask.
pub(crate) async fn ask_for_client(
    parts: &Arc<Parts>,
    upstream: Upstream,
    client: Option<&Authorization>,
) -> UpstreamAnswer {
    if parts.role == Role::Seed {
        return answer_for_client(parts, &upstream, client).await;
    }
    let (begun, topic) = (Instant::now(), topic(&upstream));
    loop {
        for seed in parts.seeds.ranked(parts, &topic).await {
            let request = Request::Authorised {
                upstream: upstream.clone(),
                authorization: client.cloned(),
            };
            match parts.control.ask(To::Node(seed), request).await {
                Ok(Response::Upstream { answer }) => return answer,
                Ok(_) => tracing::debug!(?seed, "a seed did not answer for the registry"),
                Err(AskError::Timeout { after, .. }) => {
                    parts.seeds.leave_out(&seed).await;
                    return failed(too_late(&upstream, after));
                }
                Err(error) => tracing::debug!(?seed, %error, "a seed could not be asked about the registry"),
            }
            parts.seeds.leave_out(&seed).await;
        }
        if begun.elapsed() >= parts.upstreams.wait || parts.seeds.are_given_up().await {
            parts.seeds.give_up().await;
            if parts.upstreams.fallback {
                return answer_for_client(parts, &upstream, client).await;
            }
            return failed(nobody_answers(&upstream, "no seed answers"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Answers from the registry, as anybody or with this node's credentials.
pub(crate) async fn answer(parts: &Arc<Parts>, upstream: &Upstream) -> UpstreamAnswer {
    match &upstream.query {
        Query::Tag { tag } => tags::answer(parts, upstream, tag).await,
        Query::Probe { .. } | Query::Tags { .. } | Query::Referrers { .. } | Query::Ping => {
            from_registry(&parts.registry, upstream).await
        }
    }
}

/// Answers from the registry with a client's credential, or as it answers a client without any. By HEAD, for a tag too: what a
/// tag names is read by whoever holds the lease, once for all.
pub(crate) async fn answer_for_client(
    parts: &Parts,
    upstream: &Upstream,
    client: Option<&Authorization>,
) -> UpstreamAnswer {
    let registry = match client {
        Some(client) => parts.registry.on_behalf(client.clone()),
        None => parts.registry.as_stranger(),
    };
    from_registry(&registry, upstream).await
}

async fn from_registry(registry: &registry::Client, upstream: &Upstream) -> UpstreamAnswer {
    let answered = registry.document(upstream).await;
    answered.unwrap_or_else(|error| failed(error.to_failure()))
}

/// The schedulers to ask, in the order in which they are responsible for a question: each is at one of them, which gathers who
/// asks it.
fn schedulers(parts: &Parts, topic: &Digest) -> Vec<NodeId> {
    let schedulers = parts.control.schedulers();
    let settled = schedulers.borrow().settled.clone();
    swarm::ranked(topic, settled)
}

/// What seeds and schedulers are ranked by: the content itself, where the question names it, so that whoever answers will also read it.
fn topic(upstream: &Upstream) -> Digest {
    match &upstream.query {
        Query::Probe { digest, .. } | Query::Referrers { digest, .. } => *digest,
        Query::Tag { .. } => Digest::of(&wire::encode(upstream)),
        Query::Tags { .. } | Query::Ping => Digest::of(&wire::encode(&upstream.repository)),
    }
}

/// A seed that is silent may be asking a registry that is. Then this node need not ask it too.
fn too_late(upstream: &Upstream, after: Duration) -> Failure {
    let repository = &upstream.repository;
    Failure {
        status: 504,
        message: format!(
            "asking about {}/{}: the seed asked gave no answer for {} s",
            repository.registry,
            repository.name,
            after.as_secs()
        ),
        retry_after: None,
        challenge: None,
    }
}

fn nobody_answers(upstream: &Upstream, what: &str) -> Failure {
    let repository = &upstream.repository;
    let message = format!(
        "asking about {}/{}: {what}, and this node may not ask the registry itself (origin.fallback)",
        repository.registry, repository.name
    );
    Failure {
        status: 504,
        message,
        retry_after: None,
        challenge: None,
    }
}

pub(crate) fn failed(failure: Failure) -> UpstreamAnswer {
    UpstreamAnswer::Failed { failure }
}
