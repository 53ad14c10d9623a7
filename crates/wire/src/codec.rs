//! Frames: a big-endian u32 length, then that many bytes of CBOR.

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame says it is longer than its channel allows. Nothing was buffered for it.
    #[error("a frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes the frame claims.
        length: usize,
        /// Bytes its channel allows.
        limit: usize,
    },
    /// The CBOR is malformed, or a message of a kind that this release does not know.
    #[error("not a message that this release knows: {0}")]
    Message(#[from] minicbor::decode::Error),
}

/// `message` as CBOR.
pub fn encode<T: minicbor::Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).expect("encoding into a Vec cannot fail")
}

/// `message` as one frame.
pub fn encode_frame<T: minicbor::Encode<()>>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; 4];
    minicbor::encode(message, &mut frame).expect("encoding into a Vec cannot fail");
    let length = u32::try_from(frame.len() - 4).expect("no message of ours is near 4 GiB");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The message in `bytes`.
///
/// # Errors
/// If they are not one.
pub fn decode<'a, T: minicbor::Decode<'a, ()>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    Ok(minicbor::decode(bytes)?)
}

/// Cuts a byte stream into frames, holding at most one frame's limit of bytes and what was pushed last.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    consumed: usize,
    limit: usize,
}

impl FrameBuffer {
    /// A buffer for frames of at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            consumed: 0,
            limit,
        }
    }

    /// Appends bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.consumed);
        self.consumed = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The body of the next whole frame, if it has arrived.
    ///
    /// # Errors
    /// If the frame announces more than the limit; the stream is then useless.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, DecodeError> {
        let Some((header, rest)) = self.bytes[self.consumed..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length > self.limit {
            return Err(DecodeError::TooLong {
                length,
                limit: self.limit,
            });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.consumed + 4;
        self.consumed = start + length;
        Ok(Some(&self.bytes[start..start + length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let stream: Vec<u8> = [encode_frame(&"one"), encode_frame(&"two")].concat();
        for cut in 0..=stream.len() {
            let mut buffer = FrameBuffer::new(16);
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                buffer.push(part);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    seen.push(decode::<String>(frame).unwrap());
                }
            }
            assert_eq!(seen, ["one", "two"], "cut at {cut}");
        }
    }

    #[test]
    fn a_long_frame_is_refused_before_it_is_buffered() {
        let mut buffer = FrameBuffer::new(16);
        buffer.push(&17u32.to_be_bytes());
        assert!(matches!(
            buffer.next_frame(),
            Err(DecodeError::TooLong { length: 17, limit: 16 })
        ));
    }
}
