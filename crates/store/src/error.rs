//! What goes wrong, on what, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use piece::{Blob, ChainError, Digest};

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error(
        "the data directory {} is in use by {}; give each node its own --data-dir, or stop the other one first",
        .path.display(), holder(.pid)
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other process, if it could write its number down.
        pid: Option<u32>,
    },
    /// The directory was written by a version that this one does not understand.
    #[error("{} was written by another version of packswarm ({found:?}); use that one, or an empty directory", .path.display())]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
    /// The water marks make no sense.
    #[error("the store's water marks must satisfy 0 < low ({low}) <= high ({high}) <= 1")]
    WaterMarks {
        /// The low mark as configured.
        low: f64,
        /// The high mark as configured.
        high: f64,
    },
    /// The system refuses.
    #[error("cannot {attempt} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why the store does not do something with a blob.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The quota leaves no room, even if everything that may be evicted were gone.
    #[error(
        "no room for {} ({needed} bytes with its side file): {held} of {used} bytes in the store are in use or pinned, and its \
         capacity is {capacity}; raise the store's capacity or unpin blobs", .blob.digest
    )]
    Full {
        /// The blob that was to begin.
        blob: Blob,
        /// Bytes it would count.
        needed: u64,
        /// The quota.
        capacity: u64,
        /// Bytes that count now.
        used: u64,
        /// Those of them that may not be evicted.
        held: u64,
    },
    /// The filesystem is full, whatever the quota says.
    #[error("cannot {attempt} {}: the filesystem is full; free space on it or lower the store's capacity", .path.display())]
    DiskFull {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {attempt} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The store knows this digest with another size.
    #[error("{digest} has {held} bytes in the store, but {asked} were asked for; one of two descriptors is wrong")]
    OtherSize {
        /// The blob.
        digest: Digest,
        /// Size it was begun with.
        held: u64,
        /// Size now asked for.
        asked: u64,
    },
    /// The bytes are not what the digest names.
    #[error("these bytes are not {digest}")]
    WrongContent {
        /// The digest they were given for.
        digest: Digest,
    },
    /// A piece was proven for another blob.
    #[error("a piece of {} ({} bytes) is none of {} ({} bytes)", .proven.digest, .proven.size, .blob.digest, .blob.size)]
    OtherBlob {
        /// The blob it was offered to.
        blob: Blob,
        /// The blob it was proven for.
        proven: Blob,
    },
    /// The piece is not here, or not verified.
    #[error("piece {piece} of {digest} is not here yet")]
    Missing {
        /// The blob.
        digest: Digest,
        /// The piece.
        piece: u32,
    },
    /// The range does not lie inside the blob.
    #[error("bytes {start}..{end} do not lie inside {digest}, which has {size}")]
    OutOfRange {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// First byte asked for.
        start: u64,
        /// End of what was asked for.
        end: u64,
    },
    /// A piece was to be settled before all of its bytes were staged.
    #[error("piece {piece} of {digest} is not staged whole")]
    NotStaged {
        /// The blob.
        digest: Digest,
        /// The piece.
        piece: u32,
    },
    /// The blob is still in progress, so there is no proven file to hand out.
    #[error("{digest} is not complete yet")]
    Incomplete {
        /// The blob.
        digest: Digest,
    },
    /// The blob was removed or discarded while this handle was held.
    #[error("{digest} was removed from the store meanwhile")]
    Gone {
        /// The blob.
        digest: Digest,
    },
    /// There is no such blob.
    #[error("{digest} is not in the store")]
    NotHeld {
        /// The blob.
        digest: Digest,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a midstate or a run of them was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The chain refuses it: somebody is wrong.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It could not be kept: nobody is to blame.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreError {
    /// Turns what the system says into an error about `path`.
    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if full {
                Self::DiskFull { attempt, path }
            } else {
                Self::Io { attempt, path, source }
            }
        }
    }
}

impl OpenError {
    /// Turns what the system says into an error about `path`.
    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            attempt,
            path: path.to_owned(),
            source,
        }
    }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
