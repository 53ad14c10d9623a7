//! The destination directory, held by descriptors: no path of an artifact is ever given to the kernel whole.
//!
//! Every directory on the way to a file is opened from the one above it with `O_NOFOLLOW`, so a symbolic link, planted
//! by an earlier layer or found there, ends the walk with an error instead of leading it elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, flock, fsync,
    futimens, linkat, mkdirat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::error::UnpackError;
use crate::path::WORK_DIR;
use crate::{Mtime, TreePath};

/// Opens a directory only if it is one itself.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Directories of ours are nobody else's: what lies in them is not proven yet.
const PRIVATE: Mode = Mode::RWXU;

/// A destination that this process holds the lock of.
#[derive(Debug)]
pub(super) struct Tree {
    dest: PathBuf,
    root: OwnedFd,
    work: OwnedFd,
    stage: OwnedFd,
    partial: OwnedFd,
    /// Held while open: `flock` goes with the descriptor, also when the process is killed.
    _lock: File,
    next: AtomicU64,
    /// Directories whose entries changed, to be synced in the end; `""` is the destination itself.
    touched: Mutex<BTreeSet<String>>,
}

/// A complete file in `stage/`, or a link there, about to be renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Staged(u64);

impl Staged {
    fn name(self) -> String {
        self.0.to_string()
    }
}

/// What a file gets besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) mtime: Option<Mtime>,
}

impl Attributes {
    /// As an artifact has them: permission bits only, so no set-user-ID; 0 stands for "not known", as modctl has it.
    pub(super) fn file(mode: u32, mtime: Option<Mtime>) -> Self {
        let mode = if mode & 0o777 == 0 { 0o644 } else { mode & 0o777 };
        Self {
            mode,
            mtime: mtime.filter(|mtime| !mtime.is_unset()),
        }
    }

    /// As above; the owner keeps access, or the next pull could not replace what lies below.
    pub(super) fn directory(mode: u32, mtime: Option<Mtime>) -> Self {
        let mode = if mode & 0o777 == 0 { 0o755 } else { mode & 0o777 | 0o700 };
        Self {
            mode,
            mtime: mtime.filter(|mtime| !mtime.is_unset()),
        }
    }
}

