//! Which blobs might have something to ask for.
//!
//! A node may want hundreds of blobs of hundreds of neighbours, and an input changes what can be asked about one of them.
//! So each blob is gone through when something about it has changed, and otherwise only if it has said what it waits for:
//! room among all that is under way, or a neighbour with less to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Digest, NodeId};

use super::agenda::Agenda;

/// The order in which a node goes through blobs: those that a client waits for first, and then an order of its own. If all
/// nodes had one order, all would want the same few pieces at a time, and have little to give one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether no client waits.
    pub(super) can_wait: bool,
    place: u64,
    pub(super) digest: Digest,
}

impl Rank {
    pub(super) fn new(can_wait: bool, digest: Digest, me: &NodeId) -> Self {
        let start = |bytes: &[u8; 32]| {
            bytes
                .iter()
                .take(8)
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        Self {
            can_wait,
            place: start(digest.as_bytes()) ^ start(me.as_bytes()),
            digest,
        }
    }
}

/// What part of the room among all that is under way is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    /// For a piece of this length.
    pub(super) len: u64,
    /// Whether it is to come from a reader of the registry, who may be asked for more than others.
    pub(super) of_reader: bool,
}

/// What a neighbour must have done before a blob can ask it for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// One of its requests.
    Any,
    /// One, and no more than it gets where there are many neighbours.
    Few,
    /// All of them: the end game is for the idle.
    Idle,
}

impl Slot {
    const ALL: [Self; 3] = [Self::Any, Self::Few, Self::Idle];
}

/// Blobs to go through, and what the others wait for. A blob that is no longer wanted is found out when its turn comes.
#[derive(Debug, Default)]
pub(super) struct Openings {
    changed: BTreeSet<Rank>,
    for_room: BTreeMap<Room, BTreeSet<Rank>>,
    for_slot: BTreeMap<(NodeId, Slot), BTreeSet<Rank>>,
    /// Neighbours that have answered since they were last looked at.
    freed: BTreeSet<(NodeId, Slot)>,
    /// Blobs that may have more to ask for when time has passed.
    later: Agenda,
    #[cfg(test)]
    pub(super) visits: usize,
}

impl Openings {
    /// Something about a blob is not as it was.
    pub(super) fn changed(&mut self, rank: Rank) {
        self.changed.insert(rank);
    }

    /// A blob would ask for more if less was under way.
    pub(super) fn await_room(&mut self, room: Room, rank: Rank) {
        self.for_room.entry(room).or_default().insert(rank);
    }

    /// A blob would ask a neighbour for more if it had less to do.
    pub(super) fn await_slot(&mut self, node: NodeId, slot: Slot, rank: Rank) {
        self.for_slot.entry((node, slot)).or_default().insert(rank);
    }

    /// A blob may have more to ask for at this time.
    pub(super) fn await_time(&mut self, digest: Digest, time: Duration) {
        self.later.note(digest, time);
    }

    /// A neighbour has one request less to serve.
    pub(super) fn freed(&mut self, node: NodeId) {
        self.freed.extend(Slot::ALL.map(|slot| (node, slot)));
    }

    /// A neighbour is gone: what waited for it has changed.
    pub(super) fn gone(&mut self, node: NodeId) {
        for slot in Slot::ALL {
            self.freed.remove(&(node, slot));
            self.for_slot.remove(&(node, slot));
        }
    }

