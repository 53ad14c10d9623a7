//! Which neighbour's request is served next.
//!
//! A bounded number of pieces leave at the same time; of those that wait, the piece that has left this node least often
//! goes first, then the one asked for first. So a seed sends each piece about once before it sends any twice, and the
//! swarm does the rest.

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
    /// Ordered by (times the piece has left, arrival): the next to serve is the first.
    queue: BTreeSet<(u32, u64, ServeId)>,
    waiting: BTreeMap<ServeId, Waiting>,
    /// How often each piece of a blob has left.
    served: BTreeMap<Digest, Vec<u32>>,
    arrivals: u64,
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
            queue: BTreeSet::new(),
            waiting: BTreeMap::new(),
            served: BTreeMap::new(),
            arrivals: 0,
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
        if self.queue.len() >= self.queue_limit {
            out.push(Output::Refuse {
                id,
                refusal: Refusal::Busy,
            });
            return;
        }
        let times = self.served.entry(digest).or_insert_with(|| vec![0; pieces as usize])[piece as usize];
        self.arrivals += 1;
        let key = (times, self.arrivals);
        self.queue.insert((key.0, key.1, id));
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
        if let Some(waiting) = self.waiting.remove(&id) {
            self.queue.remove(&(waiting.key.0, waiting.key.1, id));
        }
        self.fill(out);
    }

    /// Requests that are being served or wait.
    pub(super) fn load(&self) -> u16 {
        u16::try_from(self.active.len() + self.waiting.len()).unwrap_or(u16::MAX)
    }

    /// Whether a neighbour is waiting for a piece or being served it.
    pub(super) fn has_asked(&self, node: &NodeId, digest: &Digest, piece: PieceIndex) -> bool {
        let mut asked = self.waiting.values().chain(self.active.values());
        asked.any(|request| request.from == *node && request.piece == piece.get() && request.digest == *digest)
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
        self.served.remove(digest);
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
            let Some((_, _, id)) = self.queue.pop_first() else {
                return;
            };
            let waiting = self.waiting.remove(&id).expect("what is queued is waiting");
            if let Some(times) = self.served.get_mut(&waiting.digest) {
                times[waiting.piece as usize] += 1;
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
        assert!(uploads.waiting.is_empty() && uploads.queue.is_empty());
    }
}
