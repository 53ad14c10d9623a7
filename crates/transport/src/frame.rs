//! Frames from a QUIC stream, read without buffering anything past them.

use quinn::{ReadError, ReadExactError, RecvStream};

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream or the connection broke off.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream ended.
    #[error("the stream ended")]
    Ended,
    /// The frame is longer than its channel allows. Nothing was buffered for it.
    #[error("a frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes that it claims.
        length: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
}

/// The body of the next frame: a big-endian u32 length, then that many bytes.
pub(crate) async fn read_frame(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let mut body = vec![0; length];
    read_exact(stream, &mut body).await?;
    Ok(body)
}

async fn read_exact(stream: &mut RecvStream, buffer: &mut [u8]) -> Result<(), FrameError> {
    stream.read_exact(buffer).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => FrameError::Ended,
        ReadExactError::ReadError(error) => FrameError::Read(error),
    })
}
