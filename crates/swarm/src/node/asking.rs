//! What to ask of whom: filling idle request slots, and the end game.

use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};
use rand::Rng as _;
use wire::control::Role;

use super::blob::Pieces;
use super::event::{FetchId, Output};
use super::openings::{Rank, Room, Slot};
use super::origin::Origin;
use super::picker::{self, Choice};
use super::{Config, Node};

/// Late requests in a row after which a neighbour gets one request at a time.
const LATE_LIMIT: u32 = 2;

/// Requests to one neighbour where there are enough of them for all: spread over many, they wait less at each.
const FEW: usize = 2;

/// Whether those who ask to be spared are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spared {
    Yes,
    No,
}

/// What came of choosing a piece for one neighbour.
enum Pick {
    Piece(PieceIndex),
    /// Nothing, until more room is left among all requests.
    NoRoom(Room),
    /// Nothing, until the neighbour has less to do.
    NoSlot(Slot),
    /// Nothing, unless time passes.
    NotBefore(Duration),
    /// Nothing, until something about the blob changes.
    Nothing,
}

impl Node {
    /// Something about a blob has changed: it may be able to ask for more, or to read more.
    pub(super) fn touch(&mut self, digest: Digest) {
        self.touched.insert(digest);
    }

    /// Uses every request slot that can be used: blobs that clients wait for first, neighbours with the least to do first.
    pub(super) fn fill_requests(&mut self, now: Duration, out: &mut Vec<Output>) {
        while let Some(digest) = self.openings.take_due(now) {
            self.touch(digest);
        }
        for digest in &self.touched {
            for can_wait in [false, true] {
                if self.hungry.contains(&(can_wait, *digest)) {
                    self.openings.changed(Rank::new(can_wait, *digest, &self.me.node));
                }
            }
        }
        while let Some(rank) = self.next_opening() {
            if !self.hungry.contains(&(rank.can_wait, rank.digest)) {
                continue;
            }
            self.ask_mates(now, rank, Spared::Yes, out);
            if self.is_stuck(&rank.digest) {
                // Whoever has the rest is out of reach, or has been left alone for a while: better from the reader than not.
                self.ask_mates(now, rank, Spared::No, out);
            }
        }
    }

    /// Whether nothing of a blob is under way though there is room for it.
    fn is_stuck(&self, digest: &Digest) -> bool {
        let pieces = self.blobs.get(digest).and_then(|state| state.pieces.as_ref());
        let idle = pieces.filter(|pieces| pieces.in_flight.is_empty());
        idle.is_some_and(|pieces| {
            let (len, of_reader) = (pieces.geometry.piece_len(), false);
            self.requests.has(Room { len, of_reader }, &self.config)
        })
    }

    fn next_opening(&mut self) -> Option<Rank> {
        let (requests, links, config) = (&self.requests, &self.links, &self.config);
        self.openings.take(
            |room| requests.has(room, config),
            |node, slot| {
                links
                    .get(node)
                    .is_some_and(|link| link.in_flight < window(link.late, slot, config))
            },
        )
    }

    /// Asks those who hold some of a blob for as much as may be under way.
    fn ask_mates(&mut self, now: Duration, rank: Rank, spared: Spared, out: &mut Vec<Output>) {
        let digest = rank.digest;
        let Some(state) = self.blobs.get(&digest) else { return };
        let Some(pieces) = &state.pieces else { return };
        if pieces.have.is_full() || state.discarding {
            return;
        }
        let is_reading = state.origin.as_ref().is_some_and(Origin::is_busy);
        if is_reading && self.me.role == Role::Seed {
            // What only the registry has comes first: what others hold would take a share of the downlink from it.
            return;
        }
        let len = pieces.geometry.piece_len();
        let rooms = [false, true].map(|of_reader| Room { len, of_reader });
        if rooms.iter().all(|room| !self.requests.has(*room, &self.config)) {
            // As it is most of the time while pieces come in.
            rooms.into_iter().for_each(|room| self.openings.await_room(room, rank));
            return;
        }
        let mut mates: Vec<(usize, u32, NodeId)> = Vec::new();
        for (node, mate) in state
            .mates
            .iter()
            .filter(|(_, mate)| !mate.banned && mate.field.is_some())
        {
            let room = Room {
                len,
                of_reader: mate.spare,
            };
            if mate.not_before > now {
                self.openings.await_time(digest, mate.not_before);
            } else if !self.requests.has(room, &self.config) {
                self.openings.await_room(room, rank);
            } else if let Some(link) = self.links.get(node) {
                mates.push((link.load(now), self.rng.next_u32(), *node));
            }
        }
        mates.sort_unstable();
        // One of each in turn, so that what is asked for is spread over all of them.
        while !mates.is_empty() {
            mates.retain(|(_, _, node)| self.ask_one(now, rank, *node, spared, out));
        }
    }

