//! One process at a time, and whether the last one ended well.
//!
//! The *epoch* counts the sessions that did not end with [`Session::end`]. Each side file names the epoch in which its claims
//! were last known to be true; claims from before the last bad end are proven anew before anything rests on them.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::OpenError;
use crate::layout::{Layout, create_private, sync_dir, unfinished};

/// What the first line of the session file says: the version of everything under the directory.
const VERSION: &str = "packswarm store 1";
/// A session file is a few words; more is not one of ours.
const MAX_LEN: u64 = 256;

/// The lock on a data directory, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(layout: &Layout) -> Result<Self, OpenError> {
        let path = layout.root.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(OpenError::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Whoever holds it may be writing just now: then its number is not known.
                let pid = file
                    .take(32)
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(OpenError::Locked {
                    path: layout.root.clone(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::io("lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(OpenError::io("write", &path))?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was just forked shares the open file, and so the lock, until it execs.
        let _ = self.0.unlock();
    }
}

/// The running session.
#[derive(Debug)]
pub(crate) struct Session {
    root: PathBuf,
    path: PathBuf,
    /// Sessions that ended badly so far.
    pub(crate) epoch: u64,
}

impl Session {
    /// Begins a session. `seen` is the highest epoch that a side file names, in case the session file was lost.
    pub(crate) fn begin(layout: &Layout, seen: u64) -> Result<Self, OpenError> {
        let path = layout.root.join("session");
        let epoch = match last(&path)? {
            Some(Last { epoch, clean: true }) => epoch.max(seen),
            Some(Last { epoch, clean: false }) => epoch.max(seen) + 1,
            None => seen + 1,
        };
        let session = Self {
            root: layout.root.clone(),
            path,
            epoch,
        };
        session
            .write("running")
            .map_err(OpenError::io("write", &session.path))?;
        Ok(session)
    }

    /// Notes that all is on disk and nothing more will be written.
    pub(crate) fn end(&self) -> io::Result<()> {
        rustix::fs::syncfs(File::open(&self.root)?)?;
        self.write("clean")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, state: &str) -> io::Result<()> {
        let new = unfinished(&self.path);
        let mut file = create_private(&new)?;
        write!(file, "{VERSION}\nepoch {}\n{state}\n", self.epoch)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        sync_dir(&self.root)
    }
}

struct Last {
    epoch: u64,
    clean: bool,
}

/// How the last session ended; `None` if there was none or its file is damaged.
fn last(path: &Path) -> Result<Option<Last>, OpenError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read", path)(error)),
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(None);
    };
    let mut lines = text.lines();
    match lines.next() {
        Some(VERSION) => {}
        Some(found) if found.starts_with("packswarm store ") => {
            return Err(OpenError::Version {
                path: path.to_owned(),
                found: found.to_owned(),
            });
        }
        Some(_) | None => return Ok(None),
    }
    let epoch = lines
        .next()
        .and_then(|line| line.strip_prefix("epoch "))
        .and_then(|number| number.parse().ok());
    Ok(epoch.map(|epoch| Last {
        epoch,
        clean: lines.next() == Some("clean"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_epoch_grows_with_each_bad_end_only() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let epoch = |seen| Session::begin(&layout, seen).unwrap();
        let first = epoch(0);
        assert_eq!(first.epoch, 1);
        first.end().unwrap();
        assert_eq!(epoch(0).epoch, 1, "the end was clean");
        assert_eq!(epoch(0).epoch, 2, "the end was not");
        fs::write(dir.path().join("session"), "\0\0\0").unwrap();
        assert_eq!(epoch(9).epoch, 10, "nobody knows how it ended");
    }

    #[test]
    fn another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        fs::write(dir.path().join("session"), "packswarm store 2\nwhatever").unwrap();
        let error = Session::begin(&layout, 0).unwrap_err().to_string();
        assert!(
            error.contains("packswarm store 2") && error.contains("empty directory"),
            "{error}"
        );
    }

    #[test]
    fn the_second_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let lock = Lock::take(&layout).unwrap();
        let error = Lock::take(&layout).unwrap_err();
        assert!(
            matches!(&error, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        drop(lock);
        Lock::take(&layout).unwrap();
    }
}
