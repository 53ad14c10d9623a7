//! Reading the registry: parallel ranges into the file, then each piece hashed in order from the page cache.
//!
//! Bytes of the registry are not proven until the prefix before them has been hashed, so they are staged in the blob's file
//! without a bit, which costs no memory, and settled when their midstate is known.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use admin::metrics::ReceivedFrom;
use bytes::Bytes;
use piece::{Blob, Digest, NodeId, PieceIndex};
use registry::{BlobReader, RegistryError};
use store::{BlobFile, Settled, StoreError};
use swarm::node::Input;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use wire::control::{Failure, Kind, Lease};

use crate::parts::{Parts, storage_failure};

/// Ranges that wait for a reading; the machine asks for a few at a time.
const RANGES: usize = 64;
/// Bytes gathered before they go to the file.
const STAGE: usize = 1 << 20;

/// What is to be opened at the registry.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) digest: Digest,
    pub(crate) size: Option<u64>,
    pub(crate) lease: Lease,
    /// The bytes that are wanted first.
    pub(crate) first: Range<u64>,
}

/// The readings of this node.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    open: HashMap<Digest, Reading>,
}

#[derive(Debug)]
struct Reading {
    ranges: mpsc::Sender<(PieceIndex, u32)>,
    task: AbortHandle,
}

impl Origins {
    /// Begins a reading in a task of its own.
    pub(crate) fn open(&mut self, parts: &Arc<Parts>, opening: Opening) {
        let (ranges, queue) = mpsc::channel(RANGES);
        let digest = opening.digest;
        parts.leases.set(digest, opening.lease.epoch);
        let parts = Arc::clone(parts);
        let task = tokio::spawn(async move {
            if let Err(error) = read(&parts, &opening, queue).await {
                let failure = error.failure(&opening);
                tracing::warn!(%digest, registry = opening.lease.source.repository.registry, reason = failure.message, "reading the registry failed");
                parts.engine.tell(Input::ReadFailed { digest, failure }).await;
            }
        });
        if let Some(old) = self.open.insert(
            digest,
            Reading {
                ranges,
                task: task.abort_handle(),
            },
        ) {
            old.task.abort();
        }
    }

    /// Asks for a range. The queue is longer than the machine's window, so it cannot be full.
    pub(crate) fn read(&mut self, digest: &Digest, first: PieceIndex, count: u32) {
        if let Some(reading) = self.open.get(digest)
            && reading.ranges.try_send((first, count)).is_err()
        {
            tracing::debug!(%digest, "a range was asked of a reading that has ended");
        }
    }

    /// Ends a reading: no further range; what is staged already may settle.
    pub(crate) fn close(&mut self, digest: &Digest) {
        if let Some(reading) = self.open.remove(digest) {
            reading.task.abort();
        }
    }

    pub(crate) fn close_all(&mut self) {
        self.open.drain().for_each(|(_, reading)| reading.task.abort());
    }
}

/// Under which epoch this node signs what it has read.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    epochs: Mutex<HashMap<Digest, u64>>,
}

impl Leases {
    fn set(&self, digest: Digest, epoch: u64) {
        self.epochs
            .lock()
            .expect("no holder of this lock panics")
            .insert(digest, epoch);
    }

    pub(crate) fn epoch_of(&self, digest: &Digest) -> Option<u64> {
        self.epochs
            .lock()
            .expect("no holder of this lock panics")
            .get(digest)
            .copied()
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.epochs
            .lock()
            .expect("no holder of this lock panics")
            .remove(digest);
    }
}

/// Why a reading ended early, by whose fault.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the registry's bytes have another digest than was asked for")]
    WrongDigest,
    #[error("the store no longer has the blob open")]
    NotOpen,
    #[error("a task of this node ended unexpectedly")]
    Task,
}

impl ReadError {
    fn failure(&self, opening: &Opening) -> Failure {
        let (digest, repository) = (&opening.digest, &opening.lease.source.repository);
        let at = format!("reading {digest} of {}/{}", repository.registry, repository.name);
        match self {
            Self::Registry(error) => error.to_failure(),
            Self::Store(error) => storage_failure(error),
            Self::WrongDigest | Self::NotOpen | Self::Task => Failure {
                status: 502,
                message: format!("{at}: {self}"),
                retry_after: None,
                challenge: None,
            },
        }
    }
}

