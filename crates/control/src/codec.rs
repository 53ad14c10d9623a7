//! One request and one response on a stream of its own, each one frame of [`wire`].
//!
//! Messages are decoded in the task of the connection that they arrive on, not in the one task that drives the swarm.

use std::io;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::DecodeError;
use wire::control::{MAX_CONTROL, Request, Response};

/// The protocol's name, as libp2p negotiates it.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/packswarm/control/1");
/// Bytes of requests, and as many of responses, that may be read at a time over all connections: what it costs to let
/// every member of a large cluster send its largest message at once. Whoever comes later waits.
const READ_BUDGET: usize = 32 << 20;
/// The unit in which the budget is counted; small messages cost one.
const BUDGET_UNIT: usize = 1 << 10;
/// How much of an announced frame is allocated before its bytes arrive.
const READ_STEP: usize = 16 << 10;

/// A message on its way: encoded where it leaves, decoded where it arrives.
#[derive(Debug)]
pub(crate) enum Packet<T> {
    /// To be sent: a whole frame.
    Leaving(Vec<u8>),
    /// Received.
    Arrived {
        /// The message, or why it cannot be understood.
        message: Result<T, DecodeError>,
        /// Its share of the budget, to be held as long as the message is.
        share: OwnedSemaphorePermit,
    },
}

/// The codec of [`PROTOCOL`].
#[derive(Debug, Clone)]
pub(crate) struct ControlCodec {
    /// Apart, so that requests that wait for their answer never keep the responses that they wait for from being read.
    requests: Arc<Semaphore>,
    responses: Arc<Semaphore>,
}

impl ControlCodec {
    pub(crate) fn new() -> Self {
        let budget = || Arc::new(Semaphore::new(READ_BUDGET / BUDGET_UNIT));
        Self {
            requests: budget(),
            responses: budget(),
        }
    }
}

impl request_response::Codec for ControlCodec {
    type Protocol = StreamProtocol;
    type Request = Packet<Request>;
    type Response = Packet<Response>;

    async fn read_request<S>(&mut self, _: &StreamProtocol, stream: &mut S) -> io::Result<Packet<Request>>
    where
        S: AsyncRead + Unpin + Send,
    {
        read(stream, &self.requests, |frame| wire::decode(frame)).await
    }

    async fn read_response<S>(&mut self, _: &StreamProtocol, stream: &mut S) -> io::Result<Packet<Response>>
    where
        S: AsyncRead + Unpin + Send,
    {
        read(stream, &self.responses, |frame| wire::decode(frame)).await
    }

    async fn write_request<S>(&mut self, _: &StreamProtocol, stream: &mut S, request: Packet<Request>) -> io::Result<()>
    where
        S: AsyncWrite + Unpin + Send,
    {
        write(stream, request).await
    }

    async fn write_response<S>(
        &mut self,
        _: &StreamProtocol,
        stream: &mut S,
        response: Packet<Response>,
    ) -> io::Result<()>
    where
        S: AsyncWrite + Unpin + Send,
    {
        write(stream, response).await
    }
}

async fn write<T, S: AsyncWrite + Unpin>(stream: &mut S, packet: Packet<T>) -> io::Result<()> {
    match packet {
        Packet::Leaving(frame) => stream.write_all(&frame).await,
        Packet::Arrived { .. } => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a received message is not sent on",
        )),
    }
}

async fn read<T, S: AsyncRead + Unpin>(
    stream: &mut S,
    budget: &Arc<Semaphore>,
    decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
) -> io::Result<Packet<T>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_CONTROL {
        let message = Err(DecodeError::TooLong {
            length,
            limit: MAX_CONTROL,
        });
        return Ok(Packet::Arrived {
            message,
            share: share(budget, 0).await,
        });
    }
    let share = share(budget, length).await;
    let mut body = Vec::with_capacity(length.min(READ_STEP));
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Packet::Arrived {
        message: decode(&body),
        share,
    })
}

async fn share(budget: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT).max(1)).expect("MAX_CONTROL is far below 4 TiB");
    Arc::clone(budget)
        .acquire_many_owned(units)
        .await
        .expect("nobody closes the budget")
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn budget() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(READ_BUDGET / BUDGET_UNIT))
    }

    async fn read_response(bytes: Vec<u8>, budget: &Arc<Semaphore>) -> io::Result<Packet<Response>> {
        read(&mut Cursor::new(bytes), budget, |frame| wire::decode(frame)).await
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_its_share_given_back() {
        let response = Response::Refused {
            reason: "r".repeat(5000),
        };
        let mut stream = Cursor::new(Vec::new());
        write(&mut stream, Packet::<Response>::Leaving(wire::encode_frame(&response)))
            .await
            .unwrap();
        let budget = budget();
        let before = budget.available_permits();
        let Packet::Arrived { message, share } = read_response(stream.into_inner(), &budget).await.unwrap() else {
            panic!("it arrived")
        };
        assert_eq!(message.unwrap(), response);
        assert_eq!(budget.available_permits(), before - 5);
        drop(share);
        assert_eq!(budget.available_permits(), before);
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_named_and_not_read() {
        let frame = [u32::MAX.to_be_bytes().to_vec(), vec![0; 8]].concat();
        let Packet::Arrived { message, .. } = read_response(frame, &budget()).await.unwrap() else {
            panic!("its header arrived")
        };
        assert!(matches!(message, Err(DecodeError::TooLong { .. })));
    }

    #[tokio::test]
    async fn what_is_more_than_may_be_read_at_a_time_waits_for_its_share() {
        let budget = budget();
        let others = share(&budget, READ_BUDGET - BUDGET_UNIT).await;
        let frame = wire::encode_frame(&Response::Refused {
            reason: "r".repeat(2 * BUDGET_UNIT),
        });
        let mut reading = std::pin::pin!(read_response(frame, &budget));
        assert!(futures::poll!(reading.as_mut()).is_pending());
        drop(others);
        let Packet::Arrived { message, .. } = reading.await.unwrap() else {
            panic!("it arrived")
        };
        assert!(matches!(message, Ok(Response::Refused { .. })));
    }

    #[tokio::test]
    async fn a_frame_that_ends_early_is_an_error() {
        let mut frame = wire::encode_frame(&Response::Taken);
        frame.pop();
        assert_eq!(
            read_response(frame, &budget()).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_are_told_apart_from_a_broken_stream() {
        let frame = [4u32.to_be_bytes().to_vec(), vec![0xff; 4]].concat();
        let Packet::Arrived { message, .. } = read_response(frame, &budget()).await.unwrap() else {
            panic!("it arrived")
        };
        assert!(matches!(message, Err(DecodeError::Message(_))));
    }
}
