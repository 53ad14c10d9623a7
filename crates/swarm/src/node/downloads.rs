//! Piece requests: filling idle slots, noticing the slow, the end game, and what to make of each outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};
use rand::Rng as _;
use wire::control::{Accusation, Offence};
use wire::exchange::Refusal;

use super::Node;
use super::event::{FetchId, Outcome, Output};
use super::picker::{self, Choice};

/// A neighbour that said `Busy` or was late several times in a row is left alone this long.
const RESPITE: Duration = Duration::from_millis(200);
/// A neighbour that no longer had a piece, or whose midstates we cannot trust yet, is asked for it again after this.
const RETRY: Duration = Duration::from_millis(100);
/// Late requests in a row after which a neighbour gets one request at a time.
const LATE_LIMIT: u32 = 2;

/// All requests of ours that are under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    by_id: BTreeMap<FetchId, Request>,
    next_id: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Request {
    digest: Digest,
    piece: PieceIndex,
    from: NodeId,
    since: Duration,
    len: u64,
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
}

impl Node {
    /// Uses every request slot that can be used: blobs that clients wait for first, neighbours with the least to do first.
    pub(super) fn fill_requests(&mut self, now: Duration, out: &mut Vec<Output>) {
        let hungry: Vec<Digest> = self.hungry.iter().map(|(_, digest)| *digest).collect();
        for digest in hungry {
            if self.requests.bytes >= self.config.in_flight_bytes {
                return;
            }
            let Some(state) = self.blobs.get(&digest) else { continue };
            let Some(pieces) = &state.pieces else { continue };
            if pieces.have.is_full() {
                continue;
            }
            let mut mates: Vec<(usize, u32, NodeId)> = state
                .mates
                .iter()
                .filter(|(_, mate)| !mate.banned && mate.not_before <= now && mate.field.is_some())
                .filter_map(|(node, _)| Some((self.links.get(node)?.in_flight, self.rng.next_u32(), *node)))
                .collect();
            mates.sort_unstable();
            for (_, _, node) in mates {
                while self.ask_one(now, digest, node, out) {}
            }
        }
    }

    /// Asks one neighbour for one more piece, if it has room and a piece that we want.
    fn ask_one(&mut self, now: Duration, digest: Digest, node: NodeId, out: &mut Vec<Output>) -> bool {
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
        if link.in_flight >= window || mate.not_before > now {
            return false;
        }
        let requests = &self.requests;
        let choice = Choice {
            pieces,
            node,
            mate,
            cursor: state.wanted.as_ref().and_then(|wanted| wanted.cursor),
            reading: &|piece| state.origin.as_ref().is_some_and(|origin| origin.is_reading(piece)),
            late: &|piece| {
                let asked = pieces.in_flight.get(&piece);
                asked.is_some_and(|ids| {
                    ids.len() < 3
                        && ids.iter().all(|id| requests.is_late(id))
                        && ids
                            .iter()
                            .all(|id| requests.by_id.get(id).is_none_or(|request| request.from != node))
                })
            },
        };
        let picked = picker::pick(&choice, &mut self.rng).or_else(|| {
            let last_ones = pieces.missing() == 0 && link.in_flight == 0;
            let other = |piece: &PieceIndex| {
                let asked = pieces.in_flight.get(piece).into_iter().flatten();
                asked
                    .filter_map(|id| requests.by_id.get(id))
                    .all(|request| request.from != node)
            };
            last_ones
                .then(|| picker::duplicate(&choice, &mut self.rng))
                .flatten()
                .filter(other)
        });
        let Some(piece) = picked else { return false };
        let len = pieces.geometry.len(piece);
        if self.requests.bytes > 0 && self.requests.bytes + len > self.config.in_flight_bytes {
            return false;
        }
        let id = FetchId(self.requests.next_id);
        self.requests.next_id += 1;
        self.requests.bytes += len;
        let request = Request {
            digest,
            piece,
            from: node,
            since: now,
            len,
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
        true
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
                self.learn_speed(&digest, &from, now.saturating_sub(since));
                self.cancel_others(digest, piece, out);
                self.gained(now, digest, piece, out);
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
            if !request.late && age >= self.config.patience.max(typical.unwrap_or(self.config.patience) * 2) {
                request.late = true;
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
