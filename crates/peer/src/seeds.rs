//! Whom to entrust a client's credential to: the seeds, in the order in which they would read a content.

use std::time::{Duration, Instant};

use piece::{Digest, NodeId};

use crate::asking;
use crate::parts::Parts;

/// How long what Kademlia said counts. A seed that does not answer is left out sooner.
const FRESH: Duration = Duration::from_secs(30);
/// The same where it knew of none: one may just be starting.
const NONE_FRESH: Duration = Duration::from_secs(1);
/// Seeds that are asked, one after another, before the question counts as unanswered.
const MOST: usize = 3;

/// The seeds that Kademlia knows.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    known: tokio::sync::Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    seeds: Vec<NodeId>,
    since: Option<Instant>,
    /// When somebody last waited for one in vain.
    given_up: Option<Instant>,
}

impl Seeds {
    /// Those that rank first for a content: the first of them is who the scheduler, or every node for itself, would have
    /// read it.
    pub(crate) async fn ranked(&self, parts: &Parts, digest: &Digest) -> Vec<NodeId> {
        let mut known = self.known.lock().await;
        if !known.is_fresh() {
            known.seeds = asking::find_seeds(parts).await;
            known.seeds.retain(|seed| *seed != parts.key.node_id());
            known.since = Some(Instant::now());
        }
        if !known.seeds.is_empty() {
            known.given_up = None;
        }
        let mut seeds = swarm::ranked(digest, known.seeds.iter().copied());
        drop(known);
        seeds.truncate(MOST);
        seeds
    }

    /// A seed does not answer: it is not asked again until it is found again.
    pub(crate) async fn leave_out(&self, seed: &NodeId) {
        self.known.lock().await.seeds.retain(|other| other != seed);
    }

    /// There is none, however long one waits; for a while nobody else needs to.
    pub(crate) async fn give_up(&self) {
        self.known.lock().await.given_up = Some(Instant::now());
    }

    /// Whether somebody has waited in vain just now.
    pub(crate) async fn are_given_up(&self) -> bool {
        let given_up = self.known.lock().await.given_up;
        given_up.is_some_and(|since| since.elapsed() < FRESH)
    }
}

impl Known {
    fn is_fresh(&self) -> bool {
        let lasts = if self.seeds.is_empty() { NONE_FRESH } else { FRESH };
        self.since.is_some_and(|since| since.elapsed() < lasts)
    }
}
