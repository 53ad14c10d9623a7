//! The two ends of an archive's stream: blob bytes coming in, counted and hashed, and archive bytes coming out of the
//! decompressor, counted, hashed and limited.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use piece::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::shared::Progress;

/// Where a packed layer's bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Chunk by chunk, through a channel.
    Stream {
        chunks: mpsc::Receiver<Bytes>,
        chunk: Bytes,
    },
    /// A file of the same size in a local store.
    File(File),
}

/// A blob's bytes in order, each of them hashed.
#[derive(Debug)]
pub(super) struct Inflow {
    source: Source,
    hasher: Sha256,
    taken: u64,
    progress: Progress,
}

impl Inflow {
    pub(super) fn new(source: Source, progress: Progress) -> Self {
        Self {
            source,
            hasher: Sha256::new(),
            taken: 0,
            progress,
        }
    }

    /// Bytes read so far.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Reads what the decompressor left, and returns the digest of all.
    pub(super) fn drain(&mut self) -> io::Result<Digest> {
        io::copy(self, &mut io::sink())?;
        Ok(Digest::from_bytes(self.hasher.clone().finalize().into()))
    }

    pub(super) const fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl Read for Inflow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.source {
            Source::File(file) => file.read(buffer)?,
            Source::Stream { chunks, chunk } => {
                while !chunk.has_remaining() {
                    match chunks.blocking_recv() {
                        Some(next) => *chunk = next,
                        None => return Ok(0),
                    }
                }
                let read = chunk.len().min(buffer.len());
                chunk.copy_to_slice(&mut buffer[..read]);
                read
            }
        };
        self.hasher.update(&buffer[..read]);
        self.taken += read as u64;
        self.progress.add(read as u64);
        Ok(read)
    }
}

/// What an archive may not do, found while reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// It unpacks to more than it may.
    Expansion,
    /// One entry's headers are longer than [`MAX_HEADERS`].
    Headers,
}

/// Headers of one entry: a name, PAX records, a link. Parsers keep them in memory whole.
pub(super) const MAX_HEADERS: u64 = 1 << 20;

/// Lets the owner of an [`Outflow`] steer it while an archive reader holds it.
#[derive(Debug, Clone)]
pub(super) struct Valve {
    header_budget: Rc<Cell<u64>>,
    excess: Rc<Cell<Option<Excess>>>,
}

impl Valve {
    /// From here on, at most [`MAX_HEADERS`] may be read.
    pub(super) fn headers(&self) {
        self.header_budget.set(MAX_HEADERS);
    }

    /// From here on, only the limit on everything counts.
    pub(super) fn contents(&self) {
        self.header_budget.set(u64::MAX);
    }

    /// Why reading failed, if a limit was the reason.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess.get()
    }
}

/// An archive's bytes, after decompression.
pub(super) struct Outflow<'s, R> {
    inner: R,
    hasher: Sha256,
    left: u64,
    slack: &'s AtomicU64,
    valve: Valve,
}

impl<'s, R: Read> Outflow<'s, R> {
    /// Lets `limit` bytes through, and beyond them what is left of `slack`, which it shares with other archives.
    pub(super) fn new(inner: R, limit: u64, slack: &'s AtomicU64) -> Self {
        let valve = Valve {
            header_budget: Rc::new(Cell::new(u64::MAX)),
            excess: Rc::default(),
        };
        Self {
            inner,
            hasher: Sha256::new(),
            left: limit,
            slack,
            valve,
        }
    }

    pub(super) fn valve(&self) -> Valve {
        self.valve.clone()
    }

    /// Reads what follows the end of the archive, and returns the digest of all.
    pub(super) fn drain(&mut self) -> io::Result<Digest> {
        self.valve.contents();
        io::copy(self, &mut io::sink())?;
        Ok(Digest::from_bytes(self.hasher.clone().finalize().into()))
    }

    /// Whether this many bytes more may come.
    fn grants(&mut self, bytes: u64) -> bool {
        let own = bytes.min(self.left);
        self.left -= own;
        let take = |slack: u64| slack.checked_sub(bytes - own);
        self.slack
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn refuse(&self, excess: Excess) -> io::Error {
        self.valve.excess.set(Some(excess));
        io::Error::other("the archive exceeds a limit")
    }
}

impl<R: Read> Read for Outflow<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let budget = self.valve.header_budget.get();
        if budget == 0 {
            return Err(self.refuse(Excess::Headers));
        }
        let want = buffer.len().min(usize::try_from(budget).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..want])?;
        if !self.grants(read as u64) {
            return Err(self.refuse(Excess::Expansion));
        }
        if budget != u64::MAX {
            self.valve.header_budget.set(budget - read as u64);
        }
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
