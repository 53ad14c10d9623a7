//! Piece requests under way: noticing the slow, and what to make of each outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};
use wire::control::{Accusation, Offence};
use wire::exchange::Refusal;

use super::event::{FetchId, Outcome, Output};
use super::openings::Room;
use super::window::Window;
use super::{Config, Gain, Node};

/// A neighbour that said `Busy` or was late several times in a row is left alone this long.
const RESPITE: Duration = Duration::from_millis(200);
/// A neighbour that no longer had a piece, or whose midstates we cannot trust yet, is asked for it again after this.
const RETRY: Duration = Duration::from_millis(100);
/// While no piece has come yet, nobody knows how long one takes: this many times the usual patience.
const UNKNOWN: u32 = 8;
/// All requests of ours that are under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) by_id: BTreeMap<FetchId, Request>,
    next_id: u64,
    /// Bytes of all of them: what the buffers must hold.
    bytes: u64,
    /// Bytes of those that fill the window: not the late ones, and not those made of readers.
    timely: u64,
    window: Window,
}

#[derive(Debug)]
pub(super) struct Request {
    digest: Digest,
    piece: PieceIndex,
    pub(super) from: NodeId,
    pub(super) since: Duration,
    len: u64,
    fills_window: bool,
    pub(super) started: bool,
    pub(super) late: bool,
    cancelled: bool,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn is_late(&self, id: &FetchId) -> bool {
        self.by_id.get(id).is_none_or(|request| request.late)
    }

    /// Whether one more piece may be asked for. A reader's pieces are never put off: its uplink is what the whole swarm
    /// waits for.
    pub(super) fn has(&self, room: Room, config: &Config) -> bool {
        let Room { len, of_reader } = room;
        let fits = self.bytes + len <= config.in_flight_bytes;
        self.bytes == 0 || (fits && (of_reader || self.timely + len <= self.window.bytes(len, config.window_pieces)))
    }
}

impl Node {
    pub(super) fn request(
        &mut self,
        now: Duration,
        digest: Digest,
        piece: PieceIndex,
        node: NodeId,
        out: &mut Vec<Output>,
    ) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let (Some(blob), Some(pieces), Some(mate)) = (state.blob(digest), &mut state.pieces, state.mates.get(&node))
        else {
            return;
        };
        let (len, fills_window) = (pieces.geometry.len(piece), !mate.spare);
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
        pieces.in_flight.entry(piece).or_default().push(id);
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
            self.openings.freed(request.from);
        }
        self.touch(request.digest);
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

    pub(super) fn cancel(&mut self, ids: &[FetchId], out: &mut Vec<Output>) {
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