    /// Asks one neighbour for one more piece, if it has room and a piece that we want.
    fn ask_one(&mut self, now: Duration, rank: Rank, node: NodeId, spared: Spared, out: &mut Vec<Output>) -> bool {
        let digest = rank.digest;
        match self.pick(now, &digest, node, spared) {
            Pick::Piece(piece) => {
                let missing = self.missing(&digest);
                self.leave_late_queues(digest, piece, out);
                self.request(now, digest, piece, node, out);
                if missing > 0 && self.missing(&digest) == 0 {
                    // The end game begins, for those too that had nothing to give a moment ago.
                    self.openings.changed(rank);
                }
                return true;
            }
            Pick::NoRoom(room) => self.openings.await_room(room, rank),
            Pick::NoSlot(slot) => self.openings.await_slot(node, slot, rank),
            Pick::NotBefore(time) => self.openings.await_time(digest, time),
            Pick::Nothing => {}
        }
        false
    }

    /// Pieces of a blob that are neither here nor asked of anybody.
    fn missing(&self, digest: &Digest) -> u32 {
        let pieces = self.blobs.get(digest).and_then(|state| state.pieces.as_ref());
        pieces.map_or(0, Pieces::missing)
    }

    fn pick(&mut self, now: Duration, digest: &Digest, node: NodeId, spared: Spared) -> Pick {
        let (Some(state), Some(link)) = (self.blobs.get(digest), self.links.get(&node)) else {
            return Pick::Nothing;
        };
        let (Some(pieces), Some(mate)) = (&state.pieces, state.mates.get(&node)) else {
            return Pick::Nothing;
        };
        let room = Room {
            len: pieces.geometry.piece_len(),
            of_reader: mate.spare,
        };
        if !self.requests.has(room, &self.config) {
            return Pick::NoRoom(room);
        }
        let slot = if mate.far || mate.spare || state.mates.len() < self.config.window_pieces {
            Slot::Any
        } else {
            Slot::Few
        };
        if link.in_flight >= window(link.late, slot, &self.config) {
            return Pick::NoSlot(slot);
        }
        let requests = &self.requests;
        let asked = |piece| pieces.in_flight.get(&piece).map_or(&[][..], Vec::as_slice);
        let elsewhere = |piece| {
            let mut asked = asked(piece).iter().filter_map(|id| requests.by_id.get(id));
            asked.all(|request| request.from != node)
        };
        let cursor = state.wanted.as_ref().and_then(|wanted| wanted.cursor);
        // The first bytes that a client waits for share this neighbour's link with nothing else of the blob.
        if pieces.have.is_empty() && cursor.is_some_and(|cursor| !elsewhere(cursor)) {
            return Pick::Nothing;
        }
        let border = state.border(digest, &self.me, mate);
        let choice = Choice {
            pieces,
            node,
            mate,
            cursor,
            reading: &|piece| state.origin.as_ref().is_some_and(|origin| origin.is_reading(piece)),
            late: &|piece| {
                let asked = asked(piece);
                asked.len() < 3 && asked.iter().all(|id| requests.is_late(id)) && elsewhere(piece)
            },
            spared: &|piece| {
                spared == Spared::Yes && mate.spare && state.is_common(piece, mate.far)
                    || border.as_ref().is_some_and(|border| !border.admits(now, piece))
            },
        };
        if let Some(piece) = picker::pick(&choice, &mut self.rng) {
            return Pick::Piece(piece);
        }
        if pieces.missing() > 0 {
            let next = border.and_then(|border| border.next(now, mate));
            return next.map_or(Pick::Nothing, Pick::NotBefore);
        }
        if link.in_flight > 0 {
            return Pick::NoSlot(Slot::Idle);
        }
        let typical = pieces.piece_time.unwrap_or(self.config.patience);
        // When all requests for a piece have taken as long as one usually does.
        let old = |piece| {
            let asked = asked(piece).iter().filter_map(|id| requests.by_id.get(id));
            asked.map(|request| request.since + typical).max()
        };
        let able = |piece| {
            elsewhere(piece)
                && old(piece).is_none_or(|old| old <= now)
                && border.as_ref().is_none_or(|border| border.admits_again(piece))
        };
        picker::duplicate(&choice, &able, &mut self.rng).map_or_else(
            || {
                let times = pieces.in_flight.keys().filter_map(|piece| old(*piece));
                let next = times.filter(|old| *old > now).min();
                next.map_or(Pick::Nothing, Pick::NotBefore)
            },
            Pick::Piece,
        )
    }

