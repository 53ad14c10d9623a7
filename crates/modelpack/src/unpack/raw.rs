//! A raw layer: one content, at one place or more.
//!
//! The first of these that works, cheapest first: it is there already; it is at another place of this artifact; a local
//! store has it; it is streamed, continuing an unfinished file. Bytes of an unfinished file prove nothing by being there
//! (a power cut leaves zeros), so they are hashed again, which costs less than fetching them again; should the whole then
//! not match, it is fetched again from the beginning. So it is when a stream that broke was continued: a mirror cuts what it
//! finds to be wrong after it has sent some of it.

mod partial;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use piece::Blob;
use rustix::fs::Stat;
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::error::UnpackError;
use super::journal::{Key, Output};
use super::local::{self, hash_first};
use super::plan::{RawJob, Target, one_file};
use super::shared::{Progress, Shared, blocking};
use super::tree::{Attributes, Staged, file_size, mtime_of, set_attributes};
use super::{ANEW, CHUNKS, How, Patience, Summary};
use crate::fetch::pump;
use crate::{Fetch, FetchError, Mtime};
use partial::{Partial, Received};

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
    let Pending { target, progress } = missing.remove(0);
    let mut partial = blocking(move || Partial::open(work, progress)).await?;
    let mut anew = 0;
    loop {
        let resumed = partial.len;
        let (sink, chunks) = mpsc::channel(CHUNKS);
        let pumping = pump(fetch, &job.blob, resumed, sink, patience);
        let (pumped, received) = tokio::join!(pumping, blocking(move || partial.receive(chunks)));
        match received? {
            Received::Proven(proven) => {
                summary.streamed += pumped?.bytes;
                summary.reused += resumed;
                summary.add(blocking(move || proven.place(target, missing)).await?);
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
            Received::Other(again) => {
                let pumped = pumped?;
                if anew == ANEW || (resumed == 0 && !pumped.broke) {
                    return Err(blocking(move || again.discard()).await?);
                }
                anew += 1;
                tracing::warn!(digest = %job.blob.digest, resumed, "what came in parts is not the whole; fetching it anew");
                summary.streamed += pumped.bytes;
                partial = blocking(move || again.restart()).await?;
            }
        }
    }
}

/// A content and what is needed to put it in place.
struct Work {
    shared: Arc<Shared>,
    blob: Blob,
}

/// A place that is still without its file.
struct Pending {
    target: Target,
    progress: Progress,
}

impl Work {
    /// Everything that can be done without asking for a byte. Returns the places that are still without their file.
    fn without_stream(
        self,
        targets: Vec<Target>,
        store: Option<PathBuf>,
    ) -> Result<(Vec<Pending>, Summary), UnpackError> {
        let mut summary = Summary::default();
        let mut present = None;
        let mut missing = Vec::new();
        for target in targets {
            let mut progress = self.shared.start(target.path.shared(), self.blob.size);
            if self.is_present(&target, &mut progress)? {
                progress.done(How::Present);
                summary.add(self.reused());
                present = Some(target);
            } else {
                missing.push(Pending { target, progress });
            }
        }
        if let Some(source) = present {
            summary.add(self.copy_from(&source, std::mem::take(&mut missing))?);
        }
        if let Some(store) = store {
            missing.retain_mut(|pending| match self.take_from_store(&store, pending) {
                Ok(()) => {
                    summary.add(self.reused());
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
    fn is_present(&self, target: &Target, progress: &mut Progress) -> Result<bool, UnpackError> {
        let tree = &self.shared.tree;
        let found = tree.stat(&target.path);
        let Some(stat) = found.filter(|stat| file_size(stat) == Some(self.blob.size)) else {
            return Ok(false);
        };
        let recorded = self.shared.recorded(&Key::raw(&self.blob.digest, &target.path));
        let vouched = recorded.is_some_and(|outputs| outputs[..] == [self.output(target, mtime_of(&stat))]);
        // Whoever else has a name for this inode, say a store, keeps its mode and time.
        let as_wanted = stat.st_nlink > 1 || has_attributes(&stat, target.attributes);
        if vouched && as_wanted {
            return Ok(true);
        }
        let Ok(file) = tree.open_file(&target.path) else {
            return Ok(false);
        };
        if !vouched && !self.is_content_of(&file, progress) {
            progress.reset(0);
            return Ok(false);
        }
        if !as_wanted && set_attributes(&file, target.attributes).is_err() {
            return Ok(false);
        }
        self.record(target)?;
        Ok(true)
    }

    fn is_content_of(&self, file: &File, progress: &mut Progress) -> bool {
        let hashed = hash_first(file, self.blob.size, |bytes| progress.add(bytes));
        hashed.is_ok_and(|(hasher, _)| hasher.finalize()[..] == *self.blob.digest.as_bytes())
    }

    fn take_from_store(&self, store: &Path, pending: &mut Pending) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Io {
            doing: "take from the local store",
            path: store.to_owned(),
            source,
        };
        let file = local::open(store, self.blob.size).map_err(failed)?;
        if self.shared.options.link {
            match local::link(&self.shared, store, &file) {
                Ok(staged) => return self.put(staged, pending, How::Linked),
                Err(error) => tracing::debug!(store = %store.display(), %error, "cannot link; copying"),
            }
        }
        self.copy(&file, pending)
    }

    /// Puts further copies of a file that is in place.
    fn copy_from(&self, source: &Target, others: Vec<Pending>) -> Result<Summary, UnpackError> {
        let mut summary = Summary::default();
        if others.is_empty() {
            return Ok(summary);
        }
        let opened = self.shared.tree.open_file(&source.path);
        let file = opened.map_err(self.shared.tree.failed("read", source.path.as_str()))?;
        for mut pending in others {
            self.copy(&file, &mut pending)?;
            summary.add(self.reused());
        }
        Ok(summary)
    }

    fn copy(&self, file: &File, pending: &mut Pending) -> Result<(), UnpackError> {
        let Pending { target, progress } = &mut *pending;
        let failed = || self.shared.tree.failed("write", target.path.as_str());
        let (staged, to) = self.shared.tree.stage().map_err(failed())?;
        let copied = local::copy(file, &to, self.blob.size, progress)
            .and_then(|how| set_attributes(&to, target.attributes).map(|()| how))
            .and_then(|how| to.sync_all().map(|()| how));
        match copied {
            Ok(how) => self.put(staged, pending, how),
            Err(error) => {
                progress.reset(0);
                self.shared.tree.unstage(staged);
                Err(failed()(error))
            }
        }
    }

    fn put(&self, staged: Staged, pending: &Pending, how: How) -> Result<(), UnpackError> {
        let path = &pending.target.path;
        let placed = self.shared.tree.place(staged, path);
        placed.map_err(self.shared.tree.failed("put in place", path.as_str()))?;
        self.record(&pending.target)?;
        pending.progress.done(how);
        Ok(())
    }

    fn reused(&self) -> Summary {
        let size = self.blob.size;
        Summary {
            reused: size,
            ..one_file(size)
        }
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
}

/// Whether mode and time are as wanted, where something is wanted.
fn has_attributes(stat: &Stat, wanted: Attributes) -> bool {
    stat.st_mode & 0o7777 == wanted.mode && wanted.mtime.is_none_or(|mtime| mtime == mtime_of(stat))
}
