//! Passing on what is to be fetched ahead of any client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use piece::{Blob, NodeId};
use wire::control::{MAX_ENTRIES, Response, Role, Source};

use super::Scheduler;
use super::event::Output;
use super::slots::NodeKey;
use super::timers::Timer;
use super::upstream::check_repository;
use crate::rank;

/// Nodes told per turn at most, and the time between turns: ten thousand nodes need two seconds, and join about as fast.
const TURN: usize = 256;
/// Entries told per turn: a preheat of many blobs goes to fewer nodes at a time, so that its copies do not fill the memory.
const TURN_ENTRIES: usize = 65_536;
const PAUSE: Duration = Duration::from_millis(50);

/// Preheats that not all peers have been told of.
#[derive(Debug, Default)]
pub(super) struct Preheats {
    queue: VecDeque<Preheat>,
    turn: Option<Duration>,
}

#[derive(Debug)]
struct Preheat {
    blobs: Arc<[(Blob, Source)]>,
    /// The last node that was told.
    after: Option<NodeId>,
}

impl Preheats {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Scheduler {
    /// Somebody wants blobs to be fetched.
    pub(super) fn preheat(
        &mut self,
        now: Duration,
        blobs: Vec<(Blob, Source)>,
        to: Role,
        out: &mut Vec<Output>,
    ) -> Response {
        if let Err(reason) = self.check_preheat(&blobs, to) {
            self.counters.refused += 1;
            return Response::Refused { reason };
        }
        self.counters.preheats += 1;
        if to == Role::Seed {
            self.preheat_seeds(blobs, out);
        } else {
            self.preheats.queue.push_back(Preheat {
                blobs: blobs.into(),
                after: None,
            });
            self.continue_preheats(now, out);
        }
        Response::Taken
    }

    fn check_preheat(&self, blobs: &[(Blob, Source)], to: Role) -> Result<(), String> {
        if blobs.len() > MAX_ENTRIES {
            return Err(format!("a preheat names at most {MAX_ENTRIES} blobs"));
        }
        blobs
            .iter()
            .try_for_each(|(_, source)| check_repository(&source.repository))?;
        match to {
            Role::Scheduler => Err("blobs are fetched by seeds or by peers".into()),
            Role::Seed if self.nodes.seeds.is_empty() => Err("no seed is there to fetch the blobs; start one".into()),
            Role::Peer if self.nodes.peers.is_empty() => Err("no peer is there to fetch the blobs; start one".into()),
            Role::Peer if self.preheats.queue.len() >= self.config.limits.preheats => Err(format!(
                "{} preheats are being passed on already: try again soon",
                self.preheats.queue.len()
            )),
            Role::Seed | Role::Peer => Ok(()),
        }
    }

    /// Each blob goes to the seed that would read it.
    fn preheat_seeds(&mut self, blobs: Vec<(Blob, Source)>, out: &mut Vec<Output>) {
        let mut shares: BTreeMap<NodeId, Vec<(Blob, Source)>> = BTreeMap::new();
        for (blob, source) in blobs {
            let weight = |seed: &NodeKey| {
                let id = self.nodes[*seed].id;
                (rank(&blob.digest, &id), id)
            };
            let Some(seed) = self.nodes.seeds.iter().max_by_key(weight) else {
                return;
            };
            shares.entry(self.nodes[seed].id).or_default().push((blob, source));
        }
        out.extend(shares.into_iter().map(|(to, blobs)| Output::Preheat {
            to,
            blobs: blobs.into(),
        }));
    }

    /// Tells the next peers of the first preheat.
    pub(super) fn continue_preheats(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.preheats.turn.is_some_and(|turn| now < turn) {
            return;
        }
        self.preheats.turn = None;
        let Some(preheat) = self.preheats.queue.front_mut() else {
            return;
        };
        let turn = (TURN_ENTRIES / preheat.blobs.len().max(1)).min(TURN);
        let mut looked_at = 0;
        for (_, node) in self.nodes.after(preheat.after).take(turn) {
            looked_at += 1;
            preheat.after = Some(node.id);
            if node.connected && node.role == Role::Peer {
                out.push(Output::Preheat {
                    to: node.id,
                    blobs: preheat.blobs.clone(),
                });
            }
        }
        if looked_at < turn {
            self.preheats.queue.pop_front();
        }
        if !self.preheats.queue.is_empty() {
            self.preheats.turn = Some(now + PAUSE);
            self.timers.set(now + PAUSE, Timer::Preheat);
        }
    }
}
