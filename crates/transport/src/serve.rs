//! Pieces that a neighbour asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use piece::{NodeId, SignedRun};
use quinn::{RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::sync::watch;
use wire::exchange::{Answer, Fetch, MAX_ANSWER, MAX_ANSWER_RUNS, MAX_FETCH, Refusal};

use crate::ServeError;
use crate::error::words;
use crate::transport::Inner;

/// What the asker's stream is reset with when nobody answers it.
const ABANDONED: VarInt = VarInt::from_u32(1);

/// A neighbour's request for one piece. Dropped without an answer, it tells the neighbour to look elsewhere.
#[derive(Debug)]
pub struct FetchRequest {
    /// Who asks.
    pub node: NodeId,
    /// What for.
    pub fetch: Fetch,
    stream: AnswerStream,
    inner: Arc<Inner>,
    _serving: Serving,
}

impl FetchRequest {
    /// Sends the piece, without copying it, and waits until the neighbour has all of it; returns its length.
    ///
    /// # Errors
    /// If the neighbour cancels, the connection breaks, or there are more `runs` than an answer may hold.
    pub async fn piece(self, runs: Vec<SignedRun>, bytes: Bytes) -> Result<u64, ServeError> {
        let whole = bytes.len();
        self.paced_piece(runs, bytes, whole, |_| std::future::ready(())).await
    }

    /// As [`FetchRequest::piece`], in portions of at most `portion` bytes; before each further one `pace` is told of the last
    /// one's bytes, and may wait.
    ///
    /// # Errors
    /// As there.
    pub async fn paced_piece<P: Future<Output = ()>>(
        mut self,
        runs: Vec<SignedRun>,
        mut bytes: Bytes,
        portion: usize,
        pace: impl Fn(usize) -> P,
    ) -> Result<u64, ServeError> {
        let count = runs.len();
        let answer = wire::encode_frame(&Answer::Piece { runs });
        let length = answer.len() - 4;
        if count > MAX_ANSWER_RUNS || length > MAX_ANSWER {
            return Err(ServeError::TooLong { runs: count, length });
        }
        let sent = bytes.len() as u64;
        let first = bytes.split_to(portion.max(1).min(bytes.len()));
        let mut went = first.len();
        self.stream.write(&mut [answer.into(), first]).await?;
        while !bytes.is_empty() {
            pace(went).await;
            let next = bytes.split_to(portion.max(1).min(bytes.len()));
            went = next.len();
            self.stream.write(&mut [next]).await?;
        }
        self.stream.finish().await?;
        // Nothing else is ordered by this counter.
        self.inner.sent.fetch_add(sent, Ordering::Relaxed);
        Ok(sent)
    }

    /// Declines, with the reason.
    pub async fn refuse(mut self, refusal: Refusal) {
        let answer = wire::encode_frame(&Answer::Refused { refusal });
        // Whoever has gone meanwhile does not mind.
        if self.stream.write(&mut [answer.into()]).await.is_ok() {
            let _ = self.stream.finish().await;
        }
    }
}

/// Why a stream brought no request.
pub(crate) enum NoRequest {
    /// It broke off, or nothing came in time.
    Lost,
    /// The neighbour broke the protocol.
    Malformed(String),
}

/// Reads what a stream asks for. While closing, refuses it.
pub(crate) async fn read_request(
    inner: Arc<Inner>,
    node: NodeId,
    send: SendStream,
    mut recv: RecvStream,
) -> Result<FetchRequest, NoRequest> {
    let stream = AnswerStream {
        stream: send,
        is_answered: false,
    };
    let fetch = tokio::time::timeout(inner.config.request_timeout, read_fetch(&mut recv))
        .await
        .map_err(|_| NoRequest::Lost)??;
    let request = FetchRequest {
        node,
        fetch,
        stream,
        _serving: Serving::begin(&inner.serving),
        inner,
    };
    if request.inner.is_draining() {
        request.refuse(Refusal::Busy).await;
        return Err(NoRequest::Lost);
    }
    Ok(request)
}

/// The request that a stream holds and nothing else. It is copied as it comes: quinn's own `read_to_end` would keep each
/// byte's datagram until the last one is there.
async fn read_fetch(recv: &mut RecvStream) -> Result<Fetch, NoRequest> {
    let mut room = [0; 4 + MAX_FETCH + 1];
    let mut length = 0;
    while let Some(count) = recv.read(&mut room[length..]).await.map_err(|_| NoRequest::Lost)? {
        length += count;
        if length == room.len() {
            return Err(NoRequest::Malformed("a request is too long".to_owned()));
        }
    }
    parse(&room[..length]).map_err(NoRequest::Malformed)
}

fn parse(whole: &[u8]) -> Result<Fetch, String> {
    let mut frames = wire::FrameBuffer::new(MAX_FETCH);
    frames.push(whole);
    match frames.next_frame() {
        Ok(Some(frame)) if frame.len() + 4 == whole.len() => wire::decode(frame).map_err(|e| e.to_string()),
        Ok(_) => Err("a request is not one frame".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A stream that is reset when it is dropped half answered: QUIC would end it properly, as if that were all.
#[derive(Debug)]
struct AnswerStream {
    stream: SendStream,
    is_answered: bool,
}

impl AnswerStream {
    /// Sends some of the answer.
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), ServeError> {
        self.stream.write_all_chunks(chunks).await.map_err(|error| match error {
            WriteError::Stopped(_) => ServeError::Cancelled,
            WriteError::ConnectionLost(error) => ServeError::Lost(words(&error)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => ServeError::Lost(error.to_string()),
        })
    }

    /// That was all: waits until it is acknowledged.
    async fn finish(&mut self) -> Result<(), ServeError> {
        self.is_answered = true;
        // Fails only if the neighbour has stopped the stream, which is what is asked next.
        let _ = self.stream.finish();
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(ServeError::Cancelled),
            Err(StoppedError::ConnectionLost(error)) => Err(ServeError::Lost(words(&error))),
            Err(error @ StoppedError::ZeroRttRejected) => Err(ServeError::Lost(error.to_string())),
        }
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.is_answered {
            // Fails if the neighbour has stopped it, or the connection is gone: fine either way.
            let _ = self.stream.reset(ABANDONED);
        }
    }
}

/// Counts the requests that are being answered, so that closing can wait for them.
#[derive(Debug)]
struct Serving(watch::Sender<usize>);

impl Serving {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|serving| *serving += 1);
        Self(count.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.send_modify(|serving| *serving -= 1);
    }
}
