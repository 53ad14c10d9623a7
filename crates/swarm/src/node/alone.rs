//! Without a scheduler: finding holders through Kademlia, electing a reader, and at last reading the registry oneself.

use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::{Holding, Lease, Neighbour, Role};

use super::Node;
use super::blob::BlobState;
use super::event::Output;
use crate::rank;

/// A scheduler that is only slow to connect at start is worth this much waiting.
const GRACE: Duration = Duration::from_secs(1);
/// Before a peer elects itself as reader, those who want the blob get this long to find each other, and a seed to begin.
const ELECTION: Duration = Duration::from_secs(4);
/// A seed need only find other seeds that were summoned for the same blob.
const SEED_ELECTION: Duration = Duration::from_millis(1500);

/// What the neighbours have of a blob that this node misses something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Supply {
    /// Nothing.
    None,
    /// Nothing that this node misses.
    Exhausted,
    /// Something that it misses.
    More,
}

impl BlobState {
    fn supply(&self) -> Supply {
        if self.others_help() {
            return Supply::More;
        }
        let mut fields = self
            .mates
            .values()
            .filter(|mate| !mate.banned)
            .filter_map(|mate| mate.field.as_ref());
        match fields.any(|field| !field.is_empty()) {
            true => Supply::Exhausted,
            false => Supply::None,
        }
    }
}

impl Node {
    /// Called for every hungry blob now and then.
    pub(super) fn look_alone(&mut self, now: Duration, digest: Digest, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let supply = state.supply();
        let Some(wanted) = &mut state.wanted else { return };
        let Some(alone) = self.reporter.alone_for(now) else {
            wanted.looked = None;
            return;
        };
        if alone < GRACE {
            return;
        }
        // While there was a scheduler, it was for it to find a reader.
        let waited = now.saturating_sub(wanted.progress).min(alone);
        let election = match (supply, self.me.role) {
            // What the others have is all that this side of a partition has, or a reader of the registry is slow.
            (Supply::Exhausted, _) => self.config.origin_wait,
            (Supply::None | Supply::More, Role::Seed) => SEED_ELECTION,
            (Supply::None | Supply::More, Role::Peer | Role::Scheduler) => ELECTION,
        };
        if wanted
            .looked
            .is_none_or(|looked| now >= looked + self.config.find_interval)
        {
            if wanted.looked.is_none() {
                out.push(Output::Provide { digest });
            }
            wanted.looked = Some(now);
            out.push(Output::FindHolders {
                digest,
                size: state.size,
                source: state.sources.first().cloned(),
                stuck: supply == Supply::Exhausted && waited >= ELECTION,
            });
        }
        if state.origin.is_some() || supply == Supply::More {
            return;
        }
        let elected = waited >= election && self.elected(&digest) == Some(self.me.node);
        // Whoever is elected here and holds a part gets as long again to begin.
        let patience = election.max(self.config.origin_wait) * if supply == Supply::Exhausted { 2 } else { 1 };
        let own = waited >= patience && self.config.origin_fallback;
        if elected || own {
            self.read_alone(now, digest, out);
        }
    }

    /// What Kademlia found.
    pub(super) fn holders(
        &mut self,
        now: Duration,
        digest: Digest,
        holders: Vec<(Neighbour, Holding)>,
        out: &mut Vec<Output>,
    ) {
        if !self.blobs.get(&digest).is_some_and(|state| state.is_hungry()) {
            return;
        }
        if let Some((_, holding)) = holders
            .iter()
            .find(|(_, holding)| holding.pieces > 0 || holding.reading.is_some())
        {
            self.learn_size(digest, holding.blob.size, holding.media_type.clone(), out);
        }
        // No scheduler chooses importers: whoever looks for itself is one.
        self.begin_importing(digest, out);
        self.links.learn(
            &digest,
            holders.into_iter().map(|(neighbour, _)| neighbour).collect(),
            self.me.node,
        );
        if let Some(reader) = self.elected(&digest) {
            let state = self.blobs.get_mut(&digest).expect("checked above");
            if !state.readers.contains(&reader) && !self.reporter.is_registered() {
                state.readers.push(reader);
                out.push(state.trust(digest));
            }
        }
        self.connect_more(now, digest, out);
    }

    /// The reader among those who are known to hold or want the blob and can be reached, ourselves included: seeds before
    /// peers, then by rendezvous hashing, so that everybody with the same view elects the same one.
    fn elected(&self, digest: &Digest) -> Option<NodeId> {
        let me = (self.me.role == Role::Seed, self.me.node);
        let others = self
            .links
            .known(digest)
            .filter(|neighbour| !self.links.is_out_of_reach(&neighbour.node))
            .map(|neighbour| (neighbour.role == Role::Seed, neighbour.node));
        others
            .chain([me])
            .filter(|(seed, _)| *seed || self.config.origin_fallback)
            .max_by_key(|(seed, node)| (*seed, rank(digest, node), *node))
            .map(|(_, node)| node)
    }

    fn read_alone(&mut self, now: Duration, digest: Digest, out: &mut Vec<Output>) {
        let Some(source) = self.blobs.get(&digest).and_then(|state| state.sources.first().cloned()) else {
            return;
        };
        self.open_origin(
            now,
            digest,
            Lease {
                epoch: 0,
                source,
                resume: None,
            },
            out,
        );
    }
}
