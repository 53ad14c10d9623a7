//! Which node of a zone fetches a piece from another zone.
//!
//! Links between zones are few and thin, so each piece should cross them about once per zone. Who holds a piece in the own
//! zone is therefore always asked before anybody outside, and of what only nodes outside hold each importer fetches its
//! share: importers are the nodes that the scheduler gave neighbours in other zones, and for each piece they are ranked by
//! rendezvous hashing. The first may fetch it at once, the next when the piece has taken too long to come, and so on: a dead
//! or slow importer delays its share, and holds nobody up.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};

use super::Identity;
use super::blob::{BlobState, Mate};
use super::pace::Pace;
use crate::rendezvous::{rank, rank_piece, rank_zone};

/// What a node knows of a blob's pieces outside its zone.
#[derive(Debug, Default)]
pub(super) struct Importing {
    /// Whether this node is one of its zone's importers.
    pub(super) active: bool,
    /// Missing pieces that neighbours hold in other zones and none in this, and since when.
    offered: BTreeMap<PieceIndex, Offer>,
    /// How long a piece takes from there into this zone.
    pace: Pace,
}

/// A piece that is to be had in other zones only.
#[derive(Debug, Clone, Copy)]
struct Offer {
    since: Duration,
    /// The zone that had it first.
    zone: u64,
}

/// What may be fetched from one neighbour in another zone.
pub(super) struct Border<'a> {
    state: &'a BlobState,
    me: u64,
    /// The zone's other importers.
    rivals: Vec<u64>,
    /// The neighbour's zone, this one, and all others.
    there: u64,
    zone: u64,
    zones: BTreeMap<u64, Vec<&'a Mate>>,
    /// A reader gives out each piece to one node at a time: whoever is offered one takes it.
    open: bool,
}

impl BlobState {
    /// The limits to asking a neighbour, if it is in another zone.
    pub(super) fn border(&self, digest: &Digest, me: &Identity, mate: &Mate) -> Option<Border<'_>> {
        mate.far.then(|| {
            let rivals = self
                .mates
                .iter()
                .filter(|(_, other)| other.imports && !other.far && !other.banned);
            let mut zones: BTreeMap<u64, Vec<&Mate>> = BTreeMap::new();
            for other in self.mates.values().filter(|other| other.far && !other.banned) {
                zones.entry(other.zone).or_default().push(other);
            }
            Border {
                state: self,
                me: rank(digest, &me.node),
                there: mate.zone,
                zone: me.zone.as_ref().map_or(0, |label| rank_zone(digest, label)),
                zones,
                rivals: rivals.map(|(node, _)| rank(digest, node)).collect(),
                open: mate.spare && mate.field.as_ref().is_some_and(|field| !field.is_full()),
            }
        })
    }

    /// A neighbour has said what it holds, or one is gone: what is on offer elsewhere is looked at afresh.
    pub(super) fn survey(&mut self, now: Duration) {
        if !self.mates.values().any(|mate| mate.far) {
            self.importing.offered.clear();
            return;
        }
        let Some(pieces) = &self.pieces else { return };
        let missing = pieces.geometry.pieces().filter(|piece| !pieces.have.has(*piece));
        let offered: Vec<PieceIndex> = missing
            .filter(|piece| pieces.rarity[piece.as_usize()] > 0 && !self.is_near(*piece))
            .collect();
        let mut old = std::mem::take(&mut self.importing.offered);
        let new = |piece| {
            let holder = self.mates.values().find(|mate| mate.far && mate.has(piece));
            let zone = holder.map_or(0, |mate| mate.zone);
            Offer { since: now, zone }
        };
        let offers = offered
            .into_iter()
            .map(|piece| (piece, old.remove(&piece).unwrap_or_else(|| new(piece))));
        self.importing.offered = offers.collect();
    }

    /// A neighbour has got pieces.
    pub(super) fn offer(&mut self, now: Duration, from: &NodeId, ranges: &[(u32, u32)]) {
        let (Some(pieces), Some(mate)) = (&self.pieces, self.mates.get(from)) else {
            return;
        };
        if !mate.far && self.importing.offered.is_empty() {
            return;
        }
        for number in ranges
            .iter()
            .flat_map(|(first, count)| *first..first.saturating_add(*count))
        {
            let Some(piece) = pieces.geometry.piece(number) else {
                break;
            };
            if !mate.far {
                self.importing.came(now, piece);
            } else if !pieces.have.has(piece) && !self.is_near(piece) {
                let (since, zone) = (now, mate.zone);
                self.importing.offered.entry(piece).or_insert(Offer { since, zone });
            }
        }
    }

    /// Whether somebody in this zone holds a piece.
    fn is_near(&self, piece: PieceIndex) -> bool {
        self.mates
            .values()
            .any(|mate| !mate.far && !mate.banned && mate.has(piece))
    }
}

