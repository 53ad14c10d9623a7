//! A raw layer: one content, at one place or more.
//!
//! The first of these that works, cheapest first: it is there already; it is at another place of this artifact; a local
//! store has it; it is streamed, continuing an unfinished file. Bytes of an unfinished file prove nothing by being there
//! (a power cut leaves zeros), so they are hashed again, which costs less than fetching them again; should the whole then
//! not match, it is fetched once more from the beginning.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use piece::{Blob, Digest};
use rustix::fs::{FallocateFlags, Stat, fallocate};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::error::UnpackError;
use super::journal::{Key, Output};
use super::plan::{RawJob, Target, one_file};
use super::shared::{Progress, Shared, blocking};
use super::tree::{Attributes, Staged, file_size, mtime_of, set_attributes};
use super::{How, Patience, Summary, local};
use crate::fetch::pump;
use crate::{Fetch, FetchError, Mtime};

/// Chunks between the stream and the disk. With a socket's usual 16..64 KiB each, about a MiB.
pub(super) const CHUNKS: usize = 32;
/// The buffer for hashing what is on disk.
const BUFFER: usize = 256 << 10;

pub(super) async fn run<F: Fetch>(
    shared: &Arc<Shared>,
    fetch: &F,
    patience: &Patience,
    job: RawJob,
) -> Result<Summary, UnpackError> {
    let work = Work {
        shared: shared.clone(),
        blob: job.blob,
    };
    let store = fetch.local(&job.blob);
    let (mut missing, mut summary) = blocking(move || work.without_stream(job.targets, store)).await?;
    if missing.is_empty() {
        return Ok(summary);
    }
    let work = Work {
        shared: shared.clone(),
        blob: job.blob,
    };
    let label = missing[0].path.shared();
    let mut partial = blocking(move || work.open_partial(label)).await?;
    loop {
        let resumed = partial.len;
        let (sink, chunks) = mpsc::channel(CHUNKS);
        let pumping = pump(fetch, &job.blob, resumed, sink, patience);
        let (pumped, received) = tokio::join!(pumping, blocking(move || partial.receive(chunks)));
        match received? {
            Received::Proven(proven) => {
                summary.streamed += pumped?;
                summary.reused += resumed;
                let first = missing.remove(0);
                summary.add(blocking(move || proven.place(first, missing)).await?);
                return Ok(summary);
            }
            Received::Cut { missing } => {
                let offset = job.blob.size - missing;
                let cut = UnpackError::Fetch {
                    blob: job.blob,
                    offset,
                    source: FetchError::Short { missing },
                };
                return Err(pumped.err().unwrap_or(cut));
            }
            Received::Other(again) if resumed > 0 => {
                tracing::warn!(digest = %job.blob.digest, resumed, "an unfinished file was damaged; fetching it anew");
                summary.streamed += pumped?;
                partial = blocking(move || again.restart()).await?;
            }
            Received::Other(wrong) => return Err(blocking(move || wrong.discard()).await?),
        }
    }
}

/// A content and what is needed to put it in place.
struct Work {
    shared: Arc<Shared>,
    blob: Blob,
}

impl Work {
    /// Everything that can be done without asking for a byte. Returns the places that are still without their file.
    fn without_stream(
        self,
        targets: Vec<Target>,
        store: Option<PathBuf>,
    ) -> Result<(Vec<Target>, Summary), UnpackError> {
        let mut summary = Summary::default();
        let mut present = None;
        let mut missing = Vec::new();
        for target in targets {
            if self.is_present(&target)? {
                self.shared
                    .start(target.path.shared(), self.blob.size)
                    .done(How::Present);
                summary.add(one_file(self.blob.size));
                summary.reused += self.blob.size;
                present = Some(target);
            } else {
                missing.push(target);
            }
        }
        if let Some(source) = present {
            summary.add(self.copy_from(&source, std::mem::take(&mut missing))?);
        }
        if let Some(store) = store
            && !missing.is_empty()
        {
            missing.retain(|target| match self.take_from_store(&store, target) {
                Ok(()) => {
                    summary.add(one_file(self.blob.size));
                    summary.reused += self.blob.size;
                    false
                }
                Err(error) => {
                    tracing::debug!(store = %store.display(), %error, "the local store's file could not be used");
                    true
                }
            });
        }
        Ok((missing, summary))
    }

    /// Whether the target has its file, with its mode and time. Looks at the bytes only if the journal does not vouch.
    fn is_present(&self, target: &Target) -> Result<bool, UnpackError> {
        let tree = &self.shared.tree;
        let Some(stat) = tree
            .stat(&target.path)
            .filter(|stat| file_size(stat) == Some(self.blob.size))
        else {
            return Ok(false);
        };
        let recorded = self.shared.recorded(&Key::raw(&self.blob.digest, &target.path));
        let vouched = recorded.is_some_and(|outputs| outputs[..] == [self.output(target, mtime_of(&stat))]);
        if vouched && has_attributes(&stat, target.attributes) {
            return Ok(true);
        }
        let Ok(file) = tree.open_file(&target.path) else {
            return Ok(false);
        };
        if !vouched && !hash(&file, self.blob.size).is_ok_and(|(digest, _)| digest == self.blob.digest) {
            return Ok(false);
        }
        // Whoever else has a name for this inode, say a store, keeps its mode and time.
        if stat.st_nlink == 1
            && !has_attributes(&stat, target.attributes)
            && set_attributes(&file, target.attributes).is_err()
        {
            return Ok(false);
        }
        self.record(target)?;
        Ok(true)
    }

