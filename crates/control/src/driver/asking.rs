//! Requests and responses, in both directions.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use libp2p::identity::PeerId;
use libp2p::request_response::{Event as MessageEvent, Message, OutboundFailure, OutboundRequestId, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wire::DecodeError;
use wire::control::{Request, Response};

use super::{Driver, Target};
use crate::behaviour::MAX_ASKS_PER_NODE;
use crate::codec::Packet;
use crate::error::AskError;
use crate::event::{Answer, Event, OVERLOADED, Reply};
use crate::explain;

/// Reasons of failed dials kept until the asks that waited for them are told.
const MAX_FAILURES: usize = 64;

/// An encoded request, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) frame: Vec<u8>,
    pub(crate) waiter: Waiter,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Who is asked, for errors.
    to: String,
    answer: oneshot::Sender<Result<Result<Response, DecodeError>, AskError>>,
    /// Its place among the requests in flight, kept even when the asker has given up: the request is still under way.
    _turn: OwnedSemaphorePermit,
}

impl Waiter {
    pub(crate) fn new(
        to: String,
        answer: oneshot::Sender<Result<Result<Response, DecodeError>, AskError>>,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            to,
            answer,
            _turn: turn,
        }
    }

    pub(super) fn unreachable(self, reason: String) {
        let to = self.to.clone();
        self.end(Err(AskError::Unreachable { to, reason }));
    }

    fn end(self, answer: Result<Result<Response, DecodeError>, AskError>) {
        // The asker may have given up.
        let _ = self.answer.send(answer);
    }
}

/// This node's requests under way.
#[derive(Debug)]
pub(super) struct Asks {
    /// When libp2p gives up.
    timeout: Duration,
    waiting: HashMap<OutboundRequestId, (PeerId, Waiter)>,
    per_node: HashMap<PeerId, usize>,
    /// Why the latest dials failed.
    failures: VecDeque<(ConnectionId, String)>,
}

impl Asks {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            waiting: HashMap::new(),
            per_node: HashMap::new(),
            failures: VecDeque::new(),
        }
    }

    /// Remembers why a node could not be dialled: libp2p tells those who ask it only that.
    pub(super) fn note_failure(&mut self, connection: ConnectionId, reason: String) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back((connection, reason));
    }

    fn under_way(&self, peer: &PeerId) -> usize {
        self.per_node.get(peer).copied().unwrap_or_default()
    }

    fn begin(&mut self, request: OutboundRequestId, peer: PeerId, waiter: Waiter) {
        *self.per_node.entry(peer).or_default() += 1;
        self.waiting.insert(request, (peer, waiter));
    }

    fn take(&mut self, request: OutboundRequestId) -> Option<Waiter> {
        let (peer, waiter) = self.waiting.remove(&request)?;
        if let Some(count) = self.per_node.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.per_node.remove(&peer);
            }
        }
        Some(waiter)
    }

    fn failed(&mut self, request: OutboundRequestId, connection: ConnectionId, failure: &OutboundFailure) {
        let Some(waiter) = self.take(request) else { return };
        let reason = match failure {
            OutboundFailure::Timeout => {
                let to = waiter.to.clone();
                return waiter.end(Err(AskError::Timeout {
                    to,
                    after: self.timeout,
                }));
            }
            OutboundFailure::DialFailure => {
                let noted = self.failures.iter().rev().find(|(failed, _)| *failed == connection);
                noted.map_or_else(|| "it cannot be connected to".into(), |(_, reason)| reason.clone())
            }
            OutboundFailure::ConnectionClosed => "the connection closed before the answer".into(),
            OutboundFailure::UnsupportedProtocols => "it speaks another version of the protocol".into(),
            OutboundFailure::Io(error) => format!("the request was cut off: {error}"),
        };
        waiter.unreachable(reason);
    }
}

impl Driver {
    pub(super) fn on_ask(&mut self, target: Target, ask: Ask) {
        match target {
            Target::Node(peer) => self.ask_node(peer, ask),
            Target::Addresses(addresses) => self.ask_address(addresses, ask),
        }
    }

    pub(super) fn ask_node(&mut self, peer: PeerId, ask: Ask) {
        if peer == self.local {
            return ask.waiter.unreachable("it is this node itself".into());
        }
        if self.asks.under_way(&peer) >= MAX_ASKS_PER_NODE {
            return ask.waiter.end(Err(AskError::Overloaded));
        }
        // Dialled here, for libp2p does not say why a dial that it begins for a request does not begin.
        if !self.swarm.is_connected(&peer) {
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::NotDialing);
            match self.swarm.dial(dial.build()) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
                Err(error) => return ask.waiter.unreachable(explain::dial_error(&error)),
            }
        }
        let request = self
            .swarm
            .behaviour_mut()
            .messages
            .send_request(&peer, Packet::Leaving(ask.frame));
        self.asks.begin(request, peer, ask.waiter);
    }

    pub(super) fn on_answer(&mut self, (channel, frame): Answer) {
        if self
            .swarm
            .behaviour_mut()
            .messages
            .send_response(channel, Packet::Leaving(frame))
            .is_err()
        {
            tracing::debug!("an answer came too late, or its asker is gone");
        }
    }

    pub(super) fn on_message(&mut self, event: MessageEvent<Packet<Request>, Packet<Response>>) {
        match event {
            MessageEvent::Message {
                connection_id,
                message: Message::Request { request, channel, .. },
                ..
            } => {
                self.on_request(connection_id, request, channel);
            }
            MessageEvent::Message {
                message: Message::Response { request_id, response },
                ..
            } => {
                let (Some(waiter), Packet::Arrived { message, .. }) = (self.asks.take(request_id), response) else {
                    return;
                };
                waiter.end(Ok(message));
            }
            MessageEvent::OutboundFailure {
                request_id,
                connection_id,
                error,
                ..
            } => {
                self.asks.failed(request_id, connection_id, &error);
            }
            MessageEvent::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request was not answered");
            }
            MessageEvent::ResponseSent { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        connection: ConnectionId,
        request: Packet<Request>,
        channel: ResponseChannel<Packet<Response>>,
    ) {
        let Packet::Arrived { message, share } = request else {
            return;
        };
        let request = match message {
            Ok(request) => request,
            Err(error) => return self.refuse(channel, error.to_string()),
        };
        let Some(open) = self.connections.get(&connection) else {
            return;
        };
        let (from, observed) = (open.node, open.remote);
        match self.answers.0.clone().try_reserve_owned() {
            Ok(room) => {
                let reply = Reply::new(channel, room, share);
                self.backlog.push_back(Event::Request {
                    from,
                    observed,
                    request,
                    reply,
                });
            }
            Err(_) => self.refuse(channel, OVERLOADED.into()),
        }
    }

    fn refuse(&mut self, channel: ResponseChannel<Packet<Response>>, reason: String) {
        self.on_answer((channel, wire::encode_frame(&Response::Refused { reason })));
    }
}
