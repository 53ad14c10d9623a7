//! Connections to neighbours: whom to dial, and which connection nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::Neighbour;

use super::event::Output;
use super::expulsion::Expulsion;
use super::{Input, Node};

/// Candidates remembered per blob.
const MAX_KNOWN: usize = 64;
/// A node that could not be reached is not dialled again before this.
const REDIAL: Duration = Duration::from_secs(3);

/// What a neighbour said of its load counts this long.
const LOAD_LASTS: Duration = Duration::from_millis(500);

/// All connections of a node, and those it could make.
#[derive(Debug)]
pub(super) struct Links {
    limit: usize,
    up: BTreeMap<NodeId, Link>,
    dialling: BTreeSet<NodeId>,
    /// Whom the scheduler (or Kademlia) named for a blob.
    known: BTreeMap<Digest, BTreeMap<NodeId, Neighbour>>,
    unreachable: BTreeMap<NodeId, Duration>,
    banned: BTreeSet<NodeId>,
    /// Whom an operator has expelled.
    pub(super) expulsion: Expulsion,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Blobs that both ends take part in.
    blobs: BTreeSet<Digest>,
    /// Our piece requests under way on it.
    pub(super) in_flight: usize,
    /// Requests in a row that were late.
    pub(super) late: u32,
    /// How many requests it had to serve when it last said so, and when that was.
    load: (u16, Duration),
    last_used: Duration,
}

impl Link {
    pub(super) const fn heard_load(&mut self, now: Duration, load: u16) {
        self.load = (load, now);
    }

    /// How much it is likely to have to do: what it last said, while that is fresh, and what we ask of it.
    pub(super) fn load(&self, now: Duration) -> usize {
        let (said, at) = self.load;
        let fresh = now.saturating_sub(at) < LOAD_LASTS;
        self.in_flight + if fresh { usize::from(said) } else { 0 }
    }
}

impl Links {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            up: BTreeMap::new(),
            dialling: BTreeSet::new(),
            known: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            banned: BTreeSet::new(),
            expulsion: Expulsion::default(),
        }
    }

    pub(super) const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.up.is_empty() && self.dialling.is_empty()
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Link> {
        self.up.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Link> {
        self.up.get_mut(node)
    }

    /// Remembers candidates for a blob.
    pub(super) fn learn(&mut self, digest: &Digest, neighbours: Vec<Neighbour>, me: NodeId) {
        if neighbours.is_empty() {
            return;
        }
        let known = self.known.entry(*digest).or_default();
        for neighbour in neighbours.into_iter().filter(|neighbour| neighbour.node != me) {
            if known.len() < MAX_KNOWN || known.contains_key(&neighbour.node) {
                known.insert(neighbour.node, neighbour);
            }
        }
    }

    /// Those named for a blob.
    pub(super) fn known(&self, digest: &Digest) -> impl Iterator<Item = &Neighbour> {
        self.known.get(digest).into_iter().flat_map(BTreeMap::values)
    }

    /// A blob is shared over a connection.
    pub(super) fn join(&mut self, node: &NodeId, digest: Digest) {
        if let Some(link) = self.up.get_mut(node) {
            link.blobs.insert(digest);
        }
    }

    /// A blob is no longer shared over a connection.
    pub(super) fn leave(&mut self, node: &NodeId, digest: &Digest) {
        if let Some(link) = self.up.get_mut(node) {
            link.blobs.remove(digest);
        }
    }

    /// Whom to forget when a blob is done or gone.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.known.remove(digest);
    }

    pub(super) fn ban(&mut self, node: NodeId) {
        self.banned.insert(node);
    }

    /// Whether a node is not connected and could not be reached, or has not answered yet.
    pub(super) fn is_out_of_reach(&self, node: &NodeId) -> bool {
        !self.up.contains_key(node) && (self.dialling.contains(node) || self.unreachable.contains_key(node))
    }

    fn may_dial(&self, now: Duration, node: &NodeId) -> bool {
        !self.up.contains_key(node)
            && !self.dialling.contains(node)
            && !self.banned.contains(node)
            && !self.expulsion.contains(node)
            && self.unreachable.get(node).is_none_or(|until| *until <= now)
            && self.up.len() + self.dialling.len() < self.limit
    }
}

impl Node {
    /// Dials candidates until the blob has its share of neighbours, and introduces the blob to those already connected.
    pub(super) fn connect_more(&mut self, now: Duration, digest: Digest, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get(&digest) else { return };
        if !state.is_hungry() {
            return;
        }
        let mut room = self.config.neighbours.saturating_sub(state.mates.len());
        let candidates: Vec<Neighbour> = self.links.known(&digest).cloned().collect();
        for neighbour in candidates {
            if self.links.up.contains_key(&neighbour.node) {
                self.tell(neighbour.node, digest, out);
            } else if room > 0 && self.links.may_dial(now, &neighbour.node) {
                room -= 1;
                self.links.dialling.insert(neighbour.node);
                out.push(Output::Connect {
                    node: neighbour.node,
                    address: neighbour.data.0,
                });
            }
        }
    }

    pub(super) fn connected(&mut self, now: Duration, node: NodeId, out: &mut Vec<Output>) {
        self.links.dialling.remove(&node);
        self.links.unreachable.remove(&node);
        self.links.up.insert(
            node,
            Link {
                blobs: BTreeSet::new(),
                in_flight: 0,
                late: 0,
                load: (0, Duration::ZERO),
                last_used: now,
            },
        );
        let shared: Vec<Digest> = self
            .links
            .known
            .iter()
            .filter(|(digest, known)| {
                known.contains_key(&node) && self.blobs.get(digest).is_some_and(|state| state.is_hungry())
            })
            .map(|(digest, _)| *digest)
            .collect();
        for digest in shared {
            self.tell(node, digest, out);
        }
    }

    pub(super) fn disconnected(&mut self, now: Duration, node: NodeId, out: &mut Vec<Output>) {
        self.links.dialling.remove(&node);
        if self.links.unreachable.len() >= self.links.limit * 16 {
            self.links.unreachable.retain(|_, until| *until > now);
        }
        self.links.unreachable.insert(node, now + REDIAL);
        let Some(link) = self.links.up.remove(&node) else {
            return;
        };
        self.openings.gone(node);
        for digest in link.blobs {
            self.touch(digest);
            if let Some(state) = self.blobs.get_mut(&digest) {
                state.remove_mate(&node);
                state.survey(now);
            }
        }
        self.lose_requests(now, node, out);
        self.uploads.gone(&node, out);
    }

    /// Closes connections over which nobody has wanted anything for a while.
    pub(super) fn close_idle(&mut self, now: Duration, out: &mut Vec<Output>) {
        let mut idle = Vec::new();
        for (node, link) in &mut self.links.up {
            let busy = link.in_flight > 0
                || link
                    .blobs
                    .iter()
                    .filter_map(|digest| self.blobs.get(digest))
                    .any(|state| state.is_hungry() || state.mates.get(node).is_some_and(|mate| mate.wants));
            if busy {
                link.last_used = now;
            } else if now.saturating_sub(link.last_used) >= self.config.idle_connection {
                idle.push(*node);
            }
        }
        for node in idle {
            out.push(Output::Disconnect { node });
            self.handle_inner(now, Input::Disconnected { node }, out);
        }
    }
}
