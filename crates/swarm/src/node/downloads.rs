//! Piece requests: filling idle slots, noticing the slow, the end game, and what to make of each outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Blob, Digest, NodeId, PieceIndex};
use rand::Rng as _;
use wire::control::{Accusation, Offence};
use wire::exchange::Refusal;

use super::event::{FetchId, Outcome, Output};
use super::picker::{self, Choice};
use super::window::Window;
use super::{Config, Gain, Node};

/// A neighbour that said `Busy` or was late several times in a row is left alone this long.
const RESPITE: Duration = Duration::from_millis(200);
/// A neighbour that no longer had a piece, or whose midstates we cannot trust yet, is asked for it again after this.
const RETRY: Duration = Duration::from_millis(100);
/// While no piece has come yet, nobody knows how long one takes: this many times the usual patience.
const UNKNOWN: u32 = 8;
/// Late requests in a row after which a neighbour gets one request at a time.
const LATE_LIMIT: u32 = 2;

/// Whether those who ask to be spared are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spared {
    Yes,
    No,
}

/// All requests of ours that are under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    by_id: BTreeMap<FetchId, Request>,
    next_id: u64,
    /// Bytes of all of them: what the buffers must hold.
    bytes: u64,
    /// Bytes of those that fill the window: not the late ones, and not those made of readers.
    timely: u64,
    window: Window,
}

#[derive(Debug)]
struct Request {
    digest: Digest,
    piece: PieceIndex,
    from: NodeId,
    since: Duration,
    len: u64,
    fills_window: bool,
    started: bool,
    late: bool,
    cancelled: bool,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn is_late(&self, id: &FetchId) -> bool {
        self.by_id.get(id).is_none_or(|request| request.late)
    }

    /// Whether one more piece of this length may be asked for. A reader's pieces are never put off: its uplink is what the
    /// whole swarm waits for.
    fn has_room(&self, len: u64, of_reader: bool, config: &Config) -> bool {
        let window = self.window.bytes(len, config.window_pieces);
        let fits = self.bytes + len <= config.in_flight_bytes;
        self.bytes == 0 || (fits && (of_reader || self.timely + len <= window))
    }
}

impl Node {
    /// Uses every request slot that can be used: blobs that clients wait for first, neighbours with the least to do first.
    pub(super) fn fill_requests(&mut self, now: Duration, out: &mut Vec<Output>) {
        let hungry: Vec<Digest> = self.hungry.iter().map(|(_, digest)| *digest).collect();
        for digest in hungry {
            if self.requests.bytes >= self.config.in_flight_bytes {
                return;
            }
            self.ask_mates(now, digest, Spared::Yes, out);
            let idle = self.blobs.get(&digest).and_then(|state| state.pieces.as_ref());
            if idle.is_some_and(|pieces| pieces.in_flight.is_empty()) {
                // Whoever has the rest is out of reach, or has been left alone for a while: better from the reader than not.
                self.ask_mates(now, digest, Spared::No, out);
            }
        }
    }

    /// Asks those who hold some of a blob for as much as may be under way.
    fn ask_mates(&mut self, now: Duration, digest: Digest, spared: Spared, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get(&digest) else { return };
        let Some(pieces) = &state.pieces else { return };
        if pieces.have.is_full() || state.discarding {
            return;
        }
        let mut mates: Vec<(usize, u32, NodeId)> = state
            .mates
            .iter()
            .filter(|(_, mate)| !mate.banned && mate.not_before <= now && mate.field.is_some())
            .filter_map(|(node, _)| Some((self.links.get(node)?.load(now), self.rng.next_u32(), *node)))
            .collect();
        mates.sort_unstable();
        // One of each in turn, so that what is asked for is spread over all of them.
        while !mates.is_empty() {
            mates.retain(|(_, _, node)| self.ask_one(now, digest, *node, spared, out));
        }
    }