/// What the registry opened: a blob to read in ranges, or a manifest that came whole.
#[derive(Clone)]
enum Opened {
    Blob(Arc<BlobReader>),
    Manifest(Bytes),
}

async fn read(
    parts: &Arc<Parts>,
    opening: &Opening,
    mut queue: mpsc::Receiver<(PieceIndex, u32)>,
) -> Result<(), ReadError> {
    let opened = open(parts, opening).await?;
    let (digest, lease) = (opening.digest, &opening.lease);
    let mut staging = JoinSet::new();
    let (staged_in, mut staged_out) = mpsc::channel(RANGES);
    let mut staged = BTreeSet::new();
    loop {
        tokio::select! {
            range = queue.recv() => {
                let Some((first, count)) = range else { return Ok(()) };
                let file = parts.file(&digest).ok_or(ReadError::NotOpen)?;
                if let Some(resume) = lease.resume {
                    // Already known if the swarm brought it; a contradiction shows when the prefix is settled.
                    let _ = file.learn(resume.boundary, resume.midstate);
                }
                staging.spawn(stage(Arc::clone(parts), opened.clone(), file, first, count, staged_in.clone()));
            }
            Some(result) = staging.join_next() => result.map_err(|_| ReadError::Task)??,
            Some(piece) = staged_out.recv() => {
                staged.insert(piece);
                while let Ok(piece) = staged_out.try_recv() {
                    staged.insert(piece);
                }
                settle(parts, digest, &mut staged).await?;
            }
        }
    }
}

async fn open(parts: &Arc<Parts>, opening: &Opening) -> Result<Opened, ReadError> {
    let Opening {
        digest,
        size,
        lease,
        first,
    } = opening.clone();
    let source = &lease.source;
    let (opened, blob, media_type, access, sequential) = match source.kind {
        Kind::Blob => {
            let reader = parts.registry.blob(source, &digest, size, first).await?;
            let (size, access, sequential) = (reader.size(), reader.access(), !reader.supports_ranges());
            (
                Opened::Blob(Arc::new(reader)),
                Blob { digest, size },
                None,
                access,
                sequential,
            )
        }
        Kind::Manifest => {
            let manifest = parts.registry.manifest(&source.repository, &digest.to_string()).await?;
            let blob = Blob {
                digest,
                size: manifest.body.len() as u64,
            };
            (
                Opened::Manifest(manifest.body.into()),
                blob,
                Some(manifest.media_type),
                manifest.access,
                false,
            )
        }
    };
    parts.learn_access(digest, Some(lease.source.clone()), access);
    parts
        .engine
        .tell(Input::OriginOpened {
            blob,
            media_type,
            access,
            sequential,
        })
        .await;
    Ok(opened)
}

