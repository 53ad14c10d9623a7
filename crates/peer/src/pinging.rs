//! What `/v2/` says to clients: whether the registry behind it wants to be shown something.
//!
//! containers/image learns from this answer alone how a registry wants to be convinced, so it has to be the registry's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wire::Authorization;
use wire::control::{Failure, Query, Repository, Upstream, UpstreamAnswer};

use crate::parts::Parts;
use crate::upstream;

/// How long a registry's answer counts.
const TTL: Duration = Duration::from_secs(300);
/// How long a client waits for one. A mirror that cannot ask says that it is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// Registries whose answers are kept; the map starts afresh beyond.
const MAX_REGISTRIES: usize = 256;

/// What a registry says, and since when that is known.
type Answer = (Result<(), Failure>, Instant);

/// What registries say to strangers.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    answers: Mutex<HashMap<String, Answer>>,
}

impl Pings {
    fn get(&self, registry: &str) -> Option<Result<(), Failure>> {
        let answers = self.answers.lock().expect("no holder of this lock panics");
        let (answer, since) = answers.get(registry)?;
        (since.elapsed() < TTL).then(|| answer.clone())
    }

    fn put(&self, registry: &str, answer: Result<(), Failure>) {
        let mut answers = self.answers.lock().expect("no holder of this lock panics");
        if answers.len() >= MAX_REGISTRIES {
            answers.clear();
        }
        answers.insert(registry.to_owned(), (answer, Instant::now()));
    }
}

/// The registry's refusal, if it refuses. Where clients of this node need no credentials, nobody is asked for any.
pub(crate) async fn ping(parts: &Arc<Parts>, registry: &str, client: Option<&Authorization>) -> Result<(), Failure> {
    if parts.verdicts.asks_nobody() {
        return Ok(());
    }
    if let Some(answer) = parts.pings.get(registry).filter(|_| client.is_none()) {
        return answer;
    }
    let upstream = Upstream {
        repository: Repository {
            registry: registry.to_owned(),
            name: String::new(),
        },
        query: Query::Ping,
    };
    let asked = upstream::ask_for_client(parts, upstream, client);
    let answer = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(UpstreamAnswer::Failed { failure }) if failure.status == 401 => Err(failure),
        Ok(UpstreamAnswer::Document { .. }) => Ok(()),
        Ok(UpstreamAnswer::Failed { .. } | UpstreamAnswer::Content { .. }) | Err(_) => return Ok(()),
    };
    if client.is_none() {
        parts.pings.put(registry, answer.clone());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_and_bounded() {
        let pings = Pings::default();
        assert_eq!(pings.get("a"), None);
        pings.put("a", Ok(()));
        assert_eq!((pings.get("a"), pings.get("b")), (Some(Ok(())), None));
        (0..2 * MAX_REGISTRIES).for_each(|n| pings.put(&n.to_string(), Ok(())));
        assert!(pings.answers.lock().unwrap().len() <= MAX_REGISTRIES);
    }
}
