//! Which neighbour's request is served next.
//!
//! A bounded number of pieces leave at the same time. Blobs take turns, so that whoever waits for a small one does not wait
//! for all of a large one. Of a blob's pieces the one that has left this node least often goes first, then the one asked
//! for first. So a seed sends each piece about once before it sends any twice, and the swarm does the rest.

use std::collections::{BTreeMap, BTreeSet};

use piece::{Digest, NodeId, PieceIndex};
use wire::exchange::Refusal;

use super::event::{Output, ServeId};

/// The upload side of a node.
#[derive(Debug)]
pub(super) struct Uploads {
    slots: usize,
    queue_limit: usize,
    active: BTreeMap<ServeId, Waiting>,
    waiting: BTreeMap<ServeId, Waiting>,
    /// Blobs that are waited for, the one served longest ago first.
    turns: BTreeSet<(u64, Digest)>,
    blobs: BTreeMap<Digest, Served>,
    arrivals: u64,
    serves: u64,
}

/// What has left of one blob, and what is to.
#[derive(Debug)]
struct Served {
    /// Ordered by (times the piece has left, arrival): the next to serve is the first.
    queue: BTreeSet<(u32, u64, ServeId)>,
    /// How often each piece has left.
    times: Vec<u32>,
    /// When it was last served, counted in serves of all blobs.
    last: u64,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It waits for an upload slot.
    Waits,
    /// The piece is leaving.
    Served,
}

#[derive(Debug)]
struct Waiting {
    key: (u32, u64),
    from: NodeId,
    digest: Digest,
    piece: u32,
}

impl Uploads {
    pub(super) fn new(slots: usize, queue_limit: usize) -> Self {
        Self {
            slots,
            queue_limit,
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: BTreeSet::new(),
            blobs: BTreeMap::new(),
            arrivals: 0,
            serves: 0,
        }
    }

    /// Other limits from the next request on.
    pub(super) const fn set_limits(&mut self, slots: usize, queue_limit: usize) {
        self.slots = slots;
        self.queue_limit = queue_limit;
    }

    /// Takes a request for a piece that is here; `pieces` is the blob's number of them.
    pub(super) fn ask(&mut self, id: ServeId, from: NodeId, piece: (Digest, u32, u32), out: &mut Vec<Output>) {
        let (digest, piece, pieces) = piece;
        if self.waiting.len() >= self.queue_limit {
            out.push(Output::Refuse {
                id,
                refusal: Refusal::Busy,
            });
            return;
        }
        let blob = self.blobs.entry(digest).or_insert_with(|| Served {
            queue: BTreeSet::new(),
            times: vec![0; pieces as usize],
            last: 0,
        });
        self.arrivals += 1;
        let key = (blob.times[piece as usize], self.arrivals);
        blob.queue.insert((key.0, key.1, id));
        self.turns.insert((blob.last, digest));
        self.waiting.insert(
            id,
            Waiting {
                key,
                from,
                digest,
                piece,
            },
        );
        self.fill(out);
    }

    /// A request has ended: served, or its asker went away while it waited.
    pub(super) fn ended(&mut self, id: ServeId, out: &mut Vec<Output>) {
        self.active.remove(&id);
        if let Some(Waiting { key, digest, .. }) = self.waiting.remove(&id)
            && let Some(blob) = self.blobs.get_mut(&digest)
        {
            blob.queue.remove(&(key.0, key.1, id));
            if blob.queue.is_empty() {
                self.turns.remove(&(blob.last, digest));
            }
        }
        self.fill(out);
    }

    /// Requests that are being served or wait.
    pub(super) fn load(&self) -> u16 {
        u16::try_from(self.active.len() + self.waiting.len()).unwrap_or(u16::MAX)
    }

    /// What has become of a neighbour's request for a piece, if there is one.
    pub(super) fn asked(&self, node: &NodeId, digest: &Digest, piece: PieceIndex) -> Option<Asked> {
        let is_it =
            |request: &&Waiting| request.from == *node && request.piece == piece.get() && request.digest == *digest;
        if self.active.values().any(|request| is_it(&request)) {
            return Some(Asked::Served);
        }
        self.waiting
            .values()
            .any(|request| is_it(&request))
            .then_some(Asked::Waits)
    }

