//! Which scheduler a blob belongs to, and which others are told of it.
//!
//! Among the schedulers that have settled, the first in rendezvous order is the blob's *home*: there it is joined, there its
//! leases come from. What this node holds or reads of it is reported to the first two in the order of all that are connected.
//! The second need not be told anything when the first is lost, a node whose view differs from others' finds at the second
//! what is known at the first, and one that comes back knows its blobs before anybody asks it about one.

use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::Swarm;

use super::Node;
use super::ask::Ask;
use super::event::Output;
use crate::rendezvous::rank;

/// Readers of one blob that two schedulers together may name.
const MAX_READERS: usize = 16;

/// The schedulers by which blobs are sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Those that are connected, and answer.
    pub(super) alive: Vec<NodeId>,
    /// Those of them that have settled.
    pub(super) settled: Vec<NodeId>,
}

impl View {
    /// The scheduler that a blob belongs to.
    pub(super) fn home(&self, digest: &Digest) -> Option<NodeId> {
        first_two(digest, &self.settled)[0]
    }

    /// The schedulers that are to know of a blob.
    pub(super) fn informed(&self, digest: &Digest) -> impl Iterator<Item = NodeId> + use<> {
        let [first, second] = first_two(digest, &self.alive);
        let home = self.home(digest).filter(|home| ![first, second].contains(&Some(*home)));
        [first, second, home].into_iter().flatten()
    }
}

/// The first two in rendezvous order. Asked for every piece that comes, so it allocates nothing.
fn first_two(digest: &Digest, nodes: &[NodeId]) -> [Option<NodeId>; 2] {
    let mut best: [Option<(u64, NodeId)>; 2] = [None, None];
    for node in nodes {
        let this = Some((rank(digest, node), *node));
        if this > best[0] {
            best = [this, best[0]];
        } else if this > best[1] {
            best[1] = this;
        }
    }
    best.map(|ranked| ranked.map(|(_, node)| node))
}

impl Node {
    pub(super) fn scheduler_up(&mut self, now: Duration, scheduler: NodeId, out: &mut Vec<Output>) {
        self.reporter.connected(now, scheduler);
        self.sort_blobs(now, out);
        self.register(now, scheduler, out);
    }

    pub(super) fn scheduler_down(&mut self, now: Duration, scheduler: &NodeId, out: &mut Vec<Output>) {
        self.reporter.disconnected(scheduler);
        self.sort_blobs(now, out);
    }

    pub(super) fn scheduler_settled(&mut self, now: Duration, scheduler: &NodeId, out: &mut Vec<Output>) {
        self.reporter.settled(scheduler);
        self.sort_blobs(now, out);
    }

    /// Introduces this node to a scheduler that does not know it.
    fn register(&mut self, now: Duration, scheduler: NodeId, out: &mut Vec<Output>) {
        self.reporter.begin_registration(now, &scheduler);
        let informed = |digest: &Digest| self.reporter.informed(digest).any(|informed| informed == scheduler);
        let digests = self.blobs.keys().filter(|digest| informed(digest));
        let holdings = digests
            .filter_map(|digest| self.holding_for(digest, &scheduler))
            .collect();
        let ask = Ask::Register { holdings };
        out.push(Output::Ask { scheduler, ask });
    }

    pub(super) fn registered(&mut self, now: Duration, scheduler: NodeId, every: Duration, out: &mut Vec<Output>) {
        self.reporter.registered(now, &scheduler, every);
        self.sort_blobs(now, out);
        self.join_wanted(now, &scheduler, out);
    }

    pub(super) fn reported(&mut self, now: Duration, scheduler: NodeId, known: bool, out: &mut Vec<Output>) {
        // Whoever hears it several times over registers once.
        if self.reporter.answered(&scheduler) && !known {
            self.register(now, scheduler, out);
        }
    }

    /// Joins all that somebody waits for and that belongs to this scheduler.
    fn join_wanted(&mut self, now: Duration, scheduler: &NodeId, out: &mut Vec<Output>) {
        let wanted: Vec<Digest> = self.hungry.iter().map(|(_, digest)| *digest).collect();
        for digest in wanted {
            if self.reporter.home(&digest) == Some(*scheduler) {
                self.join_again(now, digest, out);
            }
        }
    }