    /// Asks one neighbour for one more piece, if it has room and a piece that we want.
    fn ask_one(&mut self, now: Duration, digest: Digest, node: NodeId, spared: Spared, out: &mut Vec<Output>) -> bool {
        let (Some(state), Some(link)) = (self.blobs.get(&digest), self.links.get(&node)) else {
            return false;
        };
        let (Some(blob), Some(pieces), Some(mate)) = (state.blob(digest), &state.pieces, state.mates.get(&node)) else {
            return false;
        };
        let window = if link.late >= LATE_LIMIT {
            1
        } else {
            self.config.in_flight_per_neighbour
        };
        if link.in_flight >= window
            || !self
                .requests
                .has_room(pieces.geometry.piece_len(), mate.spare, &self.config)
        {
            return false;
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
            return false;
        }
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
            spared: &|piece| spared == Spared::Yes && mate.spare && state.is_common(piece),
        };
        let picked = picker::pick(&choice, &mut self.rng).or_else(|| {
            let last_ones = pieces.missing() == 0 && link.in_flight == 0;
            let typical = pieces.piece_time.unwrap_or(self.config.patience);
            let old = |piece| {
                let mut asked = asked(piece).iter().filter_map(|id| requests.by_id.get(id));
                asked.all(|request| now.saturating_sub(request.since) >= typical)
            };
            let able = |piece| elsewhere(piece) && old(piece);
            last_ones
                .then(|| picker::duplicate(&choice, &able, &mut self.rng))
                .flatten()
        });
        let Some(piece) = picked else { return false };
        let (len, fills_window) = (pieces.geometry.len(piece), !mate.spare);
        self.leave_late_queues(digest, piece, out);
        self.request(now, blob, piece, (node, len, fills_window), out);
        true
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

    fn request(
        &mut self,
        now: Duration,
        blob: Blob,
        piece: PieceIndex,
        (node, len, fills_window): (NodeId, u64, bool),
        out: &mut Vec<Output>,
    ) {
        let digest = blob.digest;
        if self.requests.is_empty() {
            self.requests.window.begin(now);
        }
        let id = FetchId(self.requests.next_id);
        self.requests.next_id += 1;
        self.requests.bytes += len;
        if fills_window {
            self.requests.timely += len;
        }
        let request = Request {
            digest,
            piece,
            from: node,
            since: now,
            len,
            fills_window,
            started: false,
            late: false,
            cancelled: false,
        };
        self.requests.by_id.insert(id, request);
        if let Some(pieces) = self.blobs.get_mut(&digest).and_then(|state| state.pieces.as_mut()) {
            pieces.in_flight.entry(piece).or_default().push(id);
        }
        if let Some(link) = self.links.get_mut(&node) {
            link.in_flight += 1;
        }
        out.push(Output::Fetch {
            id,
            from: node,
            blob,
            piece,
        });
    }

    /// The answer to a request has begun.
    pub(super) fn started(&mut self, now: Duration, id: FetchId) {
        let Requests { by_id, window, .. } = &mut self.requests;
        if let Some(request) = by_id.get_mut(&id) {
            request.started = true;
            window.started(now, now.saturating_sub(request.since));
        }
    }

    /// A request has ended.
    pub(super) fn fetched(&mut self, now: Duration, id: FetchId, outcome: Outcome, out: &mut Vec<Output>) {
        let Some(request) = self.take_request(id) else { return };
        let Request {
            digest,
            piece,
            from,
            since,
            ..
        } = request;
        match outcome {
            Outcome::Stored => {
                self.requests.window.stored(now, request.len);
                self.learn_speed(&digest, &from, now.saturating_sub(since));
                self.cancel_others(digest, piece, out);
                self.gained(now, digest, piece, Gain::Neighbour, out);
            }
            Outcome::WrongBytes => self.wrong_bytes(now, digest, piece, from, out),
            Outcome::Refused(Refusal::Busy) => self.respite(&digest, &from, now + RESPITE),
            Outcome::Refused(Refusal::NotHere) => {
                if let Some(state) = self.blobs.get_mut(&digest) {
                    state.lacks(&from, piece);
                }
            }
            Outcome::Unvouched => {
                self.reporter.lonely(digest);
                self.respite(&digest, &from, now + RETRY);
            }
            Outcome::Refused(Refusal::Failed) | Outcome::Lost => {
                if !request.cancelled {
                    self.respite(&digest, &from, now + RESPITE);
                }
            }
            Outcome::StoreFailed => {
                let message = format!("piece {} of {digest} could not be stored on this node", piece.get());
                let failure = wire::control::Failure {
                    status: 507,
                    message,
                    retry_after: None,
                    challenge: None,
                };
                self.fail(digest, failure, out);
            }
            Outcome::Cancelled => {}
        }
    }

    fn respite(&mut self, digest: &Digest, node: &NodeId, until: Duration) {
        if let Some(mate) = self.blobs.get_mut(digest).and_then(|state| state.mates.get_mut(node)) {
            mate.not_before = until;
        }
    }