    /// A neighbour is gone: nothing of it needs to wait.
    pub(super) fn gone(&mut self, node: &NodeId, out: &mut Vec<Output>) {
        let theirs: Vec<ServeId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.from == *node)
            .map(|(id, _)| *id)
            .collect();
        for id in theirs {
            self.ended(id, out);
            out.push(Output::Refuse {
                id,
                refusal: Refusal::Busy,
            });
        }
    }

    /// The blob has left this node: what waits for it is turned down.
    pub(super) fn forget(&mut self, digest: &Digest, out: &mut Vec<Output>) {
        if let Some(blob) = self.blobs.remove(digest) {
            self.turns.remove(&(blob.last, *digest));
        }
        let lost: Vec<ServeId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.digest == *digest)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.ended(id, out);
            out.push(Output::Refuse {
                id,
                refusal: Refusal::NotHere,
            });
        }
    }

    fn fill(&mut self, out: &mut Vec<Output>) {
        while self.active.len() < self.slots {
            let Some((_, digest)) = self.turns.pop_first() else {
                return;
            };
            let blob = self.blobs.get_mut(&digest).expect("a blob with a turn is here");
            let (_, _, id) = blob.queue.pop_first().expect("a blob with a turn is waited for");
            let waiting = self.waiting.remove(&id).expect("what is queued is waiting");
            blob.times[waiting.piece as usize] += 1;
            self.serves += 1;
            blob.last = self.serves;
            if !blob.queue.is_empty() {
                self.turns.insert((blob.last, digest));
            }
            self.active.insert(id, waiting);
            out.push(Output::Serve { id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(out: &mut Vec<Output>) -> Vec<u64> {
        out.drain(..)
            .filter_map(|o| if let Output::Serve { id } = o { Some(id.0) } else { None })
            .collect()
    }

    #[test]
    fn the_least_served_piece_goes_first() {
        let mut uploads = Uploads::new(1, 8);
        let (digest, node) = (Digest::EMPTY, NodeId::from_bytes([1; 32]));
        let mut out = Vec::new();
        for (id, piece) in [(0, 0), (1, 0), (2, 0), (3, 1)] {
            uploads.ask(ServeId(id), node, (digest, piece, 2), &mut out);
        }
        assert_eq!(served(&mut out), [0], "one slot");
        uploads.ended(ServeId(0), &mut out);
        uploads.ask(ServeId(4), node, (digest, 0, 2), &mut out);
        for id in [3, 1, 2] {
            uploads.ended(ServeId(id), &mut out);
        }
        assert_eq!(
            served(&mut out),
            [3, 1, 2, 4],
            "piece 1 has never left; then as they came"
        );
    }

    #[test]
    fn a_small_blob_does_not_wait_for_a_large_one() {
        let mut uploads = Uploads::new(1, 128);
        let (large, small) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let node = NodeId::from_bytes([1; 32]);
        let mut out = Vec::new();
        for id in 0..100 {
            uploads.ask(ServeId(id), node, (large, id as u32, 100), &mut out);
        }
        uploads.ask(ServeId(100), node, (small, 0, 2), &mut out);
        uploads.ask(ServeId(101), node, (small, 0, 2), &mut out);
        for id in [0, 100, 1, 101, 2] {
            uploads.ended(ServeId(id), &mut out);
        }
        assert_eq!(
            served(&mut out),
            [0, 100, 1, 101, 2, 3],
            "in turn while both are waited for"
        );
    }

    #[test]
    fn a_blob_that_leaves_takes_its_turn_with_it() {
        let mut uploads = Uploads::new(1, 8);
        let (gone, stays) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let node = NodeId::from_bytes([1; 32]);
        let mut out = Vec::new();
        for (id, digest) in [(0, gone), (1, gone), (2, stays)] {
            uploads.ask(ServeId(id), node, (digest, 0, 1), &mut out);
        }
        uploads.forget(&gone, &mut out);
        uploads.ended(ServeId(0), &mut out);
        uploads.ended(ServeId(2), &mut out);
        assert_eq!(served(&mut out), [0, 2]);
        assert!(uploads.turns.is_empty() && uploads.waiting.is_empty());
    }

    #[test]
    fn more_slots_serve_more_at_once() {
        let mut uploads = Uploads::new(1, 8);
        let node = NodeId::from_bytes([1; 32]);
        let mut out = Vec::new();
        for id in 0..4 {
            uploads.ask(ServeId(id), node, (Digest::EMPTY, 0, 1), &mut out);
        }
        assert_eq!(served(&mut out), [0]);
        uploads.set_limits(3, 8);
        uploads.ended(ServeId(0), &mut out);
        assert_eq!(served(&mut out), [1, 2, 3]);
    }

    #[test]
    fn a_full_queue_says_busy_and_a_gone_neighbour_frees_it() {
        let mut uploads = Uploads::new(1, 2);
        let (digest, node) = (Digest::EMPTY, NodeId::from_bytes([1; 32]));
        let mut out = Vec::new();
        for id in 0..4 {
            uploads.ask(ServeId(id), node, (digest, 0, 1), &mut out);
        }
        assert!(out.contains(&Output::Refuse {
            id: ServeId(3),
            refusal: Refusal::Busy
        }));
        uploads.gone(&node, &mut out);
        assert!(uploads.waiting.is_empty() && uploads.turns.is_empty());
    }
}
