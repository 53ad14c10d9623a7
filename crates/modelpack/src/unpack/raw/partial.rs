//! A raw layer's unfinished file: `partial/HEX`, whose length says how far it has come.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use bytes::Bytes;
use piece::Digest;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{Pending, Work};
use crate::unpack::error::UnpackError;
use crate::unpack::local::hash_first;
use crate::unpack::plan::{Target, one_file};
use crate::unpack::shared::Progress;
use crate::unpack::tree::set_attributes;
use crate::unpack::{How, Summary};

/// A content on its way.
pub(super) struct Partial {
    work: Work,
    name: String,
    file: File,
    hasher: Sha256,
    pub(super) len: u64,
    progress: Progress,
}

/// What became of a [`Partial`] when the stream ended.
pub(super) enum Received {
    Proven(Partial),
    Cut { missing: u64 },
    Other(Partial),
}

impl Partial {
    /// The unfinished file of this content, with what is already in it.
    pub(super) fn open(work: Work, mut progress: Progress) -> Result<Self, UnpackError> {
        let name = work.blob.digest.hex();
        let failed = |doing| work.shared.tree.failed(doing, &format!(".packswarm/partial/{name}"));
        let mut file = work.shared.tree.open_partial(&name).map_err(failed("open"))?;
        if file.metadata().map_err(failed("read"))?.len() > work.blob.size {
            file.set_len(0).map_err(failed("truncate"))?;
        }
        let hashed = hash_first(&file, work.blob.size, |bytes| progress.add(bytes));
        let (hasher, len) = hashed.map_err(failed("read"))?;
        if len < work.blob.size {
            reserve(&file, len, work.blob.size).map_err(failed("reserve space for"))?;
        }
        file.seek(SeekFrom::Start(len)).map_err(failed("read"))?;
        if len > 0 {
            progress.reset(len);
        }
        Ok(Self {
            work,
            name,
            file,
            hasher,
            len,
            progress,
        })
    }

    /// Writes and hashes until the blob is complete or the stream has ended.
    pub(super) fn receive(mut self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Received, UnpackError> {
        let size = self.work.blob.size;
        while self.len < size {
            let Some(chunk) = chunks.blocking_recv() else {
                return Ok(Received::Cut {
                    missing: size - self.len,
                });
            };
            self.file
                .write_all(&chunk)
                .map_err(|error| self.failed("write", error))?;
            self.hasher.update(&chunk);
            self.len += chunk.len() as u64;
            self.progress.add(chunk.len() as u64);
        }
        let proven = self.digest() == self.work.blob.digest;
        Ok(if proven {
            Received::Proven(self)
        } else {
            Received::Other(self)
        })
    }

    /// Gives the file its name, and copies it to the other places that want it.
    pub(super) fn place(self, first: Target, others: Vec<Pending>) -> Result<Summary, UnpackError> {
        let finished = set_attributes(&self.file, first.attributes).and_then(|()| self.file.sync_all());
        finished.map_err(|error| self.failed("write", error))?;
        let tree = &self.work.shared.tree;
        tree.place_partial(&self.name, &first.path)
            .map_err(tree.failed("put in place", first.path.as_str()))?;
        self.work.record(&first)?;
        let mut summary = one_file(self.work.blob.size);
        self.progress.done(How::Streamed);
        summary.add(self.work.copy_from(&first, others)?);
        Ok(summary)
    }

    pub(super) fn restart(mut self) -> Result<Self, UnpackError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|error| self.failed("truncate", error))?;
        self.hasher = Sha256::new();
        self.len = 0;
        self.progress.reset(0);
        Ok(self)
    }

    /// Removes the wrong bytes; returns the error that says so.
    pub(super) fn discard(self) -> Result<UnpackError, UnpackError> {
        self.work
            .shared
            .tree
            .remove_partial(&self.name)
            .map_err(|error| self.failed("remove", error))?;
        let what = format!("the file fetched as {}", self.work.blob.digest);
        Ok(UnpackError::Mismatch {
            what,
            expected: self.work.blob.digest,
            found: self.digest(),
        })
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> UnpackError {
        self.work
            .shared
            .tree
            .failed(doing, &format!(".packswarm/partial/{}", self.name))(source)
    }
}

/// Reserves the blocks that are to come, so that a full disk is known before the first byte is fetched. The length stays:
/// it says how far the file has come.
fn reserve(file: &File, from: u64, to: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, to - from) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
        // File systems without it, such as NFS: the space is taken as it is written.
        Ok(()) | Err(_) => Ok(()),
    }
}