/// Reads one range of pieces into the file, and says of each piece when it is all there.
async fn stage(
    parts: Arc<Parts>,
    opened: Opened,
    file: BlobFile,
    first: PieceIndex,
    count: u32,
    staged: mpsc::Sender<PieceIndex>,
) -> Result<(), ReadError> {
    let geometry = file.blob().geometry();
    let pieces: Vec<PieceIndex> = (first.get()..first.get() + count)
        .filter_map(|number| geometry.piece(number))
        .collect();
    let (Some(start), Some(end)) = (pieces.first(), pieces.last()) else {
        return Ok(());
    };
    let range = geometry.range(*start).start..geometry.range(*end).end;
    let mut at = range.start;
    let mut done = pieces.into_iter().peekable();
    let mut source = match opened {
        Opened::Blob(reader) => Source::Registry(Box::new(reader.read(range).await?)),
        Opened::Manifest(body) => Source::Body(Some(body)),
    };
    loop {
        let chunk = source.next(STAGE).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        at += write(&parts, &file, at, chunk).await?;
        while let Some(piece) = done.next_if(|piece| geometry.range(*piece).end <= at) {
            if staged.send(piece).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn write(parts: &Parts, file: &BlobFile, at: u64, chunk: Vec<u8>) -> Result<u64, ReadError> {
    let (file, len) = (file.clone(), chunk.len() as u64);
    parts.metrics.received_bytes(ReceivedFrom::Registry, len);
    spawn_blocking(move || file.stage(at, &chunk))
        .await
        .map_err(|_| ReadError::Task)??;
    Ok(len)
}

/// Where the bytes of a range come from.
enum Source {
    Registry(Box<registry::RangeStream>),
    Body(Option<Bytes>),
}

impl Source {
    /// The next bytes, about `most` of them unless the end is nearer; empty at the end.
    async fn next(&mut self, most: usize) -> Result<Vec<u8>, RegistryError> {
        match self {
            Self::Body(body) => Ok(body.take().map(Vec::from).unwrap_or_default()),
            Self::Registry(stream) => {
                let mut gathered = Vec::with_capacity(most);
                while gathered.len() < most {
                    match stream.next().await {
                        Some(chunk) => gathered.extend_from_slice(&chunk?),
                        None => break,
                    }
                }
                Ok(gathered)
            }
        }
    }
}

/// Settles every staged piece whose start is known.
async fn settle(parts: &Arc<Parts>, digest: Digest, staged: &mut BTreeSet<PieceIndex>) -> Result<(), ReadError> {
    for piece in staged.clone() {
        let file = parts.file(&digest).ok_or(ReadError::NotOpen)?;
        match spawn_blocking(move || file.settle(piece))
            .await
            .map_err(|_| ReadError::Task)??
        {
            Settled::Good { .. } => {
                staged.remove(&piece);
                parts.watches.tell(&digest, |seen| seen.gained += 1);
                parts.engine.tell(Input::Settled { digest, piece }).await;
            }
            Settled::StartUnknown => {}
            Settled::WrongDigest => {
                distrust(Arc::clone(parts), digest);
                return Err(ReadError::WrongDigest);
            }
            Settled::Contradiction { voucher, .. } => {
                if let Some(signer) = voucher {
                    parts.engine.tell(Input::Forged { digest, signer }).await;
                }
                distrust(Arc::clone(parts), digest);
                return Err(ReadError::WrongDigest);
            }
        }
    }
    Ok(())
}

/// Drops what was vouched for, and everything that stood on it; the blob begins again.
pub(crate) fn distrust(parts: Arc<Parts>, digest: Digest) {
    spawn_blocking(move || {
        let Some(file) = parts.file(&digest).filter(|file| !file.is_complete()) else {
            return;
        };
        let (blob, media_type) = (file.blob(), file.media_type());
        tracing::warn!(%digest, "the chain does not close with the midstates that were vouched for: the blob is discarded");
        parts.files.forget(&digest);
        let evidence = match file.discard() {
            Ok(runs) => runs,
            Err(error) => {
                tracing::error!(%digest, %error, "a doubted blob could not be discarded");
                return;
            }
        };
        let mut vouchers: Vec<NodeId> = evidence.iter().map(piece::SignedRun::signer).collect();
        vouchers.sort_unstable();
        vouchers.dedup();
        parts.suspects.keep(digest, evidence);
        // Bytes of it may be on their way to clients: those streams must not be completed.
        let cut = Failure {
            status: 502,
            message: format!("the midstates that were vouched for do not prove {digest}; it is fetched afresh"),
            retry_after: Some(1),
            challenge: None,
        };
        parts.watches.tell(&digest, |seen| seen.fail(cut));
        parts.trust.remove(&digest, &vouchers);
        match parts.store.begin(blob, media_type.as_deref()) {
            Ok(file) => {
                parts.files.keep(file.clone());
                let bits = file.bitfield();
                parts
                    .engine
                    .tell_blocking(Input::ChainBroken { digest, bits, vouchers });
            }
            Err(error) => {
                let failure = storage_failure(&error);
                parts.engine.tell_blocking(Input::OpenFailed { digest, failure });
            }
        }
    });
}
