//! How a reader of the registry gives out what only it has.
//!
//! Told of a new piece all at once, every neighbour would ask the reader for it, and its uplink would carry each piece as
//! often as it has neighbours. So it tells one neighbour, in turn, and the others once somebody has the piece, from whom
//! they then get it (BitTorrent's "super-seeding", BEP 16). A neighbour that takes much longer than others do loses its
//! turn, and gets no other for a while: what a slow one holds alone, all would wait for, and the reader with them, which
//! reads only so far ahead of what others have.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};

use super::Node;
use super::blob::BlobState;
use super::pace::Pace;
use super::uploads::Asked;

/// A neighbour that has lost a turn gets no other for so long, while there are others.
const REST: Duration = Duration::from_secs(5);
/// After somebody else has the piece, its own `Have` gets this long to reach the others before ours tempts them.
const HEARSAY: Duration = Duration::from_millis(300);
/// Turns are looked at no more often than this.
const GRAIN: Duration = Duration::from_millis(10);

/// Pieces that were read from the registry and of which not every neighbour has been told.
#[derive(Debug, Default)]
pub(super) struct Spread {
    pieces: BTreeMap<PieceIndex, Turn>,
    /// How long it takes from telling a neighbour of a piece until it has it.
    pace: Pace,
    /// Until when those who have lost a turn are passed over.
    resting: BTreeMap<NodeId, Duration>,
}

/// Where one piece is on its way out.
#[derive(Debug, Default)]
struct Turn {
    /// Who has been told, latest last.
    told: Vec<NodeId>,
    /// When the latest was, or last waited here for an upload slot.
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

    /// A neighbour has lost its turn.
    fn pass_over(&mut self, now: Duration, node: NodeId) {
        self.pace.exceed();
        self.resting.retain(|_, until| *until > now);
        self.resting.insert(node, now + REST);
    }

    /// When the next turn may be over, or all may be told of a piece.
    fn next(&self) -> Option<Duration> {
        let allowed = self.pace.allowed();
        let times = self
            .pieces
            .values()
            .map(|turn| turn.elsewhere.map_or(turn.at + allowed, |since| since + HEARSAY));
        times.min()
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
        self.spreading.note(digest, now + state.spread.pace.allowed());
        true
    }

    /// A neighbour says that it has got some pieces.
    pub(super) fn hear_of(&mut self, now: Duration, digest: Digest, from: NodeId, ranges: &[(u32, u32)]) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let (Some(pieces), spread) = (&state.pieces, &mut state.spread) else {
            return;
        };
        if spread.is_empty() {
            return;
        }
        for number in ranges
            .iter()
            .flat_map(|(first, count)| *first..first.saturating_add(*count))
        {
            let Some(piece) = pieces.geometry.piece(number) else {
                break;
            };
            let turn = spread.pieces.get_mut(&piece).filter(|turn| turn.elsewhere.is_none());
            let Some(turn) = turn else { continue };
            turn.elsewhere = Some(now);
            if turn.told.last() == Some(&from) {
                let took = now.saturating_sub(turn.at);
                spread.pace.learn(took);
            }
            self.spreading.note(digest, now + HEARSAY);
        }
    }

    /// Goes through the pieces that are on their way out, when a turn may be over or a neighbour has said what it holds.
    pub(super) fn spread(&mut self, now: Duration, digest: Digest) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if !state.others_want() {
            // Whoever comes later hears of everything at once.
            state.spread.pieces.clear();
        }
        if state.spread.is_empty() {
            return;
        }
        let Some(pieces) = &state.pieces else { return };
        let allowed = state.spread.pace.allowed();
        let (mut to_give, mut to_tell) = (Vec::new(), Vec::new());
        for (piece, turn) in &mut state.spread.pieces {
            if pieces.rarity[piece.as_usize()] > 0 {
                if now.saturating_sub(*turn.elsewhere.get_or_insert(now)) >= HEARSAY {
                    to_tell.push(*piece);
                }
                continue;
            }
            turn.elsewhere = None;
            let told = turn.told.last();
            let present = told
                .and_then(|node| state.mates.get(node))
                .is_some_and(|mate| mate.wants && !mate.banned);
            let over = now.saturating_sub(turn.at) >= allowed;
            if over && present && told.and_then(|node| self.uploads.asked(node, &digest, *piece)) == Some(Asked::Waits)
            {
                // It is us who keep it waiting.
                turn.at = now;
            } else if over || !present {
                to_give.push((*piece, told.copied().filter(|_| present)));
            }
        }
        for (piece, slow) in to_give {
            if let Some(slow) = slow {
                state.spread.pass_over(now, slow);
            }
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
        if let Some(next) = state.spread.next() {
            self.spreading.note(digest, next.max(now + GRAIN));
        }
    }
}