    /// A blob is gone.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.later.remove(digest);
    }

    /// A blob whose time has come.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Digest> {
        self.later.take_due(now)
    }

    /// Takes the first blob that can go on, given what has room.
    pub(super) fn take(
        &mut self,
        has_room: impl Fn(Room) -> bool,
        has_slot: impl Fn(&NodeId, Slot) -> bool,
    ) -> Option<Rank> {
        let roomy = self.for_room.iter().filter(|(room, _)| has_room(**room));
        let first_with_room = roomy.filter_map(|(room, ranks)| Some((*ranks.first()?, *room))).min();
        let for_slot = &self.for_slot;
        self.freed
            .retain(|(node, slot)| for_slot.contains_key(&(*node, *slot)) && has_slot(node, *slot));
        let freed = self
            .freed
            .iter()
            .filter_map(|key| Some((*for_slot.get(key)?.first()?, *key)));
        let first_with_slot = freed.min();
        let rank = [
            self.changed.first().copied(),
            first_with_room.map(|(rank, _)| rank),
            first_with_slot.map(|(rank, _)| rank),
        ]
        .into_iter()
        .flatten()
        .min()?;
        self.changed.remove(&rank);
        if let Some((_, room)) = first_with_room.filter(|(first, _)| *first == rank) {
            remove(&mut self.for_room, &room, &rank);
        }
        if let Some((_, key)) = first_with_slot.filter(|(first, _)| *first == rank) {
            remove(&mut self.for_slot, &key, &rank);
        }
        #[cfg(test)]
        {
            self.visits += 1;
        }
        Some(rank)
    }
}

fn remove<K: Ord>(waiting: &mut BTreeMap<K, BTreeSet<Rank>>, key: &K, rank: &Rank) {
    if let Some(ranks) = waiting.get_mut(key) {
        ranks.remove(rank);
        if ranks.is_empty() {
            waiting.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([7; 32]);
    const SMALL: Room = Room {
        len: 1,
        of_reader: false,
    };
    const LARGE: Room = Room {
        len: 2,
        of_reader: false,
    };

    fn rank(number: u8) -> Rank {
        Rank::new(false, Digest::from_bytes([number; 32]), &NodeId::from_bytes([0; 32]))
    }

    #[test]
    fn each_node_has_an_order_of_its_own_and_clients_come_first() {
        let order = |me: u8| {
            let ranks = [(true, 0), (false, 1), (false, 2), (false, 3)];
            let rank = |(can_wait, number)| {
                Rank::new(
                    can_wait,
                    Digest::from_bytes([number; 32]),
                    &NodeId::from_bytes([me; 32]),
                )
            };
            let mut ranks = ranks.map(rank);
            ranks.sort_unstable();
            ranks.map(|rank| rank.digest.as_bytes()[0])
        };
        assert_eq!((order(0), order(2)), ([1, 2, 3, 0], [2, 3, 1, 0]));
    }

    #[test]
    fn only_what_can_go_on_comes_and_in_order() {
        let mut openings = Openings::default();
        openings.changed(rank(3));
        openings.await_room(LARGE, rank(1));
        openings.await_room(SMALL, rank(2));
        openings.await_slot(NODE, Slot::Any, rank(0));
        let small_only = |room: Room| room == SMALL;
        assert_eq!(openings.take(small_only, |_, _| true), Some(rank(2)));
        assert_eq!(openings.take(small_only, |_, _| true), Some(rank(3)));
        assert_eq!(openings.take(small_only, |_, _| true), None, "nobody has answered");
        openings.freed(NODE);
        assert_eq!(openings.take(|_| true, |_, _| true), Some(rank(0)));
        assert_eq!(openings.take(|_| true, |_, _| true), Some(rank(1)));
        assert_eq!(openings.take(|_| true, |_, _| true), None);
    }

    #[test]
    fn the_end_game_waits_until_the_neighbour_is_idle() {
        let mut openings = Openings::default();
        openings.await_slot(NODE, Slot::Idle, rank(0));
        openings.freed(NODE);
        assert_eq!(openings.take(|_| true, |_, slot| slot == Slot::Any), None);
        openings.freed(NODE);
        assert_eq!(openings.take(|_| true, |_, _| true), Some(rank(0)));
    }

    #[test]
    fn a_neighbour_that_is_gone_holds_nothing_up() {
        let mut openings = Openings::default();
        openings.await_slot(NODE, Slot::Any, rank(0));
        openings.freed(NODE);
        openings.gone(NODE);
        assert_eq!(openings.take(|_| true, |_, _| true), None);
    }
}