    fn take_from_store(&self, store: &Path, target: &Target) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Io {
            doing: "take from the local store",
            path: store.to_owned(),
            source,
        };
        let file = local::open(store, self.blob.size).map_err(failed)?;
        if self.shared.options.link {
            match local::link(&self.shared, store, &file) {
                Ok(staged) => {
                    let progress = self.shared.start(target.path.shared(), self.blob.size);
                    return self.put(staged, target, How::Linked, progress);
                }
                Err(error) => tracing::debug!(store = %store.display(), %error, "cannot link; copying"),
            }
        }
        self.copy(&file, target)
    }

    /// Puts further copies of a file that is in place.
    fn copy_from(&self, source: &Target, targets: Vec<Target>) -> Result<Summary, UnpackError> {
        let mut summary = Summary::default();
        if targets.is_empty() {
            return Ok(summary);
        }
        let opened = self.shared.tree.open_file(&source.path);
        let file = opened.map_err(self.shared.tree.failed("read", source.path.as_str()))?;
        for target in &targets {
            self.copy(&file, target)?;
            summary.add(one_file(self.blob.size));
            summary.reused += self.blob.size;
        }
        Ok(summary)
    }

    fn copy(&self, file: &File, target: &Target) -> Result<(), UnpackError> {
        let failed = || self.shared.tree.failed("write", target.path.as_str());
        let (staged, to) = self.shared.tree.stage().map_err(failed())?;
        let mut progress = self.shared.start(target.path.shared(), self.blob.size);
        let copied = local::copy(file, &to, self.blob.size, &mut progress)
            .and_then(|how| set_attributes(&to, target.attributes).map(|()| how))
            .and_then(|how| to.sync_all().map(|()| how));
        match copied {
            Ok(how) => self.put(staged, target, how, progress),
            Err(error) => {
                self.shared.tree.unstage(staged);
                Err(failed()(error))
            }
        }
    }

    fn put(&self, staged: Staged, target: &Target, how: How, progress: Progress) -> Result<(), UnpackError> {
        let placed = self.shared.tree.place(staged, &target.path);
        placed.map_err(self.shared.tree.failed("put in place", target.path.as_str()))?;
        self.record(target)?;
        progress.done(how);
        Ok(())
    }

    /// Notes the file at the target, as it is now.
    fn record(&self, target: &Target) -> Result<(), UnpackError> {
        let Some(stat) = self.shared.tree.stat(&target.path) else {
            return Ok(());
        };
        let output = self.output(target, mtime_of(&stat));
        self.shared
            .record(Key::raw(&self.blob.digest, &target.path), vec![output])
    }

    fn output(&self, target: &Target, mtime: Mtime) -> Output {
        Output::File {
            path: target.path.clone(),
            size: self.blob.size,
            mtime,
        }
    }

    /// The unfinished file of this content, with what is already in it.
    fn open_partial(self, label: Arc<str>) -> Result<Partial, UnpackError> {
        let name = self.blob.digest.hex();
        let failed = |doing| self.shared.tree.failed(doing, &format!(".packswarm/partial/{name}"));
        let mut file = self.shared.tree.open_partial(&name).map_err(failed("open"))?;
        let mut progress = self.shared.start(label, self.blob.size);
        if file.metadata().map_err(failed("read"))?.len() > self.blob.size {
            file.set_len(0).map_err(failed("truncate"))?;
        }
        let hashed = hash_so_far(&file, self.blob.size).map_err(failed("read"))?;
        let (hasher, len) = hashed;
        if len < self.blob.size {
            reserve(&file, len, self.blob.size).map_err(failed("reserve space for"))?;
        }
        file.seek(SeekFrom::Start(len)).map_err(failed("read"))?;
        if len > 0 {
            progress.reset(len);
        }
        Ok(Partial {
            work: self,
            name,
            file,
            hasher,
            len,
            progress,
        })
    }
}

/// A content on its way.
struct Partial {
    work: Work,
    name: String,
    file: File,
    hasher: Sha256,
    len: u64,
    progress: Progress,
}

/// What became of a [`Partial`] when the stream ended.
enum Received {
    Proven(Partial),
    Cut { missing: u64 },
    Other(Partial),
}

impl Partial {
    /// Writes and hashes until the blob is complete or the stream has ended.
    fn receive(mut self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Received, UnpackError> {
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
    fn place(self, first: Target, others: Vec<Target>) -> Result<Summary, UnpackError> {
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

    fn restart(mut self) -> Result<Self, UnpackError> {
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
    fn discard(self) -> Result<UnpackError, UnpackError> {
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

/// Whether mode and time are as wanted, where something is wanted.
fn has_attributes(stat: &Stat, wanted: Attributes) -> bool {
    stat.st_mode & 0o7777 == wanted.mode && wanted.mtime.is_none_or(|mtime| mtime == mtime_of(stat))
}

/// The digest of a file's first `max` bytes, and how many there were.
pub(super) fn hash(file: &File, max: u64) -> io::Result<(Digest, u64)> {
    let (hasher, len) = hash_so_far(file, max)?;
    Ok((Digest::from_bytes(hasher.finalize().into()), len))
}

fn hash_so_far(mut file: &File, max: u64) -> io::Result<(Sha256, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    file.rewind()?;
    let mut limited = file.take(max);
    let mut len = 0;
    loop {
        match limited.read(&mut buffer) {
            Ok(0) => return Ok((hasher, len)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                len += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
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