/// Tells one more neighbour of a piece: one that is not slow, and of those who has the fewest to pass on.
fn give(state: &mut BlobState, now: Duration, piece: PieceIndex, rng: &mut impl rand::Rng) {
    let spread = &state.spread;
    let Some(turn) = spread.pieces.get(&piece) else {
        return;
    };
    let able = state.mates.iter().filter(|(node, mate)| {
        mate.wants && mate.told && !mate.banned && !mate.has(piece) && !turn.told.contains(node)
    });
    let rests = |node| spread.resting.get(node).is_some_and(|until| *until > now);
    let next = able
        .map(|(node, _)| (rests(node), spread.given(node), rng.next_u32(), *node))
        .min();
    let Some(turn) = state.spread.pieces.get_mut(&piece) else {
        return;
    };
    turn.at = now;
    match next {
        Some((.., node)) => {
            turn.told.push(node);
            if let Some(mate) = state.mates.get_mut(&node) {
                mate.news.push(piece);
            }
        }
        // Everybody has had a turn: from the beginning.
        None => turn.told.clear(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Config, Identity, Input, Output};
    use piece::{Bitfield, Blob};
    use wire::control::{Kind, Lease, Repository, Role, Source, Swarm};
    use wire::exchange::Message;

    const MATES: u8 = 4;
    const NODE: fn(u8) -> NodeId = |n| NodeId::from_bytes([n; 32]);
    const BLOB: Blob = Blob {
        digest: Digest::from_bytes([9; 32]),
        size: 64 << 20,
    };

    /// A seed with the lease of a blob that all its neighbours want.
    fn reader() -> Node {
        let (node, role, zone) = (NODE(200), Role::Seed, None);
        let mut reader = Node::new(Identity { node, role, zone }, Config::seed(), 1);
        let repository = Repository {
            registry: "r".into(),
            name: "m".into(),
        };
        let kind = Kind::Blob;
        let lease = Lease {
            epoch: 1,
            source: Source { repository, kind },
            resume: None,
        };
        let swarm = Swarm {
            size: Some(BLOB.size),
            lease: Some(lease),
            ..Swarm::default()
        };
        let digest = BLOB.digest;
        let bits = Bitfield::empty(&BLOB.geometry());
        let opened = Input::Opened {
            blob: BLOB,
            bits: bits.clone(),
            media_type: None,
        };
        let connected = (0..MATES).map(|n| Input::Connected { node: NODE(n) });
        let holding = (0..MATES).map(|n| Input::Message {
            from: NODE(n),
            message: Message::Holding {
                blob: BLOB,
                bits: Some(bits.as_bytes().to_vec()),
                wants: true,
                media_type: None,
                spare: false,
                zone: None,
                imports: false,
            },
        });
        let told = Input::Told {
            scheduler: NODE(201),
            digest,
            swarm,
        };
        let inputs = connected.chain([told, opened]).chain(holding);
        inputs.for_each(|input| reader.handle(Duration::ZERO, input, &mut Vec::new()));
        reader
    }

    /// Who is told of a piece.
    fn told(reader: &mut Node, now: Duration, input: Input, piece: u32) -> Vec<NodeId> {
        let mut out = Vec::new();
        reader.handle(now, input, &mut out);
        let told = out.into_iter().filter_map(|output| {
            let Output::Send { to, message } = output else {
                return None;
            };
            let Message::Have { ranges, .. } = message else {
                return None;
            };
            let mut ranges = ranges.into_iter();
            ranges
                .any(|(first, count)| (first..first + count).contains(&piece))
                .then_some(to)
        });
        told.collect()
    }

    fn settled(number: u32) -> Input {
        Input::Settled {
            digest: BLOB.digest,
            piece: BLOB.geometry().piece(number).unwrap(),
        }
    }

    fn have(from: NodeId, piece: u32) -> Input {
        let (digest, ranges, load) = (BLOB.digest, vec![(piece, 1)], 0);
        let message = Message::Have { digest, ranges, load };
        Input::Message { from, message }
    }

    #[test]
    fn one_neighbour_is_told_and_the_next_when_it_takes_too_long() {
        let mut reader = reader();
        let mut now = Duration::from_secs(1);
        // All but one pass on what they are told of within 50 ms.
        let slow = told(&mut reader, now, settled(0), 0)[0];
        let mut followers = Vec::new();
        for piece in 1..10 {
            let [node] = told(&mut reader, now, settled(piece), piece)[..] else {
                panic!("one neighbour is told of piece {piece}")
            };
            assert_ne!(node, slow, "it has one to pass on already");
            now += Duration::from_millis(50);
            followers.extend(told(&mut reader, now, have(node, piece), 0));
            // Not together with what was said just now.
            now += Duration::from_millis(20);
        }
        assert!(!followers.is_empty(), "another is told of piece 0 as well");
        assert!(!followers.contains(&slow));
        for piece in 10..14 {
            let told = told(&mut reader, now, settled(piece), piece);
            assert!(!told.contains(&slow), "it rests: {told:?}");
        }
    }
}