    fn join_again(&mut self, now: Duration, digest: Digest, out: &mut Vec<Output>) {
        let source = self.blobs.get(&digest).and_then(|state| state.sources.first());
        if let Some(source) = source.cloned() {
            self.join(now, digest, source, out);
        }
    }

    /// Schedulers have come, settled, or gone: tells those that are now to know of a blob, and those that no longer are, and
    /// joins at its new home what is wanted.
    pub(super) fn sort_blobs(&mut self, now: Duration, out: &mut Vec<Output>) {
        let Some(before) = self.reporter.look(now) else { return };
        let digests: Vec<Digest> = self.blobs.keys().copied().collect();
        for digest in digests {
            let moved = before.home(&digest) != self.reporter.home(&digest);
            self.reporter.moved(&before, digest);
            if moved && self.blobs[&digest].is_hungry() {
                self.join_again(now, digest, out);
            }
        }
    }

    /// What a scheduler said of a blob, reduced to what it is heeded in: only a blob's home ends a reading, and another's
    /// knowledge of readers adds to the home's.
    pub(super) fn heed(&mut self, scheduler: NodeId, digest: &Digest, mut swarm: Swarm) -> Swarm {
        let elsewhere = self.reporter.home(digest).is_some_and(|home| home != scheduler);
        if swarm.lease.is_some() {
            self.reporter.granted(*digest, scheduler);
        }
        if elsewhere {
            swarm.revoked = None;
            if let Some(state) = self.blobs.get(digest).filter(|_| !swarm.readers.is_empty()) {
                let known = state.readers.iter().filter(|reader| !swarm.readers.contains(reader));
                let room = MAX_READERS.saturating_sub(swarm.readers.len());
                let known: Vec<NodeId> = known.take(room).copied().collect();
                swarm.readers.extend(known);
            }
        }
        swarm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedulers(count: u8) -> Vec<NodeId> {
        (0..count).map(|number| NodeId::from_bytes([number; 32])).collect()
    }

    fn view(settled: &[NodeId]) -> View {
        View {
            alive: settled.to_vec(),
            settled: settled.to_vec(),
        }
    }

    proptest! {
        #[test]
        fn a_blob_has_one_home_and_one_more_knows_of_it(bytes: [u8; 32], count in 0u8..8) {
            let digest = Digest::from_bytes(bytes);
            let mut settled = schedulers(count);
            let order = crate::ranked(&digest, settled.iter().copied());
            let here = view(&settled);
            prop_assert_eq!(here.home(&digest), order.first().copied());
            prop_assert!(here.informed(&digest).eq(order.iter().take(2).copied()));
            settled.reverse();
            prop_assert_eq!(view(&settled).home(&digest), here.home(&digest), "in whatever order they are named");
        }

        #[test]
        fn when_a_scheduler_is_lost_only_its_blobs_move_and_to_those_that_know_them(
            bytes: [u8; 32], count in 2u8..8, lost: prop::sample::Index,
        ) {
            let (digest, mut settled) = (Digest::from_bytes(bytes), schedulers(count));
            let before = view(&settled);
            let lost = settled.remove(lost.index(count.into()));
            let home = view(&settled).home(&digest);
            if before.home(&digest) == Some(lost) {
                prop_assert_eq!(home, before.informed(&digest).nth(1));
            } else {
                prop_assert_eq!(home, before.home(&digest));
            }
        }

        #[test]
        fn one_that_is_back_is_told_of_its_blobs_before_they_are_its_own(bytes: [u8; 32], count in 2u8..8) {
            let (digest, alive) = (Digest::from_bytes(bytes), schedulers(count));
            let order = crate::ranked(&digest, alive.iter().copied());
            let settled = alive.iter().copied().filter(|scheduler| *scheduler != order[0]).collect();
            let view = View { alive, settled };
            prop_assert_eq!(view.home(&digest), Some(order[1]));
            prop_assert!(view.informed(&digest).eq(order.iter().take(2).copied()));
        }
    }
}
