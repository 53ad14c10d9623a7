//! What a node's control plane reports.

use std::net::SocketAddr;

use libp2p::request_response::ResponseChannel;
use piece::NodeId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use wire::control::{MAX_CONTROL, Request, Response};

use crate::codec::Packet;

/// The reason given when a request is refused because too many others wait.
pub(crate) const OVERLOADED: &str = "too many requests wait for an answer: ask again later";

/// What happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are requests")]
pub enum Event {
    /// Another node asks.
    Request {
        /// Who.
        from: NodeId,
        /// Where its connection comes from (its port is not one that it listens on), or where it was dialled.
        observed: SocketAddr,
        /// What.
        request: Request,
        /// To answer it with.
        reply: Reply,
    },
    /// There is a connection to a node, the first.
    Connected(NodeId, SocketAddr),
    /// The last connection to a node is gone.
    Disconnected(NodeId),
    /// A configured scheduler is connected, which may know nothing of this node yet.
    SchedulerUp(NodeId),
    /// From now on blobs belong to this scheduler too: see [`Schedulers::settled`](crate::Schedulers::settled).
    SchedulerSettled(NodeId),
    /// A scheduler is connected no longer.
    SchedulerDown(NodeId),
}

/// Answers one request. Dropped, it refuses the request.
#[derive(Debug)]
pub struct Reply(Option<Pending>);

#[derive(Debug)]
struct Pending {
    channel: ResponseChannel<Packet<Response>>,
    /// Room for the answer on its way to the driver; as long as it is taken, the request counts as in flight.
    room: mpsc::OwnedPermit<Answer>,
    _share: OwnedSemaphorePermit,
}

/// An encoded answer, and where it goes.
pub(crate) type Answer = (ResponseChannel<Packet<Response>>, Vec<u8>);

impl Reply {
    pub(crate) fn new(
        channel: ResponseChannel<Packet<Response>>,
        room: mpsc::OwnedPermit<Answer>,
        share: OwnedSemaphorePermit,
    ) -> Self {
        Self(Some(Pending {
            channel,
            room,
            _share: share,
        }))
    }

    /// Sends the answer; one that is too large for a message becomes a refusal that says so. Whether it arrives is not
    /// known: the asker may have gone or lost patience.
    pub fn send(mut self, response: Response) {
        if let Some(pending) = self.0.take() {
            pending.send(&response);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(pending) = self.0.take() {
            pending.send(&Response::Refused {
                reason: "this node does not answer the request".into(),
            });
        }
    }
}

impl Pending {
    fn send(self, response: &Response) {
        let mut frame = wire::encode_frame(response);
        if frame.len() - 4 > MAX_CONTROL {
            let reason = format!(
                "the answer of {} bytes exceeds the limit of {MAX_CONTROL}",
                frame.len() - 4
            );
            tracing::warn!(reason, "an answer on the control plane was not sent");
            frame = wire::encode_frame(&Response::Refused { reason });
        }
        self.room.send((self.channel, frame));
    }
}