    /// A piece is to be asked of somebody else: late requests for it that have not begun are let go, as nothing of them is lost.
    fn leave_late_queues(&mut self, digest: Digest, piece: PieceIndex, out: &mut Vec<Output>) {
        let pieces = self.blobs.get(&digest).and_then(|state| state.pieces.as_ref());
        let asked = pieces
            .and_then(|pieces| pieces.in_flight.get(&piece))
            .into_iter()
            .flatten();
        let queued = asked.filter(|id| {
            self.requests
                .by_id
                .get(id)
                .is_some_and(|request| request.late && !request.started)
        });
        let queued: Vec<FetchId> = queued.copied().collect();
        self.cancel(&queued, out);
    }
}

/// Requests under way to one neighbour at most, for such a slot to be free.
fn window(late: u32, slot: Slot, config: &Config) -> usize {
    let usual = config.in_flight_per_neighbour;
    match slot {
        Slot::Idle => 1,
        Slot::Any | Slot::Few if late >= LATE_LIMIT => 1,
        Slot::Any => usual,
        Slot::Few => usual.min(FEW),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Config, Identity, Input, Outcome};
    use piece::{Bitfield, Blob};
    use rand::RngExt as _;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;
    use wire::control::{Kind, Repository, Source};
    use wire::exchange::{Message, Refusal};

    const MATES: u8 = 6;

    fn mate(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn blob(number: u8) -> Blob {
        // Two lengths of pieces, so that room for one of them may be none for the other.
        let size = if number.is_multiple_of(2) { 2 << 20 } else { 1 << 30 };
        Blob {
            digest: Digest::from_bytes([number; 32]),
            size,
        }
    }

    fn holding(blob: Blob, bits: Option<Vec<u8>>, spare: bool) -> Message {
        Message::Holding {
            blob,
            bits,
            wants: true,
            media_type: None,
            spare,
            zone: None,
            imports: false,
        }
    }

    fn have(blob: Blob, piece: u32, load: u16) -> Message {
        Message::Have {
            digest: blob.digest,
            ranges: vec![(piece, 1)],
            load,
        }
    }

    /// A node that wants this many blobs, and whose neighbours hold none of them yet.
    fn node(blobs: u8, config: Config) -> Node {
        let me = Identity {
            node: mate(255),
            role: Role::Peer,
            zone: None,
        };
        let mut node = Node::new(me, config, 1);
        let mut out = Vec::new();
        (0..MATES).for_each(|n| node.handle(Duration::ZERO, Input::Connected { node: mate(n) }, &mut out));
        for blob in (0..blobs).map(blob) {
            let repository = Repository {
                registry: "r".into(),
                name: "m".into(),
            };
            let want = Input::Want {
                digest: blob.digest,
                size: Some(blob.size),
                source: Source {
                    repository,
                    kind: Kind::Blob,
                },
                urgent: true,
            };
            let bits = Bitfield::empty(&blob.geometry());
            let opened = Input::Opened {
                blob,
                bits: bits.clone(),
                media_type: None,
            };
            node.handle(Duration::ZERO, want, &mut out);
            node.handle(Duration::ZERO, opened, &mut out);
            for from in (0..MATES).map(mate) {
                let message = holding(blob, Some(bits.as_bytes().to_vec()), false);
                node.handle(Duration::ZERO, Input::Message { from, message }, &mut out);
            }
        }
        node
    }

    #[test]
    fn an_input_about_one_blob_visits_no_other() {
        let mut node = node(100, Config::default());
        let mut out = Vec::new();
        let now = Duration::from_millis(1);
        node.openings.visits = 0;
        let (from, message) = (mate(1), have(blob(7), 0, 0));
        node.handle(now, Input::Message { from, message }, &mut out);
        assert_eq!(node.openings.visits, 1);
        let Some(Output::Fetch { id, .. }) = out.pop() else {
            panic!("the piece is asked for: {out:?}")
        };
        let outcome = Outcome::Stored;
        node.handle(now, Input::Fetched { id, outcome }, &mut out);
        assert_eq!(node.openings.visits, 2);
    }

    /// What may happen to one blob or one request, at random.
    fn any_input(rng: &mut ChaCha8Rng, asked: &mut Vec<FetchId>, blobs: u8) -> Input {
        let blob = blob(rng.random_range(0..blobs));
        let from = mate(rng.random_range(0..MATES));
        let piece = rng.random_range(0..blob.geometry().count());
        match rng.random_range(0..20u8) {
            0 => Input::Message {
                from,
                message: holding(blob, None, rng.random()),
            },
            1..6 => Input::Message {
                from,
                message: have(blob, piece, rng.random_range(0..4)),
            },
            6 => Input::Cursor {
                digest: blob.digest,
                piece: rng.random::<bool>().then(|| blob.geometry().piece(piece)).flatten(),
            },
            7 => Input::Tick,
            _ if asked.is_empty() => Input::Tick,
            kind => Input::Fetched {
                id: asked.swap_remove(rng.random_range(0..asked.len())),
                outcome: match kind {
                    8 => Outcome::Lost,
                    9 => Outcome::Refused(Refusal::Busy),
                    10 => Outcome::Refused(Refusal::NotHere),
                    11 => Outcome::Unvouched,
                    _ => Outcome::Stored,
                },
            },
        }
    }

    #[test]
    fn going_through_every_blob_finds_nothing_that_was_left_out() {
        for seed in 0..60 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let config = Config {
                in_flight_bytes: [3 << 20, 64 << 20][rng.random_range(0..2)],
                window_pieces: rng.random_range(2..10),
                in_flight_per_neighbour: rng.random_range(1..5),
                ..Config::default()
            };
            let blobs = 12;
            let mut node = node(blobs, config);
            let (mut now, mut asked, mut out) = (Duration::ZERO, Vec::new(), Vec::new());
            for step in 0..1500 {
                now += Duration::from_millis(rng.random_range(0..20));
                let input = any_input(&mut rng, &mut asked, blobs);
                let shown = format!("{input:?}");
                node.handle(now, input, &mut out);
                asked.extend(out.drain(..).filter_map(|output| {
                    if let Output::Fetch { id, .. } = output {
                        Some(id)
                    } else {
                        None
                    }
                }));
                // Not after every input: a look at everything would hide what is forgotten from one input to the next.
                if rng.random_range(0..8u8) > 0 {
                    continue;
                }
                (0..blobs).for_each(|n| node.touch(blob(n).digest));
                node.fill_requests(now, &mut out);
                node.touched.clear();
                assert_eq!(out, [], "seed {seed}, step {step}, after {shown}");
            }
        }
    }
}
