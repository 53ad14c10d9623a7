//! A raw layer: one content, at one place or more.
//!
//! The first of these that works, cheapest first: it is there already; it is at another place of this artifact; a local
//! store has it; it is streamed, continuing an unfinished file. Bytes of an unfinished file prove nothing by being there
//! (a power cut leaves zeros), so they are hashed again, which costs less than fetching them again; should the whole then
//! not match, it is fetched once more from the beginning.

mod partial;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use piece::Blob;
use rustix::fs::Stat;
use tokio::sync::mpsc;

use super::error::UnpackError;
use super::journal::{Key, Output};
use super::local::{self, hash};
use super::plan::{RawJob, Target, one_file};
use super::shared::{Progress, Shared, blocking};
use super::tree::{Attributes, Staged, file_size, mtime_of, set_attributes};
use super::{CHUNKS, How, Patience, Summary};
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
    let label = missing[0].path.shared();
    let mut partial = blocking(move || Partial::open(work, label)).await?;
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
}

/// Whether mode and time are as wanted, where something is wanted.
fn has_attributes(stat: &Stat, wanted: Attributes) -> bool {
    stat.st_mode & 0o7777 == wanted.mode && wanted.mtime.is_none_or(|mtime| mtime == mtime_of(stat))
}