impl Tree {
    /// Creates what is missing, takes the lock and clears what a killed pull left in `stage/`.
    pub(super) fn open(dest: &Path) -> Result<Self, UnpackError> {
        let failed = |doing| {
            move |source: io::Error| UnpackError::Io {
                doing,
                path: dest.to_owned(),
                source,
            }
        };
        std::fs::create_dir_all(dest).map_err(failed("create the directory"))?;
        let root = openat(CWD, dest, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
        let root = root.map_err(|e| failed("open the directory")(e.into()))?;
        let setup = || -> io::Result<_> {
            let work = make_and_open(&root, WORK_DIR)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let lock = openat(&work, "lock", flags, Mode::RUSR | Mode::WUSR)?;
            Ok((work, File::from(lock)))
        };
        let (work, lock) = setup().map_err(failed("prepare .packswarm in"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(UnpackError::Busy { dest: dest.to_owned() }),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        let folders = || -> io::Result<_> {
            let stage = make_and_open(&work, "stage")?;
            clear(&stage, |_| true)?;
            Ok((stage, make_and_open(&work, "partial")?))
        };
        let (stage, partial) = folders().map_err(failed("prepare .packswarm in"))?;
        let (next, touched) = (AtomicU64::new(0), Mutex::default());
        Ok(Self {
            dest: dest.to_owned(),
            root,
            work,
            stage,
            partial,
            _lock: lock,
            next,
            touched,
        })
    }

    /// `.packswarm`.
    pub(super) fn work(&self) -> &OwnedFd {
        &self.work
    }

    /// An error about something below the destination.
    pub(super) fn failed(&self, doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> UnpackError + use<> {
        let path = self.dest.join(path);
        move |source| UnpackError::Io { doing, path, source }
    }

    /// A new file in `stage/`.
    pub(super) fn stage(&self) -> io::Result<(Staged, File)> {
        let staged = self.next_staged();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.stage, staged.name(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok((staged, File::from(file)))
    }

    /// A staged file, to read it again.
    pub(super) fn open_staged(&self, staged: Staged) -> io::Result<File> {
        Ok(File::from(openat(
            &self.stage,
            staged.name(),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// A second name for a staged file.
    pub(super) fn stage_again(&self, staged: Staged) -> io::Result<Staged> {
        let again = self.next_staged();
        linkat(&self.stage, staged.name(), &self.stage, again.name(), AtFlags::empty())?;
        Ok(again)
    }

    /// A hard link in `stage/` to a file elsewhere.
    pub(super) fn stage_link(&self, file: &Path) -> io::Result<Staged> {
        let staged = self.next_staged();
        linkat(CWD, file, &self.stage, staged.name(), AtFlags::empty())?;
        Ok(staged)
    }

    /// A symbolic link in `stage/`. Its target must have been checked.
    pub(super) fn stage_symlink(&self, target: &str) -> io::Result<Staged> {
        let staged = self.next_staged();
        symlinkat(target, &self.stage, staged.name())?;
        Ok(staged)
    }

    pub(super) fn stat_staged(&self, staged: Staged) -> io::Result<Stat> {
        Ok(statat(&self.stage, staged.name(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(super) fn unstage(&self, staged: Staged) {
        if let Err(error) = unlinkat(&self.stage, staged.name(), AtFlags::empty()) {
            tracing::debug!(%error, "a staged file could not be removed; the next pull will");
        }
    }

    /// Renames what is staged to its final name, replacing a file or link there.
    pub(super) fn place(&self, staged: Staged, path: &TreePath) -> io::Result<()> {
        self.rename_in(&self.stage, &staged.name(), path)
    }

    /// The unfinished file of a blob, created if there is none.
    pub(super) fn open_partial(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(&self.partial, name, flags, Mode::RUSR | Mode::WUSR);
        let file = match open() {
            // Killed after it got its final mode, before it got its final name.
            Err(Errno::ACCESS) => {
                unlinkat(&self.partial, name, AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        Ok(File::from(file))
    }

    pub(super) fn place_partial(&self, name: &str, path: &TreePath) -> io::Result<()> {
        self.rename_in(&self.partial, name, path)
    }

    pub(super) fn remove_partial(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.partial, name, AtFlags::empty())?)
    }

    /// Drops the unfinished files of other artifacts.
    pub(super) fn keep_partials(&self, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        clear(&self.partial, |name| !wanted(name))
    }

    /// What lies at `path`, without following links; `None` when there is nothing or the way there is no directory.
    pub(super) fn stat(&self, path: &TreePath) -> Option<Stat> {
        let parent = self.walk(path.parent(), false).ok()?;
        statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Opens the regular file at `path` for reading.
    pub(super) fn open_file(&self, path: &TreePath) -> io::Result<File> {
        let parent = self.walk(path.parent(), false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(openat(&parent, path.name(), flags, Mode::empty())?))
    }

    /// The target of the symbolic link at `path`.
    pub(super) fn read_link(&self, path: &TreePath) -> Option<String> {
        let parent = self.walk(path.parent(), false).ok()?;
        let target = rustix::fs::readlinkat(&parent, path.name(), Vec::new()).ok()?;
        target.into_string().ok()
    }

    /// Creates a directory, and those above it, where missing.
    pub(super) fn make_directory(&self, path: &TreePath, mode: u32) -> io::Result<()> {
        let directory = self.walk(Some(path.as_str()), true)?;
        Ok(fchmod(&directory, Mode::from_raw_mode(mode))?)
    }

    /// Gives a directory its time, when nothing more is placed in it.
    pub(super) fn set_directory_mtime(&self, path: &TreePath, mtime: Mtime) -> io::Result<()> {
        let parent = self.walk(path.parent(), false)?;
        let found = statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode).is_dir() && mtime_of(&found) != mtime {
            utimensat(&parent, path.name(), &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Puts all renames on disk. Files were synced before they were renamed.
    pub(super) fn sync(&self) -> io::Result<()> {
        let touched = std::mem::take(&mut *self.touched.lock().expect("no holder of this lock panics"));
        for directory in touched {
            let parent = if directory.is_empty() {
                None
            } else {
                Some(directory.as_str())
            };
            fsync(self.walk(parent, false)?)?;
        }
        Ok(fsync(&self.work)?)
    }

    fn next_staged(&self) -> Staged {
        Staged(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn rename_in(&self, from: &OwnedFd, name: &str, path: &TreePath) -> io::Result<()> {
        let parent = self.walk(path.parent(), true)?;
        renameat(from, name, &parent, path.name())?;
        self.touch(path.parent().unwrap_or(""));
        Ok(())
    }

    fn touch(&self, directory: &str) {
        let mut touched = self.touched.lock().expect("no holder of this lock panics");
        if !touched.contains(directory) {
            touched.insert(directory.to_owned());
        }
    }

    /// Opens a directory below the destination, one component after the other, making missing ones if asked to.
    fn walk(&self, directory: Option<&str>, create: bool) -> io::Result<OwnedFd> {
        let mut here = self.root.as_fd().try_clone_to_owned()?;
        let Some(directory) = directory else { return Ok(here) };
        let mut parent = "";
        for (at, part) in parts(directory) {
            if create && make(&here, part, Mode::from_raw_mode(0o755))? {
                self.touch(parent);
            }
            here = openat(&here, part, DIRECTORY, Mode::empty()).map_err(no_directory)?;
            parent = &directory[..at + part.len()];
        }
        Ok(here)
    }
}

impl Drop for Tree {
    /// What a failed layer left; after a kill, the next pull does it.
    fn drop(&mut self) {
        if let Err(error) = clear(&self.stage, |_| true) {
            tracing::debug!(%error, "staged files could not be removed; the next pull will");
        }
    }
}

/// Gives an open file its mode and time.
pub(super) fn set_attributes(file: &File, attributes: Attributes) -> io::Result<()> {
    fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    match attributes.mtime {
        Some(mtime) => Ok(futimens(file, &timestamps(mtime))?),
        None => Ok(()),
    }
}

/// When a file was last modified.
pub(super) fn mtime_of(stat: &Stat) -> Mtime {
    Mtime {
        seconds: stat.st_mtime,
        nanos: stat.st_mtime_nsec as u32,
    }
}

/// The size of a regular file; `None` for anything else.
pub(super) fn file_size(stat: &Stat) -> Option<u64> {
    FileType::from_raw_mode(stat.st_mode)
        .is_file()
        .then_some(stat.st_size as u64)
}

fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The components of a path and where each begins.
fn parts(path: &str) -> impl Iterator<Item = (usize, &str)> {
    path.split('/').scan(0, |at, part| {
        let here = *at;
        *at += part.len() + 1;
        Some((here, part))
    })
}

fn make_and_open(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    make(parent, name, PRIVATE)?;
    openat(parent, name, DIRECTORY, Mode::empty()).map_err(no_directory)
}

/// Makes a directory; whether it was missing.
fn make(parent: &OwnedFd, name: &str, mode: Mode) -> io::Result<bool> {
    match mkdirat(parent, name, mode) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn no_directory(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(
            io::ErrorKind::NotADirectory,
            "a part of the path is a file or a symbolic link, which is not followed",
        ),
        other => other.into(),
    }
}

/// Removes the files of one of our own directories.
fn clear(directory: &OwnedFd, remove: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." && remove(&name) {
            names.push(name);
        }
    }
    names
        .iter()
        .try_for_each(|name| Ok(unlinkat(directory, name.as_str(), AtFlags::empty())?))
}