impl Importing {
    /// A piece has come into this zone.
    pub(super) fn came(&mut self, now: Duration, piece: PieceIndex) {
        if let Some(offer) = self.offered.remove(&piece) {
            self.pace.learn(now.saturating_sub(offer.since));
        }
    }
}

impl Border<'_> {
    /// Whether a piece may be fetched from the other zone now.
    pub(super) fn admits(&self, now: Duration, piece: PieceIndex) -> bool {
        // What is under way already comes up here only if it is late: then from wherever it can be had.
        let late = || {
            self.state
                .pieces
                .as_ref()
                .is_some_and(|pieces| pieces.in_flight.contains_key(&piece))
        };
        if self.state.is_near(piece) {
            return late();
        }
        self.open || self.due(piece).is_none_or(|due| due <= now)
    }

    /// Whether a piece that is under way may be asked of the other zone as well, at the end.
    pub(super) fn admits_again(&self, piece: PieceIndex) -> bool {
        !self.state.is_near(piece)
    }

    /// When the next of the pieces that the neighbour holds may be fetched from there.
    pub(super) fn next(&self, now: Duration, mate: &Mate) -> Option<Duration> {
        let pieces = self.state.pieces.as_ref()?;
        let offered = self.state.importing.offered.keys();
        let open = offered.filter(|piece| mate.has(**piece) && !pieces.in_flight.contains_key(piece));
        open.filter_map(|piece| self.due(*piece)).filter(|due| *due > now).min()
    }

    fn due(&self, piece: PieceIndex) -> Option<Duration> {
        let importing = &self.state.importing;
        let offer = importing.offered.get(&piece)?;
        let mine = rank_piece(self.me, piece);
        let before = self
            .rivals
            .iter()
            .filter(|rival| rank_piece(**rival, piece) > mine)
            .count();
        // Who is no importer comes after all of them.
        let turn = if importing.active {
            before
        } else {
            self.rivals.len() + 1
        };
        Some(offer.since + importing.pace.allowed() * (turn + self.turn_of_zone(piece, offer)) as u32)
    }

    /// Were all zones to fetch a piece from the one that had it first, its link would carry each as often as there are zones.
    /// So the first by rank does, and the others fetch it from whoever has it then.
    fn turn_of_zone(&self, piece: PieceIndex, offer: &Offer) -> usize {
        let holds = |mates: &Vec<&Mate>| mates.iter().any(|mate| mate.has(piece));
        let elsewhere = self
            .zones
            .iter()
            .any(|(zone, mates)| *zone != offer.zone && holds(mates));
        if elsewhere {
            return usize::from(self.there == offer.zone);
        }
        let mine = rank_piece(self.zone, piece);
        let before = |zone: u64| zone != offer.zone && rank_piece(zone, piece) > mine;
        self.zones.keys().filter(|zone| before(**zone)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::blob::Pieces;
    use piece::{Bitfield, Geometry};
    use wire::control::Role;

    const NODE: fn(u8) -> NodeId = |n| NodeId::from_bytes([n; 32]);
    const FAR: u8 = 100;
    const AT: Duration = Duration::from_secs(1);

    /// A blob of 64 pieces, all of which a neighbour in another zone holds, and none a neighbour in this one, which imports.
    fn state() -> BlobState {
        let geometry = Geometry::of(64 * 256 * 1024);
        let mut state = BlobState::new(Some(geometry.size()));
        state.pieces = Some(Pieces::new(geometry, Bitfield::empty(&geometry)));
        state.importing.active = true;
        assert!(state.set_field(NODE(1), Some(vec![0; 8])) && state.set_field(NODE(FAR), None));
        state.mate(NODE(1)).imports = true;
        state.mate(NODE(FAR)).far = true;
        state.mate(NODE(FAR)).zone = rank_zone(&Digest::EMPTY, "there");
        state.survey(AT);
        state
    }

    /// The pieces that a node may fetch from the other zone.
    fn admitted(state: &BlobState, me: u8, now: Duration) -> Vec<u32> {
        let (node, role, zone) = (NODE(me), Role::Peer, Some("here".to_owned()));
        let me = Identity { node, role, zone };
        let border = state.border(&Digest::EMPTY, &me, &state.mates[&NODE(FAR)]).unwrap();
        let pieces = state.pieces.as_ref().unwrap().geometry.pieces();
        pieces
            .filter(|piece| border.admits(now, *piece))
            .map(PieceIndex::get)
            .collect()
    }

    #[test]
    fn importers_share_the_pieces_and_one_that_does_nothing_is_replaced() {
        let mine = admitted(&state(), 0, AT);
        let mut other = state();
        let mate = other.mates.remove(&NODE(1)).unwrap();
        other.mates.insert(NODE(0), mate);
        let theirs = admitted(&other, 1, AT);
        assert!(mine.len() > 16 && theirs.len() > 16, "{mine:?} {theirs:?}");
        let mut all = [mine, theirs].concat();
        all.sort_unstable();
        assert_eq!(all, (0..64).collect::<Vec<_>>(), "each piece is one importer's");
        let late = AT + state().importing.pace.allowed();
        assert_eq!(admitted(&state(), 0, late).len(), 64);
    }

    #[test]
    fn what_is_held_in_the_zone_is_not_fetched_from_another() {
        let mut state = state();
        state.add_pieces(NODE(1), &[(0, 60)]);
        state.offer(AT, &NODE(1), &[(0, 60)]);
        let late = AT + Duration::from_secs(60);
        assert_eq!(admitted(&state, 0, late), [60, 61, 62, 63]);
        state.remove_mate(&NODE(1));
        state.survey(late);
        assert_eq!(admitted(&state, 0, late).len(), 64, "unless who held it is gone");
    }

    #[test]
    fn a_node_that_is_no_importer_comes_last() {
        let mut state = state();
        state.importing.active = false;
        let allowed = state.importing.pace.allowed();
        assert_eq!(admitted(&state, 0, AT + allowed), []);
        assert_eq!(admitted(&state, 0, AT + allowed * 2).len(), 64);
    }

    #[test]
    fn the_zone_that_had_a_piece_first_gives_it_to_one_other() {
        let mut state = state();
        state.mate(NODE(1)).imports = false;
        let third = rank_zone(&Digest::EMPTY, "third");
        assert!(state.set_field(NODE(FAR + 1), Some(vec![0; 8])));
        (state.mate(NODE(FAR + 1)).far, state.mate(NODE(FAR + 1)).zone) = (true, third);
        let first = admitted(&state, 0, AT).len();
        assert!(
            (16..48).contains(&first),
            "about half of them are first for this zone: {first}"
        );
        state.add_pieces(NODE(FAR + 1), &[(0, 64)]);
        assert_eq!(admitted(&state, 0, AT), [], "the rest comes from the third zone");
        assert_eq!(admitted(&state, 0, AT + state.importing.pace.allowed()).len(), 64);
    }
}
