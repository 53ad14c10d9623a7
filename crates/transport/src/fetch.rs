//! Pieces that this node asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use piece::SignedRun;
use quinn::{Connection, ReadError, RecvStream, WriteError};
use wire::exchange::{Answer, Fetch, MAX_ANSWER, MAX_ANSWER_RUNS};

use crate::error::words;
use crate::frame::{FrameError, read_frame};
use crate::held::{Held, Wanted};
use crate::{FetchError, endpoint};

/// Chunks taken from the stream at once; each is at most one packet's worth.
const CHUNKS: usize = 64;

/// A piece on its way. Dropping it cancels what has not arrived.
#[derive(Debug)]
pub struct IncomingPiece {
    /// Signed runs that hold both ends of the piece, if they were asked for. Not verified.
    pub runs: Vec<SignedRun>,
    connection: Connection,
    stream: RecvStream,
    /// What the neighbour had sent before it sent anything of this.
    sent_before: u64,
    wanted: Wanted,
    progress: Progress,
    received: Arc<AtomicU64>,
}

/// How much of a piece has arrived; can be watched while the piece is being read.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        // Nothing else is ordered by this counter.
        self.0.load(Ordering::Relaxed)
    }
}

/// The bytes of a piece as they come, a few packets at a time.
#[derive(Debug)]
pub struct Chunks<'a> {
    piece: &'a mut IncomingPiece,
    len: usize,
    came: usize,
    batch: [Bytes; CHUNKS],
}

/// Asks for a piece and waits for the answer. `wanted` counts what is wanted from this neighbour, `received` the bytes that
/// then arrive.
pub(crate) async fn fetch(
    connection: Connection,
    fetch: Fetch,
    wanted: Wanted,
    received: Arc<AtomicU64>,
) -> Result<IncomingPiece, FetchError> {
    let sent_before = sent(&connection);
    let (mut send, mut stream) = connection.open_bi().await.map_err(|e| FetchError::Lost(words(&e)))?;
    // Fails only on a stream that is closed.
    let _ = send.set_priority(endpoint::REQUESTS);
    send.write_all(&wire::encode_frame(&fetch)).await.map_err(write_error)?;
    // Fails only if the neighbour has stopped the stream; then there is no answer either.
    let _ = send.finish();
    let frame = read_frame(&mut stream, MAX_ANSWER).await.map_err(|error| match error {
        FrameError::Read(error) => read_error(error),
        FrameError::Ended | FrameError::TooLong { .. } => FetchError::Malformed(error.to_string()),
    })?;
    match wire::decode(&frame).map_err(|e| FetchError::Malformed(e.to_string()))? {
        Answer::Piece { runs } if runs.len() > MAX_ANSWER_RUNS => {
            Err(FetchError::Malformed(format!("{} runs in one answer", runs.len())))
        }
        Answer::Piece { runs } => Ok(IncomingPiece {
            runs,
            connection,
            stream,
            sent_before,
            wanted,
            progress: Progress::default(),
            received,
        }),
        Answer::Refused { refusal } => Err(FetchError::Refused(refusal)),
    }
}

impl IncomingPiece {
    /// Where to see how much has arrived.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The piece, which has `len` bytes, as the chunks in which it came off the network. They are not copied, and keep no more
    /// memory than twice the bytes that are being received from the neighbour.
    ///
    /// # Errors
    /// If the transfer breaks off, or the neighbour sends fewer or more bytes than that.
    pub async fn read(&mut self, len: usize) -> Result<Vec<Bytes>, FetchError> {
        self.read_paced(len, |_| std::future::ready(())).await
    }

    /// As [`IncomingPiece::read`]; after every few packets `pace` is told of their bytes, and may wait. The stream's window
    /// then holds the neighbour back.
    ///
    /// # Errors
    /// As there.
    pub async fn read_paced<P: Future<Output = ()>>(
        &mut self,
        len: usize,
        pace: impl Fn(usize) -> P,
    ) -> Result<Vec<Bytes>, FetchError> {
        let share = self.wanted.add(len);
        let mut held = Held::new(self.sent_before);
        let mut unbounded = 0;
        let mut chunks = self.chunks(len);
        while let Some(batch) = chunks.next().await? {
            let mut came = 0;
            unbounded += batch.len();
            for chunk in batch.iter_mut().map(std::mem::take) {
                came += chunk.len();
                held.push(chunk);
            }
            if unbounded >= CHUNKS {
                unbounded = 0;
                chunks.piece.bound(&mut held);
            }
            pace(came).await;
        }
        self.bound(&mut held);
        drop(share);
        Ok(held.into_chunks())
    }

    /// The bytes of the piece, which has `len` of them, for whoever holds none of them for long.
    pub fn chunks(&mut self, len: usize) -> Chunks<'_> {
        Chunks {
            piece: self,
            len,
            came: 0,
            batch: std::array::from_fn(|_| Bytes::new()),
        }
    }

    fn bound(&self, held: &mut Held) {
        held.bound(sent(&self.connection), self.wanted.bytes());
    }
}

impl Chunks<'_> {
    /// The next chunks, in order; none when the piece is whole. They may be taken.
    ///
    /// # Errors
    /// If the transfer breaks off, or the neighbour sends fewer or more bytes than it should.
    pub async fn next(&mut self) -> Result<Option<&mut [Bytes]>, FetchError> {
        let (stream, wanted) = (&mut self.piece.stream, self.len);
        let Some(count) = stream.read_chunks(&mut self.batch).await.map_err(read_error)? else {
            if self.came == wanted {
                return Ok(None);
            }
            return Err(FetchError::Malformed(format!(
                "the piece ended after {} of its {wanted} bytes",
                self.came
            )));
        };
        let batch = &mut self.batch[..count];
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        self.came += bytes;
        if self.came > wanted {
            return Err(FetchError::Malformed(format!(
                "the piece is longer than its {wanted} bytes"
            )));
        }
        // Nothing else is ordered by these counters.
        self.piece.progress.0.store(self.came as u64, Ordering::Relaxed);
        self.piece.received.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(Some(batch))
    }
}

/// Bytes that have come over a connection, whatever they were.
fn sent(connection: &Connection) -> u64 {
    connection.stats().udp_rx.bytes
}

fn read_error(error: ReadError) -> FetchError {
    match error {
        ReadError::ConnectionLost(error) => FetchError::Lost(words(&error)),
        ReadError::Reset(_) => FetchError::Lost("the neighbour gave up on it".to_owned()),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            FetchError::Lost(error.to_string())
        }
    }
}

fn write_error(error: WriteError) -> FetchError {
    match error {
        WriteError::ConnectionLost(error) => FetchError::Lost(words(&error)),
        WriteError::Stopped(_) => FetchError::Lost("the neighbour gave up on it".to_owned()),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => FetchError::Lost(error.to_string()),
    }
}
