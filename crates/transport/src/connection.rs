//! One neighbour: reads its messages and requests, writes ours, and says when it is gone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use piece::NodeId;
use quinn::{Connection, ReadError, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use wire::DecodeError;
use wire::exchange::{MAX_HAVE_RANGES, MAX_MEDIA_TYPE, MAX_MESSAGE, MAX_ZONE, Message, Remote};

use crate::Event;
use crate::error::{CloseCode, words};
use crate::frame::{FrameError, read_frame};
use crate::held::Wanted;
use crate::link::{Link, Outgoing, outbox};
use crate::serve::{self, NoRequest};
use crate::transport::Inner;
use crate::{endpoint, table::TurnedAway};

/// Frames written at once.
const BATCH: usize = 64;

/// A connection whose other end has proven who it is and where it belongs.
pub(crate) struct Admitted {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) remote: Remote,
    pub(crate) dialled: bool,
    /// What the other end still waits for: the listener's `Hello`.
    pub(crate) greeting: Vec<u8>,
}

impl Admitted {
    /// Takes its place among the neighbours, or is closed.
    pub(crate) fn settle(self, inner: &Arc<Inner>) -> Result<(), TurnedAway> {
        let (node, dialled, connection) = (self.remote.node, self.dialled, self.connection.clone());
        let settled = inner.table().admit(node, dialled, |events, predecessor| {
            let (outbox, outgoing) = outbox(inner.config.send_queue, inner.config.send_queue_bytes);
            let farewell = Arc::new(OnceLock::new());
            let connection = self.connection.clone();
            endpoint::open_up(&inner.config, &connection);
            let task = Task {
                inner: inner.clone(),
                events,
                farewell: farewell.clone(),
            };
            let task = tokio::spawn(task.run(self, outgoing, predecessor));
            Link {
                connection,
                outbox,
                wanted: Wanted::default(),
                window: OnceLock::new(),
                dialled,
                since: Instant::now(),
                farewell,
                task,
            }
        });
        match settled {
            Ok(()) => inner.changed.notify_waiters(),
            Err(turned_away) => {
                let (code, reason) = turned_away.close();
                connection.close(code.var_int(), reason.as_bytes());
            }
        }
        settled
    }
}

/// Why this end gives a connection up.
struct Ending {
    code: CloseCode,
    reason: String,
}

impl Ending {
    fn protocol(reason: impl ToString) -> Self {
        Self {
            code: CloseCode::Protocol,
            reason: format!("it broke the protocol: {}", reason.to_string()),
        }
    }

    fn lost(reason: impl ToString) -> Self {
        Self {
            code: CloseCode::Done,
            reason: reason.to_string(),
        }
    }

    /// Nobody reads the events any more.
    fn unheard() -> Self {
        Self::lost("shutting down")
    }
}

struct Task {
    inner: Arc<Inner>,
    events: mpsc::Sender<Event>,
    farewell: Arc<OnceLock<String>>,
}

impl Task {
    async fn run(self, mut admitted: Admitted, outgoing: Outgoing, predecessor: Option<JoinHandle<()>>) {
        // A failure shows up again below, with its reason.
        let _ = admitted.send.set_priority(endpoint::MESSAGES);
        let _ = admitted.send.write_all(&admitted.greeting).await;
        if let Some(predecessor) = predecessor {
            // It cannot panic, and if it did its events are over all the same.
            let _ = predecessor.await;
        }
        let (node, connection) = (admitted.remote.node, admitted.connection.clone());
        let connected = Event::Connected {
            addr: canonical(connection.remote_address()),
            dialled: admitted.dialled,
            remote: admitted.remote.clone(),
        };
        if self.events.send(connected).await.is_ok() {
            let reason = self.converse(admitted, outgoing).await;
            tracing::debug!(node = %identity::peer_id(node), reason, "disconnected");
            // If nobody listens, nobody needs to know.
            let _ = self.events.send(Event::Disconnected { node, reason }).await;
        } else {
            connection.close(CloseCode::Done.var_int(), b"shutting down");
        }
        self.inner.table().remove(&node, connection.stable_id());
    }