    fn wrong_bytes(&mut self, now: Duration, digest: Digest, piece: PieceIndex, from: NodeId, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if let Some(mate) = state.mates.get_mut(&from) {
            mate.banned = true;
        }
        if let Some(pieces) = &mut state.pieces {
            pieces.refused.entry(piece).or_default().insert(from);
        }
        self.reporter.accuse(Accusation {
            node: from,
            digest,
            offence: Offence::WrongBytes,
        });
        self.doubt(now, digest, piece, out);
    }

    /// Takes a request out of every book it stands in.
    fn take_request(&mut self, id: FetchId) -> Option<Request> {
        let request = self.requests.by_id.remove(&id)?;
        self.requests.bytes -= request.len;
        if request.fills_window {
            self.requests.timely -= request.len;
        }
        if let Some(link) = self.links.get_mut(&request.from) {
            link.in_flight = link.in_flight.saturating_sub(1);
        }
        if let Some(pieces) = self
            .blobs
            .get_mut(&request.digest)
            .and_then(|state| state.pieces.as_mut())
            && let Some(ids) = pieces.in_flight.get_mut(&request.piece)
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                pieces.in_flight.remove(&request.piece);
            }
        }
        Some(request)
    }

    fn learn_speed(&mut self, digest: &Digest, from: &NodeId, took: Duration) {
        if let Some(link) = self.links.get_mut(from) {
            link.late = 0;
        }
        if let Some(pieces) = self.blobs.get_mut(digest).and_then(|state| state.pieces.as_mut()) {
            // Smoothed as TCP smooths its round-trip time (RFC 6298), with the same weight.
            pieces.piece_time = Some(pieces.piece_time.map_or(took, |old| (old * 7 + took) / 8));
        }
    }

    /// The piece is here: whoever else was asked for it can stop.
    fn cancel_others(&mut self, digest: Digest, piece: PieceIndex, out: &mut Vec<Output>) {
        let pieces = self.blobs.get(&digest).and_then(|state| state.pieces.as_ref());
        let ids = pieces
            .and_then(|pieces| pieces.in_flight.get(&piece))
            .cloned()
            .unwrap_or_default();
        self.cancel(&ids, out);
    }

    /// Nobody waits for the blob any more.
    pub(super) fn cancel_all(&mut self, digest: Digest, out: &mut Vec<Output>) {
        let pieces = self.blobs.get(&digest).and_then(|state| state.pieces.as_ref());
        let ids: Vec<FetchId> = pieces
            .map(|pieces| pieces.in_flight.values().flatten().copied().collect())
            .unwrap_or_default();
        self.cancel(&ids, out);
    }

    fn cancel(&mut self, ids: &[FetchId], out: &mut Vec<Output>) {
        for id in ids {
            if let Some(request) = self.requests.by_id.get_mut(id)
                && !std::mem::replace(&mut request.cancelled, true)
            {
                out.push(Output::Cancel { id: *id });
            }
        }
    }

    /// A connection is gone: what was asked on it is free to be asked elsewhere at once.
    pub(super) fn lose_requests(&mut self, now: Duration, node: NodeId, out: &mut Vec<Output>) {
        self.lose_requests_of(now, node, None, out);
    }

    pub(super) fn lose_requests_of(
        &mut self,
        _now: Duration,
        node: NodeId,
        digest: Option<Digest>,
        out: &mut Vec<Output>,
    ) {
        let of_node = |request: &Request| request.from == node && digest.is_none_or(|digest| digest == request.digest);
        let lost: Vec<FetchId> = self
            .requests
            .by_id
            .iter()
            .filter(|(_, request)| of_node(request))
            .map(|(id, _)| *id)
            .collect();
        self.cancel(&lost, out);
        for id in lost {
            self.take_request(id);
        }
    }

    /// Marks requests that take too long, and gives up those that take forever.
    pub(super) fn expire_requests(&mut self, now: Duration, out: &mut Vec<Output>) {
        let mut expired = Vec::new();
        for (id, request) in &mut self.requests.by_id {
            let age = now.saturating_sub(request.since);
            let typical = self
                .blobs
                .get(&request.digest)
                .and_then(|state| state.pieces.as_ref()?.piece_time);
            let allowed = typical.map_or(self.config.patience * UNKNOWN, |typical| typical * 2);
            if !request.late && age >= self.config.patience.max(allowed) {
                request.late = true;
                if std::mem::take(&mut request.fills_window) {
                    self.requests.timely -= request.len;
                }
                if let Some(link) = self.links.get_mut(&request.from) {
                    link.late += 1;
                }
            }
            if age >= self.config.request_timeout {
                expired.push(*id);
            }
        }
        self.cancel(&expired, out);
    }
}
