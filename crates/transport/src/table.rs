//! Who is connected, who is being dialled, who is banned: the one place that decides which connection stays.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::{BoxFuture, WeakShared};
use piece::NodeId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::CloseCode;
use crate::link::Link;
use crate::{ConnectError, Event};

/// A dial in progress, shared by everybody who waits for it.
pub(crate) type Dial = BoxFuture<'static, Result<(), ConnectError>>;

/// The neighbours of one node.
pub(crate) struct Table {
    me: NodeId,
    max_connections: usize,
    /// How long two connections between the same nodes may have been opened by both at the same time.
    simultaneous: Duration,
    links: HashMap<NodeId, Link>,
    /// Dials that nobody waits for any more are dead entries until the next look.
    pub(crate) dials: HashMap<NodeId, WeakShared<Dial>>,
    pub(crate) bans: Bans,
    /// Gone once the transport is closing.
    pub(crate) events: Option<mpsc::Sender<Event>>,
}

/// Why a connection does not stay, though its other end belongs to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// This transport is closing.
    Closing,
    /// The node is banned.
    Banned,
    /// All places are taken.
    Full,
    /// There is another connection to the same node, and that one stays.
    Duplicate,
}

impl TurnedAway {
    /// What the other end is told.
    pub(crate) const fn close(self) -> (CloseCode, &'static str) {
        match self {
            Self::Closing => (CloseCode::Done, "it is shutting down"),
            Self::Banned => (CloseCode::Banned, "it has banned this node"),
            Self::Full => (CloseCode::Full, "all its connections are taken"),
            Self::Duplicate => (
                CloseCode::Duplicate,
                "it keeps the other connection between the two nodes",
            ),
        }
    }
}

impl Table {
    pub(crate) fn new(
        me: NodeId,
        max_connections: usize,
        max_bans: usize,
        simultaneous: Duration,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            me,
            max_connections,
            simultaneous,
            links: HashMap::new(),
            dials: HashMap::new(),
            bans: Bans {
                nodes: HashSet::new(),
                order: VecDeque::new(),
                limit: max_bans,
                expelled: BTreeSet::new(),
            },
            events: Some(events),
        }
    }

    /// The open connection to a node.
    pub(crate) fn link(&self, node: &NodeId) -> Option<&Link> {
        self.links.get(node).filter(|link| link.is_open())
    }

    /// All open connections.
    pub(crate) fn open_links(&self) -> impl Iterator<Item = (&NodeId, &Link)> {
        self.links.iter().filter(|(_, link)| link.is_open())
    }

    /// Finds a place for a connection that `dialled` (or not) to or from `node`, and puts there what `start` makes of the
    /// channel for events and the task of the connection that it replaces. That one is closed.
    pub(crate) fn admit(
        &mut self,
        node: NodeId,
        dialled: bool,
        start: impl FnOnce(mpsc::Sender<Event>, Option<JoinHandle<()>>) -> Link,
    ) -> Result<(), TurnedAway> {
        let events = self.events.clone().ok_or(TurnedAway::Closing)?;
        if self.bans.contains(&node) {
            return Err(TurnedAway::Banned);
        }
        let taken = self.links.len();
        match self.links.entry(node) {
            Entry::Vacant(_) if taken >= self.max_connections => Err(TurnedAway::Full),
            Entry::Vacant(place) => {
                place.insert(start(events, None));
                Ok(())
            }
            Entry::Occupied(place) => {
                let old = place.get();
                let pair = Pair {
                    old_dialled: old.dialled,
                    new_dialled: dialled,
                    old_age: old.since.elapsed(),
                };
                if old.is_open() && !pair.new_stays(self.me < node, self.simultaneous) {
                    return Err(TurnedAway::Duplicate);
                }
                old.close(
                    CloseCode::Duplicate,
                    "replaced by another connection between the two nodes",
                );
                // The new task waits for the old one, so that the events of one node never mix.
                let old = place.remove();
                self.links.insert(node, start(events, Some(old.task)));
                Ok(())
            }
        }
    }

    /// Forgets a connection, unless another has taken its place.
    pub(crate) fn remove(&mut self, node: &NodeId, connection: usize) {
        if self
            .links
            .get(node)
            .is_some_and(|link| link.connection.stable_id() == connection)
        {
            self.links.remove(node);
        }
    }

    /// Closes all connections, for good, and returns the tasks that have yet to finish.
    pub(crate) fn close(&mut self) -> Vec<JoinHandle<()>> {
        self.events = None;
        self.links
            .drain()
            .map(|(_, link)| {
                link.close(CloseCode::Done, "shutting down");
                link.task
            })
            .collect()
    }
}