    /// Everything between `Connected` and `Disconnected`; returns why it is over.
    async fn converse(&self, admitted: Admitted, outgoing: Outgoing) -> String {
        let Admitted {
            connection,
            send,
            recv,
            remote,
            ..
        } = admitted;
        let ending = tokio::select! {
            Err(ending) = self.read_messages(remote.node, recv) => ending,
            Err(ending) = write_messages(send, outgoing) => ending,
            Err(ending) = self.take_requests(&connection, remote.node) => ending,
            error = connection.closed() => Ending::lost(words(&error)),
        };
        let over = connection.close_reason();
        if over.is_none() {
            // Closing what is closed already would hide the reason from whoever else asks.
            connection.close(ending.code.var_int(), ending.reason.as_bytes());
        }
        // What either end said on purpose beats what the streams made of it.
        match (self.farewell.get(), over) {
            (Some(farewell), _) => farewell.clone(),
            (None, Some(error)) => words(&error),
            (None, None) => ending.reason,
        }
    }

    async fn read_messages(&self, node: NodeId, mut stream: RecvStream) -> Result<Infallible, Ending> {
        loop {
            let frame = read_frame(&mut stream, MAX_MESSAGE)
                .await
                .map_err(|error| match error {
                    FrameError::Read(ReadError::ConnectionLost(error)) => Ending::lost(words(&error)),
                    FrameError::Read(_) | FrameError::Ended => Ending::lost("the message stream ended"),
                    FrameError::TooLong { .. } => Ending::protocol(error),
                })?;
            match wire::decode::<Message>(&frame) {
                Ok(message) if is_within_limits(&message) => {
                    self.events
                        .send(Event::Message { node, message })
                        .await
                        .map_err(|_| Ending::unheard())?;
                }
                Ok(_) => return Err(Ending::protocol("a message exceeds the limits of its kind")),
                // A newer release's kind of message; the next one may be for us again.
                Err(DecodeError::Message(error)) if error.is_unknown_variant() => {
                    tracing::debug!(node = %identity::peer_id(node), %error, "skipped a message of an unknown kind");
                }
                Err(error) => return Err(Ending::protocol(error)),
            }
        }
    }

    /// Takes up the streams on which the neighbour asks for pieces. QUIC lets it have no more of them than
    /// `max_concurrent_fetches`, from the first byte asked to the last byte acknowledged.
    async fn take_requests(&self, connection: &Connection, node: NodeId) -> Result<Infallible, Ending> {
        let mut reading = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi() => {
                    let (send, recv) = stream.map_err(|error| Ending::lost(words(&error)))?;
                    reading.spawn(serve::read_request(self.inner.clone(), node, send, recv));
                }
                Some(read) = reading.join_next() => match read.unwrap_or(Err(NoRequest::Lost)) {
                    Ok(request) => {
                        self.events.send(Event::Fetch(request)).await.map_err(|_| Ending::unheard())?;
                    }
                    Err(NoRequest::Lost) => {}
                    Err(NoRequest::Malformed(reason)) => return Err(Ending::protocol(reason)),
                }
            }
        }
    }
}

async fn write_messages(mut stream: SendStream, mut outgoing: Outgoing) -> Result<Infallible, Ending> {
    loop {
        let mut frames: Vec<Bytes> = outgoing.take(BATCH).await;
        if frames.is_empty() {
            // The table has dropped the link, so the connection is being closed.
            return Err(Ending::lost("closed here"));
        }
        stream
            .write_all_chunks(&mut frames)
            .await
            .map_err(|_| Ending::lost("the message stream ended"))?;
    }
}

/// Whether a message keeps within what `wire::exchange` allows its kind. Its frame has bounded its bytes already.
fn is_within_limits(message: &Message) -> bool {
    match message {
        Message::Holding { media_type, zone, .. } => {
            let fits = |text: &Option<String>, most| text.as_ref().is_none_or(|text| text.len() <= most);
            fits(media_type, MAX_MEDIA_TYPE) && fits(zone, MAX_ZONE)
        }
        Message::Have { ranges, .. } => ranges.len() <= MAX_HAVE_RANGES,
        Message::Gone { .. } => true,
    }
}

/// An IPv4 address as such, even if it came through an IPv6 socket.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
