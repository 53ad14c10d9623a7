//! How a reader of the registry gives out what only it has.
//!
//! Told of a new piece all at once, every neighbour would ask the reader for it, and its uplink would carry each piece as
//! often as it has neighbours. So it tells one neighbour, in turn, and the others once somebody has the piece, from whom
//! they then get it (BitTorrent's "super-seeding", BEP 16). A neighbour that does nothing with a piece loses its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};

use super::Node;
use super::blob::BlobState;

/// A neighbour that has been told and does not ask is passed over after this.
const UNASKED: Duration = Duration::from_secs(1);
/// One that has asked but is so slow that the others would wait for it: they need another source.
const UNSEEN: Duration = Duration::from_secs(10);
/// After somebody else has the piece, its own `Have` gets this long to reach the others before ours tempts them.
const HEARSAY: Duration = Duration::from_millis(300);

/// Pieces that were read from the registry and of which not every neighbour has been told.
#[derive(Debug, Default)]
pub(super) struct Spread {
    pieces: BTreeMap<PieceIndex, Turn>,
}

/// Where one piece is on its way out.
#[derive(Debug, Default)]
struct Turn {
    /// Who has been told, latest last.
    told: Vec<NodeId>,
    /// When the latest was.
    at: Duration,
    /// Since when somebody else has it.
    elsewhere: Option<Duration>,
}

impl Spread {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Pieces that this neighbour is not to hear of yet.
    pub(super) fn hidden_from<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = PieceIndex> + 'a {
        let hidden = self.pieces.iter().filter(move |(_, turn)| !turn.told.contains(node));
        hidden.map(|(piece, _)| *piece)
    }

    /// How many pieces this neighbour has been given to pass on that nobody has got yet.
    fn given(&self, node: &NodeId) -> usize {
        let given = |turn: &&Turn| turn.elsewhere.is_none() && turn.told.last() == Some(node);
        self.pieces.values().filter(given).count()
    }
}

impl Node {
    /// A piece has come from the registry that nobody else is known to have. False if nobody waits for it.
    pub(super) fn begin_spreading(&mut self, now: Duration, digest: Digest, piece: PieceIndex) -> bool {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return false;
        };
        let rare = state
            .pieces
            .as_ref()
            .is_some_and(|pieces| pieces.rarity[piece.as_usize()] == 0);
        if !rare || !state.others_want() {
            return false;
        }
        state.spread.pieces.insert(piece, Turn::default());
        give(state, now, piece, &mut self.rng);
        self.spreading.insert(digest);
        true
    }

    /// Goes through the pieces that are on their way out; called now and then, and when a neighbour has said something new.
    pub(super) fn spread(&mut self, now: Duration, digest: Digest) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            self.spreading.remove(&digest);
            return;
        };
        if !state.others_want() {
            // Whoever comes later hears of everything at once.
            state.spread.pieces.clear();
        }
        let Some(pieces) = &state.pieces else { return };
        let mut to_give = Vec::new();
        let mut to_tell = Vec::new();
        for (piece, turn) in &mut state.spread.pieces {
            if pieces.rarity[piece.as_usize()] > 0 {
                if now.saturating_sub(*turn.elsewhere.get_or_insert(now)) >= HEARSAY {
                    to_tell.push(*piece);
                }
                continue;
            }
            turn.elsewhere = None;
            let waited = now.saturating_sub(turn.at);
            let busy = turn.told.last().is_some_and(|node| {
                let present = state.mates.get(node).is_some_and(|mate| mate.wants && !mate.banned);
                let asked = self.uploads.has_asked(node, &digest, *piece);
                present && (waited < UNASKED || asked && waited < UNSEEN)
            });
            if !busy {
                to_give.push(*piece);
            }
        }
        for piece in to_give {
            give(state, now, piece, &mut self.rng);
        }
        for piece in &to_tell {
            let Some(turn) = state.spread.pieces.remove(piece) else {
                continue;
            };
            let others = state
                .mates
                .iter_mut()
                .filter(|(node, mate)| mate.wants && mate.told && !mate.has(*piece) && !turn.told.contains(node));
            others.for_each(|(_, mate)| mate.news.push(*piece));
        }
        self.news.note(digest, now);
        if state.spread.is_empty() {
            self.spreading.remove(&digest);
        }
    }
}

/// Tells one more neighbour of a piece: who has the fewest to pass on.
fn give(state: &mut BlobState, now: Duration, piece: PieceIndex, rng: &mut impl rand::Rng) {
    let Some(turn) = state.spread.pieces.get(&piece) else {
        return;
    };
    let able = state.mates.iter().filter(|(node, mate)| {
        mate.wants && mate.told && !mate.banned && !mate.has(piece) && !turn.told.contains(node)
    });
    let next = able
        .map(|(node, _)| (state.spread.given(node), rng.next_u32(), *node))
        .min();
    let Some(turn) = state.spread.pieces.get_mut(&piece) else {
        return;
    };
    match next {
        Some((_, _, node)) => {
            turn.told.push(node);
            turn.at = now;
            if let Some(mate) = state.mates.get_mut(&node) {
                mate.news.push(piece);
            }
        }
        // Everybody has had a turn: from the beginning.
        None => turn.told.clear(),
    }
}