/// Two connections between the same two nodes.
#[derive(Debug, Clone, Copy)]
struct Pair {
    old_dialled: bool,
    new_dialled: bool,
    old_age: Duration,
}

impl Pair {
    /// Both ends must come to the same answer, whichever of the two connections each saw first.
    fn new_stays(self, we_are_smaller: bool, simultaneous: Duration) -> bool {
        if self.old_dialled == self.new_dialled || self.old_age > simultaneous {
            // Nobody dials a node to which it has a connection: the other end has lost the old one, or restarted.
            return true;
        }
        // Both dialled at the same time. The one that the smaller node id dialled stays.
        self.new_dialled == we_are_smaller
    }
}

/// Nodes that are not let in; of too many, the newest.
#[derive(Debug)]
pub(crate) struct Bans {
    nodes: HashSet<NodeId>,
    order: VecDeque<NodeId>,
    limit: usize,
    /// Whom an operator has expelled; the caller bounds how many, and none makes room for another.
    expelled: BTreeSet<NodeId>,
}

impl Bans {
    pub(crate) fn contains(&self, node: &NodeId) -> bool {
        self.nodes.contains(node) || self.expelled.contains(node)
    }

    pub(crate) fn expel(&mut self, nodes: BTreeSet<NodeId>) {
        self.expelled = nodes;
    }

    pub(crate) fn insert(&mut self, node: NodeId) {
        if !self.nodes.insert(node) {
            return;
        }
        self.order.push_back(node);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, node: &NodeId) {
        if self.nodes.remove(node) {
            self.order.retain(|other| other != node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULTANEOUS: Duration = Duration::from_secs(5);

    #[test]
    fn both_ends_keep_the_same_of_two_simultaneous_connections() {
        for smaller_dialled_is_first_here in [true, false] {
            for smaller_dialled_is_first_there in [true, false] {
                // What the smaller node keeps, and what the greater one keeps: is it the smaller one's connection?
                let keeps = |we_are_smaller: bool, smaller_dialled_is_first: bool| {
                    let dialled = |by_smaller: bool| by_smaller == we_are_smaller;
                    let pair = Pair {
                        old_dialled: dialled(smaller_dialled_is_first),
                        new_dialled: dialled(!smaller_dialled_is_first),
                        old_age: Duration::from_millis(10),
                    };
                    pair.new_stays(we_are_smaller, SIMULTANEOUS) != smaller_dialled_is_first
                };
                assert!(keeps(true, smaller_dialled_is_first_here));
                assert!(keeps(false, smaller_dialled_is_first_there));
            }
        }
    }

    #[test]
    fn a_node_that_dials_again_has_lost_its_old_connection() {
        let again = Pair {
            old_dialled: false,
            new_dialled: false,
            old_age: Duration::ZERO,
        };
        assert!(again.new_stays(true, SIMULTANEOUS) && again.new_stays(false, SIMULTANEOUS));
        let restarted = Pair {
            old_dialled: true,
            new_dialled: false,
            old_age: SIMULTANEOUS * 2,
        };
        assert!(restarted.new_stays(true, SIMULTANEOUS) && restarted.new_stays(false, SIMULTANEOUS));
    }

    #[test]
    fn the_oldest_ban_makes_room() {
        let node = |byte| NodeId::from_bytes([byte; 32]);
        let mut bans = Bans {
            nodes: HashSet::new(),
            order: VecDeque::new(),
            limit: 2,
            expelled: BTreeSet::new(),
        };
        for byte in [1, 1, 2, 3] {
            bans.insert(node(byte));
        }
        assert_eq!([1, 2, 3].map(|byte| bans.contains(&node(byte))), [false, true, true]);
        bans.remove(&node(2));
        bans.insert(node(4));
        assert_eq!([2, 3, 4].map(|byte| bans.contains(&node(byte))), [false, true, true]);
    }
}
