//! What all jobs of one unpacking share.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use piece::Digest;
use tokio::sync::mpsc;

use super::claims::Claims;
use super::error::UnpackError;
use super::journal::{Journal, Key, Output};
use super::tree::Tree;
use super::{Event, How, Options, Summary};
use crate::{Mtime, TreePath};

/// Progress is reported once per this many bytes of an item.
const PROGRESS_STEP: u64 = 1 << 20;

/// The destination, what is known of it, and the way to report.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tree: Tree,
    pub(super) options: Options,
    pub(super) claims: Mutex<Claims>,
    journal: Mutex<Journal>,
    /// Directories that archives gave a time, to be set when nothing more is placed in them.
    directories: Mutex<Vec<(TreePath, Mtime)>>,
    entries: AtomicU64,
    names: AtomicU64,
    /// What is left of [`Limits::expansion_slack`](super::Limits::expansion_slack).
    pub(super) slack: AtomicU64,
    reporter: mpsc::Sender<Event>,
}

impl Shared {
    /// Takes the destination's lock and reads its journal. `digests` are those of the artifact's layers.
    pub(super) fn open(
        dest: &Path,
        options: Options,
        claims: Claims,
        digests: &HashSet<Digest>,
        reporter: mpsc::Sender<Event>,
    ) -> Result<Arc<Self>, UnpackError> {
        let tree = Tree::open(dest)?;
        let hex: HashSet<String> = digests.iter().map(Digest::hex).collect();
        tree.keep_partials(|name| hex.contains(name))
            .map_err(tree.failed("clear", ".packswarm/partial"))?;
        let journal = Journal::open(&tree, &hex).map_err(tree.failed("read", ".packswarm/journal"))?;
        Ok(Arc::new(Self {
            tree,
            slack: AtomicU64::new(options.limits.expansion_slack),
            options,
            claims: Mutex::new(claims),
            journal: Mutex::new(journal),
            directories: Mutex::default(),
            entries: AtomicU64::new(0),
            names: AtomicU64::new(0),
            reporter,
        }))
    }

    /// The last step: directory times, and everything on disk.
    pub(super) fn finish(&self) -> Result<(), UnpackError> {
        let mut directories = std::mem::take(&mut *self.directories.lock().expect("no holder of this lock panics"));
        // Inner ones first, although setting a time does not touch the directory above: a later one for the same wins.
        directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.ancestors().count()));
        for (path, mtime) in directories {
            let set = self.tree.set_directory_mtime(&path, mtime);
            set.map_err(self.tree.failed("set the time of", path.as_str()))?;
        }
        self.tree.sync().map_err(self.tree.failed("sync", ""))?;
        let mut journal = self.journal.lock().expect("no holder of this lock panics");
        journal
            .compact(&self.tree)
            .map_err(self.tree.failed("write", ".packswarm/journal"))
    }

    /// What the journal has for `key`.
    pub(super) fn recorded(&self, key: &Key) -> Option<Arc<[Output]>> {
        self.journal.lock().expect("no holder of this lock panics").get(key)
    }

    /// Notes what a layer became, so that the next run finds it without looking at the bytes.
    pub(super) fn record(&self, key: Key, outputs: Vec<Output>) -> Result<(), UnpackError> {
        let mut journal = self.journal.lock().expect("no holder of this lock panics");
        journal
            .append(key, outputs)
            .map_err(self.tree.failed("write", ".packswarm/journal"))
    }

    /// A directory's time, to be set in the end.
    pub(super) fn set_later(&self, path: TreePath, mtime: Mtime) {
        self.directories
            .lock()
            .expect("no holder of this lock panics")
            .push((path, mtime));
    }

    /// Counts an archive's entry, with the bytes of its name and link target; what is wrong when there are too many.
    pub(super) fn count_entry(&self, names: usize) -> Result<(), String> {
        let limits = self.options.limits;
        if self.entries.fetch_add(1, Ordering::Relaxed) >= limits.entries {
            return Err(format!(
                "the artifact's archives have more than {} entries",
                limits.entries
            ));
        }
        let names = names as u64;
        if self.names.fetch_add(names, Ordering::Relaxed) + names > limits.names {
            return Err(format!(
                "the names and link targets in the artifact's archives are together over {} bytes long",
                limits.names
            ));
        }
        Ok(())
    }

    /// Begins to report an item.
    pub(super) fn start(self: &Arc<Self>, path: Arc<str>, size: u64) -> Progress {
        self.report(Event::FileStarted {
            path: path.clone(),
            size,
        });
        Progress {
            shared: self.clone(),
            path,
            bytes: 0,
            reported: 0,
        }
    }

    fn report(&self, event: Event) {
        if self.reporter.blocking_send(event).is_err() {
            tracing::trace!("nobody listens to a pull that was given up");
        }
    }
}

/// The progress of one item. Only for blocking threads.
#[derive(Debug)]
pub(super) struct Progress {
    shared: Arc<Shared>,
    path: Arc<str>,
    bytes: u64,
    reported: u64,
}

impl Progress {
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes - self.reported >= PROGRESS_STEP {
            self.reported = self.bytes;
            self.shared.report(Event::Progress {
                path: self.path.clone(),
                bytes: self.bytes,
            });
        }
    }

    /// Begins anew, from `bytes`.
    pub(super) fn reset(&mut self, bytes: u64) {
        (self.bytes, self.reported) = (bytes, bytes);
        self.shared.report(Event::Progress {
            path: self.path.clone(),
            bytes,
        });
    }

    /// The item is in place.
    pub(super) fn done(&self, how: How) {
        self.shared.report(Event::FileDone {
            path: self.path.clone(),
            how,
        });
    }
}

impl Summary {
    pub(super) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.streamed += other.streamed;
        self.reused += other.reused;
    }
}

/// Runs file work on a thread where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UnpackError> + Send + 'static,
) -> Result<T, UnpackError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(UnpackError::Stopped),
        },
    }
}
