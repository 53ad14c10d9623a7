//! Why an artifact could not be unpacked.

use std::io;
use std::path::PathBuf;

use piece::{Blob, Digest};

use crate::{ConfigError, FetchError, PathError};

/// Why an artifact could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The artifact's config makes no sense.
    #[error("cannot read the artifact's model config")]
    Config(#[source] ConfigError),
    /// The config and the manifest contradict each other.
    #[error("the model config has {diff_ids} diffIds for {layers} layers; the artifact was packed wrongly")]
    DiffIdCount {
        /// How many the config has.
        diff_ids: usize,
        /// How many layers there are.
        layers: usize,
    },
    /// `--include` names nothing.
    #[error("nothing in the artifact matches the patterns to include")]
    NothingIncluded,
    /// Two parts of the artifact want the same place.
    #[error("the artifact has `{path}` twice with different content ({first} and {second}); it cannot be unpacked")]
    Conflict {
        /// The place.
        path: String,
        /// Who had it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// Something in an archive that is never unpacked.
    #[error("{layer} has the entry {entry:?}, which is refused: {reason}; nothing of this layer was put in place")]
    Refused {
        /// Which layer.
        layer: String,
        /// The entry's name, as the archive has it.
        entry: String,
        /// Why.
        #[source]
        reason: Refusal,
    },
    /// An archive that is larger inside than allowed.
    #[error("{layer} is refused: {limit}")]
    Limit {
        /// Which layer.
        layer: String,
        /// Which limit, and how to raise it.
        limit: String,
    },
    /// An archive that cannot be read to its end.
    #[error("{layer} is not a valid {packing} archive")]
    Archive {
        /// Which layer.
        layer: String,
        /// What it should be.
        packing: &'static str,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// Bytes that are not those that the manifest names. None of them was put in place.
    #[error("{what} has the wrong content: expected {expected}, got {found}; the source is damaged or lies")]
    Mismatch {
        /// The config, or which file or layer.
        what: String,
        /// As the manifest (or the config, for a diffId) says.
        expected: Digest,
        /// As it came.
        found: Digest,
    },
    /// A blob could not be read.
    #[error("cannot read blob {} beyond byte {offset} of {}", blob.digest, blob.size)]
    Fetch {
        /// The blob.
        blob: Blob,
        /// How far it came.
        offset: u64,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// Another process, or another task of this one, works there.
    #[error("another pull is working in {}; wait for it, or choose another directory", dest.display())]
    Busy {
        /// The destination.
        dest: PathBuf,
    },
    /// The file system failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process is shutting down.
    #[error("unpacking was stopped because the process is shutting down; start it again to continue")]
    Stopped,
}

/// Why an archive's entry is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its path.
    #[error("{0}")]
    Path(PathError),
    /// A symbolic link's target.
    #[error("its target leads out of the directory, or could: {0}")]
    Target(PathError),
    /// A hard link to something else than a file before it.
    #[error("a hard link must name a file earlier in the same archive (and be included with it)")]
    HardLink,
    /// Device, pipe, socket.
    #[error("only files, directories and links are unpacked, no devices, pipes or others")]
    Kind,
    /// Sparse files, in any of tar's dialects.
    #[error("sparse files are not supported; pack without --sparse")]
    Sparse,
    /// A name that is not UTF-8.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// A second entry of that name with other content.
    #[error("the archive has another entry of that name")]
    Duplicate,
}
