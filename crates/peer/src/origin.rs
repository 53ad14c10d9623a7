//! Reading the registry: stripes over parallel connections into the file, then each piece hashed in order from the page cache.
//!
//! Bytes of the registry are not proven until the prefix before them has been hashed, so they are staged in the blob's file
//! without a bit, which costs no memory, and settled when their midstate is known.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use admin::metrics::ReceivedFrom;
use bytes::Bytes;
use piece::{Digest, NodeId, PieceIndex};
use registry::RegistryError;
use store::{BlobFile, Settled, StoreError};
use swarm::node::Input;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use wire::control::Failure;

use crate::opening::{self, Opened, Opening};
use crate::pacing::Pace;
use crate::parts::{Parts, storage_failure};
use crate::striping::{Arriving, Stripes};
use crate::width::Width;

/// Ranges that wait for a reading; the machine asks for a few at a time.
const RANGES: usize = 64;
/// Bytes gathered before they go to the file.
const STAGE: usize = 1 << 20;

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
                let unproven = matches!(error, ReadError::WrongDigest);
                let input = Input::ReadFailed {
                    digest,
                    failure,
                    unproven,
                };
                parts.engine.tell(input).await;
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

async fn read(
    parts: &Arc<Parts>,
    opening: &Opening,
    mut queue: mpsc::Receiver<(PieceIndex, u32)>,
) -> Result<(), ReadError> {
    let (opened, blob) = opening::open(parts, opening).await?;
    let mut width = Width::new(opened.connections(opening.connections));
    let (mut stripes, mut arriving) = (Stripes::new(opening.stripe), Arriving::new(blob.geometry()));
    let (progress, mut arrived) = mpsc::channel(RANGES);
    let (staged, to_settle) = mpsc::channel(RANGES);
    let (mut reading, mut settling) = (JoinSet::new(), JoinSet::new());
    settling.spawn(settle(Arc::clone(parts), blob.digest, to_settle));
    loop {
        while reading.len() < width.connections()
            && let Some(stripe) = stripes.next()
        {
            let file = parts.file(&blob.digest).ok_or(ReadError::NotOpen)?;
            reading.spawn(stage(Arc::clone(parts), opened.clone(), file, stripe, progress.clone()));
        }
        tokio::select! {
            range = queue.recv() => {
                let Some((first, count)) = range else { return Ok(()) };
                let file = parts.file(&blob.digest).ok_or(ReadError::NotOpen)?;
                if let Some(resume) = opening.lease.resume {
                    // Already known if the swarm brought it; a contradiction shows when the prefix is settled.
                    let _ = file.learn(resume.boundary, resume.midstate);
                }
                stripes.push(arriving.expect(first, count));
            }
            Some(result) = reading.join_next() => {
                let (bytes, time) = result.map_err(|_| ReadError::Task)??;
                stripes.took(bytes, time);
                width.took(bytes, time);
            }
            Some(bytes) = arrived.recv() => {
                for piece in arriving.arrived(&bytes) {
                    // Nobody settles any more only after an error, which comes next.
                    let _ = staged.send(piece).await;
                }
            }
            Some(result) = settling.join_next() => result.map_err(|_| ReadError::Task)??,
        }
    }
}

/// Reads one stripe into the file, and says of what it has written. Gives its length and how long it took.
async fn stage(
    parts: Arc<Parts>,
    opened: Opened,
    file: BlobFile,
    stripe: Range<u64>,
    progress: mpsc::Sender<Range<u64>>,
) -> Result<(u64, Duration), ReadError> {
    let (begun, mut at) = (Instant::now(), stripe.start);
    let mut source = match opened {
        Opened::Blob(reader) => Source::Registry(Box::new(reader.read(stripe.clone()).await?)),
        Opened::Manifest(body) => Source::Body(Some(body.slice(stripe.start as usize..stripe.end as usize))),
    };
    loop {
        let chunk = source.next(STAGE, &parts.pacing.registry).await?;
        if chunk.is_empty() {
            return Ok((stripe.end - stripe.start, begun.elapsed()));
        }
        let written = at..at + write(&parts, &file, at, chunk).await?;
        at = written.end;
        if progress.send(written).await.is_err() {
            // The reading has ended.
            return Ok((at - stripe.start, begun.elapsed()));
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
    /// The next bytes, about `most` of them unless the end is nearer; empty at the end. The registry's limit is kept by not
    /// reading on.
    async fn next(&mut self, most: usize, pace: &Pace) -> Result<Vec<u8>, RegistryError> {
        match self {
            Self::Body(body) => Ok(body.take().map(Vec::from).unwrap_or_default()),
            Self::Registry(stream) => {
                let mut gathered = Vec::with_capacity(most);
                while gathered.len() < most {
                    match stream.next().await {
                        Some(chunk) => {
                            let chunk = chunk?;
                            gathered.extend_from_slice(&chunk);
                            pace.pass(chunk.len()).await;
                        }
                        None => break,
                    }
                }
                Ok(gathered)
            }
        }
    }
}

/// Settles pieces as they are staged, each as soon as the midstate at its start is known.
async fn settle(parts: Arc<Parts>, digest: Digest, mut to_settle: mpsc::Receiver<PieceIndex>) -> Result<(), ReadError> {
    let mut staged = BTreeSet::new();
    while let Some(piece) = to_settle.recv().await {
        staged.insert(piece);
        while let Ok(piece) = to_settle.try_recv() {
            staged.insert(piece);
        }
        for piece in staged.clone() {
            if settle_one(&parts, digest, piece).await? {
                staged.remove(&piece);
            }
        }
    }
    Ok(())
}

/// Whether a staged piece could be settled.
async fn settle_one(parts: &Arc<Parts>, digest: Digest, piece: PieceIndex) -> Result<bool, ReadError> {
    let file = parts.file(&digest).ok_or(ReadError::NotOpen)?;
    let settled = spawn_blocking(move || file.settle(piece)).await;
    match settled.map_err(|_| ReadError::Task)?? {
        Settled::Good { .. } => {
            parts.watches.tell(&digest, |seen| seen.gained += 1);
            parts.engine.tell(Input::Settled { digest, piece }).await;
            Ok(true)
        }
        Settled::StartUnknown => Ok(false),
        Settled::WrongDigest => {
            distrust(Arc::clone(parts), digest, None);
            Err(ReadError::WrongDigest)
        }
        Settled::Contradiction { voucher, .. } => {
            if let Some(signer) = voucher {
                parts.engine.tell(Input::Forged { digest, signer }).await;
            }
            distrust(Arc::clone(parts), digest, None);
            Err(ReadError::WrongDigest)
        }
    }
}

/// Drops what was vouched for, and everything that stood on it; the blob begins again.
pub(crate) fn distrust(parts: Arc<Parts>, digest: Digest, unblamed: Option<NodeId>) {
    spawn_blocking(move || {
        let Some(file) = parts.file(&digest) else { return };
        let (blob, media_type) = (file.blob(), file.media_type());
        if file.is_complete() {
            let bits = file.bitfield();
            return parts.engine.tell_blocking(Input::Opened { blob, bits, media_type });
        }
        tracing::warn!(%digest, "the chain does not close with the midstates that were vouched for: the blob is discarded");
        parts.files.forget(&digest);
        let evidence = match file.discard() {
            Ok(mut runs) => {
                runs.retain(|run| Some(run.signer()) != unblamed);
                runs
            }
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
