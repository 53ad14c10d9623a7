//! Unpacking an artifact into a directory.
//!
//! A plan turns layers into jobs: a raw layer is one file (or several with the same content), a packed one a tree of
//! them. Jobs run side by side; each has an async half, which pulls bytes from the [`Fetch`], and a blocking half, which
//! hashes and writes them. The two share a bounded channel, so neither memory nor a slow disk runs away.

mod archive;
mod claims;
mod entry;
mod error;
mod gauge;
mod journal;
mod local;
mod packed;
mod plan;
mod raw;
mod shared;
mod tree;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use piece::Digest;
use tokio::sync::mpsc;

pub use error::{Refusal, UnpackError};

use crate::{Artifact, Config, Fetch, Include};
use plan::{Job, Plan};
use shared::{Shared, blocking};

/// Events on their way to the caller; a worker that reports faster waits.
const EVENTS: usize = 256;
/// Chunks between a stream and its worker. With a socket's usual 16..64 KiB each, about a MiB.
const CHUNKS: usize = 32;
/// How often a blob whose streams broke, and then did not come out right, is read again from its beginning.
const ANEW: usize = 2;
/// Most layers at a time, whatever is asked for: each holds a thread, a few buffers and up to 128 MiB of zstd window.
const MAX_CONCURRENCY: usize = 64;

/// How to unpack.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to take. A packed layer is fetched unless it surely has nothing that matches: its path annotation is a single
    /// file's (as its metadata tells) and does not match, or it is a directory's and the patterns' fixed beginnings lie
    /// elsewhere. Of its entries, only those that match are written. Default: everything.
    pub include: Include,
    /// Hard-link raw layers from a local store. They share their inode with it: they keep the store's mode and time, and
    /// whoever writes to them spoils the store. Default: false (reflink, else copy).
    pub link: bool,
    /// Layers at a time, 1..=64. Default: 4.
    pub concurrency: usize,
    /// What an artifact may at most make of itself.
    pub limits: Limits,
    /// How long to keep trying.
    pub patience: Patience,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            include: Include::all(),
            link: false,
            concurrency: 4,
            limits: Limits::default(),
            patience: Patience::default(),
        }
    }
}

/// Bounds on what packed layers may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries of all archives together. Default: 1,000,000.
    pub entries: u64,
    /// Bytes of all their names and link targets together, which are in memory until their layer is proven. Default:
    /// 256 MiB, a million of 256.
    pub names: u64,
    /// How many times its own size an archive may have when unpacked. Default: 200; weights hardly compress at all.
    pub expansion: u64,
    /// Bytes that all archives together may have beyond that, so that small ones may be mostly zeros. Default: 1 GiB.
    pub expansion_slack: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            names: 256 << 20,
            expansion: 200,
            expansion_slack: 1 << 30,
        }
    }
}

/// How long to keep trying when the source fails.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts in a row that bring not a byte. Default: 6.
    pub attempts: u32,
    /// Pause after the first failure; it doubles up to 10 s. Default: 250 ms.
    pub pause: Duration,
    /// Longest wait for the next byte. Default: 120 s.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            pause: Duration::from_millis(250),
            stall: Duration::from_secs(120),
        }
    }
}

/// What happens, for progress displays. An *item* is a file of a raw layer, or a whole packed layer; its size and
/// progress are those of the blob, so the sum over all items is what [`Event::Planned`] said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first event: how much there is to put in place.
    Planned {
        /// Number of items.
        items: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Work on an item begins.
    FileStarted {
        /// Its path, or a packed layer's name.
        path: Arc<str>,
        /// Its bytes.
        size: u64,
    },
    /// Some of an item is here. At most one per MiB and item.
    Progress {
        /// As in `FileStarted`.
        path: Arc<str>,
        /// Bytes so far, those of earlier runs included.
        bytes: u64,
    },
    /// An item is in place.
    FileDone {
        /// As in `FileStarted`.
        path: Arc<str>,
        /// How it got there.
        how: How,
    },
    /// The last event: everything is in place and on disk.
    Done(Summary),
}

/// How an item got to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// Hard-linked from a local store.
    Linked,
    /// Reflinked: the same blocks on disk until one side writes.
    Reflinked,
    /// Copied or unpacked from a local file.
    Copied,
    /// Streamed through [`Fetch::open`].
    Streamed,
    /// It was there already.
    Present,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files in place, those of earlier runs included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blob bytes that came through [`Fetch::open`].
    pub streamed: u64,
    /// Bytes that did not have to: from earlier runs or a local store.
    pub reused: u64,
}

/// Unpacks `artifact` into `dest`, creating it if need be. Files of the same name are replaced, others left alone.
///
/// Whatever stops it (an error, a dropped future, kill -9), calling it again continues: raw layers at the byte where they
/// stopped, a packed layer from its beginning. Called once more after success, it asks for nothing: a file counts as
/// unchanged while its size and modification time are those that were recorded.
///
/// # Errors
/// The first thing that went wrong; what was finished by then stays, nothing unproven does.
pub async fn unpack<F: Fetch>(
    artifact: &Artifact,
    config_bytes: &[u8],
    dest: &Path,
    options: Options,
    fetch: &F,
    events: impl Fn(Event) + Send + Sync,
) -> Result<Summary, UnpackError> {
    let config = proven_config(artifact, config_bytes)?;
    let plan = Plan::new(artifact, &config, &options)?;
    let (reporter, mut reports) = mpsc::channel(EVENTS);
    events(Event::Planned {
        items: plan.items,
        bytes: plan.bytes,
    });
    let patience = options.patience;
    let width = options.concurrency.clamp(1, MAX_CONCURRENCY);
    let digests = artifact.layers.iter().map(|layer| layer.blob.digest).collect();
    let claims = plan.claims;
    let dest = dest.to_owned();
    let shared = blocking(move || Shared::open(&dest, options, claims, &digests, reporter)).await?;

    let mut jobs = stream::iter(plan.jobs)
        .map(|job| run(&shared, fetch, &patience, job))
        .buffer_unordered(width);
    let mut total = Summary::default();
    let outcome = loop {
        tokio::select! {
            Some(event) = reports.recv() => events(event),
            done = jobs.next() => match done {
                Some(Ok(tally)) => total.add(tally),
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
        }
    };
    drop(jobs);
    let finished = match outcome {
        Ok(()) => {
            let shared = shared.clone();
            blocking(move || shared.finish()).await
        }
        Err(error) => Err(error),
    };
    // Each blocking half holds `shared`, and with it the sender: the channel ends when the last of them has stopped, so
    // the lock on the destination is free once this function returns.
    drop(shared);
    while let Some(event) = reports.recv().await {
        events(event);
    }
    finished?;
    let summary = total;
    events(Event::Done(summary));
    Ok(summary)
}

async fn run<F: Fetch>(shared: &Arc<Shared>, fetch: &F, patience: &Patience, job: Job) -> Result<Summary, UnpackError> {
    match job {
        Job::Raw(job) => raw::run(shared, fetch, patience, job).await,
        Job::Packed(job) => packed::run(shared, fetch, patience, job).await,
    }
}

fn proven_config(artifact: &Artifact, bytes: &[u8]) -> Result<Config, UnpackError> {
    let found = Digest::of(bytes);
    if found != artifact.config.digest {
        let what = "the model config".to_owned();
        return Err(UnpackError::Mismatch {
            what,
            expected: artifact.config.digest,
            found,
        });
    }
    Config::parse(bytes).map_err(UnpackError::Config)
}
