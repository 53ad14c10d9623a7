//! Pieces that this node asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use piece::SignedRun;
use quinn::{Connection, ReadError, RecvStream, WriteError};
use wire::exchange::{Answer, Fetch, MAX_ANSWER, MAX_ANSWER_RUNS};

use crate::FetchError;
use crate::error::words;
use crate::frame::{FrameError, read_frame};

/// Chunks taken from the stream at once; each is at most one packet's worth.
const CHUNKS: usize = 64;

/// A piece on its way. Dropping it cancels what has not arrived.
#[derive(Debug)]
pub struct IncomingPiece {
    /// Signed runs that hold both ends of the piece, if they were asked for. Not verified.
    pub runs: Vec<SignedRun>,
    stream: RecvStream,
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

/// Asks for a piece and waits for the answer. `received` counts the bytes that then arrive.
pub(crate) async fn fetch(
    connection: &Connection,
    fetch: Fetch,
    received: Arc<AtomicU64>,
) -> Result<IncomingPiece, FetchError> {
    let (mut send, mut stream) = connection.open_bi().await.map_err(|e| FetchError::Lost(words(&e)))?;
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
            stream,
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

    /// Fills `buffer` with the piece. After an error, what is in the buffer means nothing.
    ///
    /// # Errors
    /// If the transfer breaks off, or the neighbour sends fewer or more bytes than that.
    pub async fn read_into(&mut self, buffer: &mut [u8]) -> Result<(), FetchError> {
        self.read_paced(buffer, |_| std::future::ready(())).await
    }

    /// As [`IncomingPiece::read_into`]; after every few packets `pace` is told of their bytes, and may wait. The stream's
    /// window then holds the neighbour back.
    ///
    /// # Errors
    /// As there.
    pub async fn read_paced<P: Future<Output = ()>>(
        &mut self,
        buffer: &mut [u8],
        pace: impl Fn(usize) -> P,
    ) -> Result<(), FetchError> {
        let wanted = buffer.len();
        let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
        let mut filled = 0;
        while let Some(count) = self.stream.read_chunks(&mut chunks).await.map_err(read_error)? {
            let before = filled;
            for chunk in chunks[..count].iter_mut().map(std::mem::take) {
                let Some(place) = buffer.get_mut(filled..filled + chunk.len()) else {
                    return Err(FetchError::Malformed(format!(
                        "the piece is longer than its {wanted} bytes"
                    )));
                };
                place.copy_from_slice(&chunk);
                filled += chunk.len();
            }
            // Nothing else is ordered by these counters.
            self.progress.0.store(filled as u64, Ordering::Relaxed);
            self.received.fetch_add((filled - before) as u64, Ordering::Relaxed);
            pace(filled - before).await;
        }
        if filled == wanted {
            return Ok(());
        }
        Err(FetchError::Malformed(format!(
            "the piece ended after {filled} of its {wanted} bytes"
        )))
    }
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
