//! Where blobs come from, and how a stream of one is kept going.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use piece::Blob;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::unpack::{Patience, UnpackError};

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A source of blobs: the node's mirror, a registry, a peer's own store.
pub trait Fetch: Sync {
    /// Opens a blob at `offset`, which is below its size. The bytes need not be verified; they will be.
    ///
    /// The stream must end with the blob. It is dropped early when nobody needs the rest.
    fn open(
        &self,
        blob: &Blob,
        offset: u64,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>> + Send;

    /// A file that holds exactly this blob, proven, in a store that this process may read. It is linked, reflinked or
    /// copied without being hashed again, so nothing unproven may be named here.
    fn local(&self, blob: &Blob) -> Option<PathBuf>;
}

/// Why a blob could not be read, by what helps.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Trying again may help: a cut connection, a server that is starting or overloaded.
    #[error("the source failed for now")]
    Passing(#[source] Box<dyn Error + Send + Sync>),
    /// Trying again cannot help: not found, not allowed.
    #[error("the source refuses")]
    Final(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing came for too long.
    #[error("no byte came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The stream ended before the blob did.
    #[error("the stream ended {missing} bytes too early")]
    Short {
        /// Bytes that did not come.
        missing: u64,
    },
    /// The stream has more bytes than the manifest says.
    #[error("the source sends more bytes than the manifest says the blob has")]
    Long,
}

impl FetchError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Passing(_) | Self::Stalled(_) | Self::Short { .. } => true,
            Self::Final(_) | Self::Long => false,
        }
    }
}

/// What a blob's streams brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pumped {
    /// Bytes that came.
    pub(crate) bytes: u64,
    /// Whether a stream broke on the way. Then the bytes before may be of another making than those behind: a mirror cuts
    /// a stream when it finds out that what it has sent was not the blob.
    pub(crate) broke: bool,
}

/// Sends the blob's bytes from `offset` on into `sink`, opening it anew where a stream broke. Gives up after
/// [`Patience::attempts`] in a row that brought nothing. When nobody reads the sink any more, that ends it too, and the
/// reader knows why.
pub(crate) async fn pump<F: Fetch>(
    fetch: &F,
    blob: &Blob,
    from: u64,
    sink: mpsc::Sender<Bytes>,
    patience: &Patience,
) -> Result<Pumped, UnpackError> {
    let mut offset = from;
    let mut failures = 0;
    let mut broke = false;
    while offset < blob.size {
        let before = offset;
        let error = match stream(fetch, blob, &mut offset, &sink, patience.stall).await {
            Ok(()) => break,
            Err(error) => error,
        };
        broke = true;
        failures = if offset > before { 1 } else { failures + 1 };
        if failures >= patience.attempts || !error.is_passing() {
            return Err(UnpackError::Fetch {
                blob: *blob,
                offset,
                source: error,
            });
        }
        let pause = patience
            .pause
            .saturating_mul(1 << (failures - 1).min(16))
            .min(MAX_PAUSE);
        tracing::debug!(digest = %blob.digest, offset, failures, ?pause, %error, "blob stream broke; asking again");
        sleep(pause).await;
    }
    let bytes = offset - from;
    Ok(Pumped { bytes, broke })
}

/// One attempt. `Ok` when the blob is complete or the sink is closed.
async fn stream<F: Fetch>(
    fetch: &F,
    blob: &Blob,
    offset: &mut u64,
    sink: &mpsc::Sender<Bytes>,
    stall: Duration,
) -> Result<(), FetchError> {
    let stalled = |_| FetchError::Stalled(stall);
    let mut stream = timeout(stall, fetch.open(blob, *offset)).await.map_err(stalled)??;
    while *offset < blob.size {
        match timeout(stall, stream.next()).await.map_err(stalled)? {
            None => {
                return Err(FetchError::Short {
                    missing: blob.size - *offset,
                });
            }
            Some(chunk) => {
                let chunk = chunk?;
                let len = chunk.len() as u64;
                if len > blob.size - *offset {
                    return Err(FetchError::Long);
                }
                if sink.send(chunk).await.is_err() {
                    return Ok(());
                }
                *offset += len;
            }
        }
    }
    Ok(())
}
