//! Bytes that are served: held, read from a file, or computed.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use piece::Digest;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::Digest as _;

/// Read, hashed and sent at a time.
pub(crate) const CHUNK: usize = 256 << 10;

/// A blob: its digest, its size, and where its bytes come from. Clones share them.
#[derive(Debug, Clone)]
pub struct Content {
    digest: Digest,
    size: u64,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Bytes),
    File(Arc<PathBuf>),
    /// A head, and random bytes behind it that are computed when they are read.
    Generated {
        head: Bytes,
        seed: u64,
        stream: u64,
    },
}

impl Content {
    /// These bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            source: Source::Bytes(bytes),
        }
    }

    /// A file, which must not change from now on. Reads it once, for its digest.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let size = std::fs::metadata(&path)?.len();
        Self::hashed(size, Source::File(Arc::new(path)))
    }

    /// `head`, then random bytes up to `size`: always the same for the same `seed` and `stream`. Computes them once, for
    /// their digest, in constant memory.
    pub fn generated(head: impl Into<Bytes>, size: u64, seed: u64, stream: u64) -> Self {
        let head = head.into();
        let size = size.max(head.len() as u64);
        Self::hashed(size, Source::Generated { head, seed, stream }).expect("computing bytes does no I/O")
    }

    fn hashed(size: u64, source: Source) -> io::Result<Self> {
        let mut content = Self {
            digest: Digest::EMPTY,
            size,
            source,
        };
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < size {
            let part = &mut buffer[..chunk_len(at, size)];
            content.read_at(at, part)?;
            hasher.update(&*part);
            at += part.len() as u64;
        }
        content.digest = Digest::from_bytes(hasher.finalize().into());
        Ok(content)
    }

    /// Its digest.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` with the bytes from `offset`; they must all be inside the content.
    ///
    /// # Errors
    /// If its file cannot be read, or has become shorter.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.source {
            Source::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
            Source::File(path) => {
                let mut file = std::fs::File::open(&**path)?;
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(buffer)?;
            }
            Source::Generated { head, seed, stream } => {
                let in_head = head
                    .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
                    .unwrap_or_default();
                let (first, rest) = buffer.split_at_mut(in_head.len().min(buffer.len()));
                first.copy_from_slice(&in_head[..first.len()]);
                random_at(*seed, *stream, offset + first.len() as u64, rest);
            }
        }
        Ok(())
    }

    /// The bytes from `offset` to `end`, but no more than a chunk, without blocking the async runtime.
    pub(crate) async fn chunk(&self, offset: u64, end: u64) -> io::Result<Bytes> {
        let length = chunk_len(offset, end);
        if let Source::Bytes(bytes) = &self.source {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            return Ok(bytes.slice(start..start + length));
        }
        let content = self.clone();
        let read = move || {
            let mut buffer = vec![0; length];
            content.read_at(offset, &mut buffer).map(|()| Bytes::from(buffer))
        };
        if matches!(self.source, Source::File(_)) {
            return tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
        }
        // A chunk is computed in some hundred microseconds.
        read()
    }
}

fn chunk_len(at: u64, end: u64) -> usize {
    usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK)
}

/// The bytes at `offset` of a random stream that can be entered anywhere.
fn random_at(seed: u64, stream: u64, offset: u64, buffer: &mut [u8]) {
    const WORD: u64 = 4;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng.set_word_pos(u128::from(offset / WORD));
    let skipped = usize::try_from(offset % WORD).expect("less than a word");
    if skipped == 0 {
        return rng.fill_bytes(buffer);
    }
    let mut word = [0; WORD as usize];
    rng.fill_bytes(&mut word);
    let (first, rest) = buffer.split_at_mut(buffer.len().min(word.len() - skipped));
    first.copy_from_slice(&word[skipped..skipped + first.len()]);
    rng.fill_bytes(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &Content, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        content.read_at(offset, &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn generated_bytes_are_the_same_wherever_they_are_entered() {
        let content = Content::generated(&b"head"[..], 100_000, 7, 1);
        let all = read(&content, 0, 100_000);
        assert_eq!(Digest::of(&all), content.digest());
        assert!(all.starts_with(b"head"));
        for offset in (0..40).chain([63, 64, 65, 4095, 65_537, 99_990]) {
            for length in [0, 1, 2, 3, 5, 10] {
                assert_eq!(
                    read(&content, offset, length),
                    all[offset as usize..][..length],
                    "{offset} {length}"
                );
            }
        }
        assert_eq!(
            Content::generated(&b"head"[..], 100_000, 7, 1).digest(),
            content.digest()
        );
        assert_ne!(
            Content::generated(&b"head"[..], 100_000, 7, 2).digest(),
            content.digest()
        );
        assert_ne!(
            Content::generated(&b"head"[..], 100_000, 8, 1).digest(),
            content.digest()
        );
    }

    #[test]
    fn files_and_bytes_agree() {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..CHUNK + 5).map(|i| i as u8).collect();
        std::fs::write(dir.path().join("f"), &data).unwrap();
        let file = Content::file(dir.path().join("f")).unwrap();
        let bytes = Content::bytes(data);
        assert_eq!((file.digest(), file.size()), (bytes.digest(), bytes.size()));
        assert_eq!(read(&file, CHUNK as u64, 5), read(&bytes, CHUNK as u64, 5));
        assert!(file.read_at(CHUNK as u64, &mut [0; 6]).is_err());
        assert!(bytes.read_at(CHUNK as u64, &mut [0; 6]).is_err());
    }
}
