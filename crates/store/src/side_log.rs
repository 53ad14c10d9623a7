//! Writing side files: appended to as things happen, rewritten when that has become wasteful.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use piece::Digest;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::layout::{create_private, unfinished};
use crate::side::Record;

/// A log may grow by this much past twice its last snapshot: a few thousand bits, some hundred runs.
const SLACK: u64 = 256 << 10;
/// What a piece usually adds: its bit, and its midstate in a signed run, which whoever follows a reader takes again each time
/// it has grown by one, up to 64.
const PER_PIECE: u64 = 1200;

/// The side file of an open blob.
#[derive(Debug)]
pub(crate) struct SideLog {
    file: File,
    path: PathBuf,
    digest: Digest,
    /// Bytes that hold. What a failed write left behind them is overwritten by the next.
    len: u64,
    /// Length after the last snapshot.
    base: u64,
}

impl SideLog {
    /// Goes on with a file of which the first `len` bytes hold.
    pub(crate) fn open(path: PathBuf, digest: Digest, len: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self {
            file,
            path,
            digest,
            len,
            base: len,
        })
    }

    /// Begins a file with this content, in place of the one there may be. It is whole or absent if the process dies; only
    /// [`SideLog::rewrite`] takes care of a loss of power, because there is something to lose.
    pub(crate) fn create(path: PathBuf, digest: Digest, snapshot: &[u8]) -> io::Result<Self> {
        let new = unfinished(&path);
        let file = create_private(&new)?;
        file.write_all_at(snapshot, 0)?;
        fs::rename(&new, &path)?;
        let len = snapshot.len() as u64;
        Ok(Self {
            file,
            path,
            digest,
            len,
            base: len,
        })
    }

    /// Reserves room for these pieces: a disk that fills up later does not stop this blob.
    pub(crate) fn reserve(&self, pieces: u32) -> io::Result<()> {
        let room = (PER_PIECE * u64::from(pieces)).min(self.base + SLACK);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.len + room) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives back what was reserved and not needed: the blob is whole.
    pub(crate) fn trim(&self) -> io::Result<()> {
        self.file.set_len(self.len)
    }

    /// Appends one record. It is in the file, or none of it counts.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = Vec::new();
        record.put(&self.digest, &mut bytes);
        self.file.write_all_at(&bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Whether a snapshot would be much shorter.
    pub(crate) const fn is_wasteful(&self) -> bool {
        self.len > 2 * self.base + SLACK
    }

    /// Replaces the whole file by a snapshot that is on disk before it takes the file's place.
    pub(crate) fn rewrite(&mut self, snapshot: &[u8]) -> io::Result<()> {
        let new = unfinished(&self.path);
        let file = create_private(&new)?;
        file.write_all_at(snapshot, 0)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        self.len = snapshot.len() as u64;
        self.base = self.len;
        Ok(())
    }

    /// The file again, to sync it without holding up whoever appends.
    pub(crate) fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Notes when the blob was used last, as the file's modification time.
    pub(crate) fn touch(&self, when: SystemTime) -> io::Result<()> {
        self.file.set_times(FileTimes::new().set_modified(when))
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Meta;
    use crate::side::{Side, snapshot};
    use piece::{Bitfield, Blob, Chain};

    fn log(dir: &Path) -> (SideLog, Blob, Vec<u8>) {
        let blob = Blob {
            digest: Digest::of(b"x"),
            size: 3 << 20,
        };
        let start = snapshot(
            1,
            &Meta::default(),
            &Chain::new(blob),
            &Bitfield::empty(&blob.geometry()),
        );
        let log = SideLog::create(dir.join("side"), blob.digest, &start).unwrap();
        (log, blob, start)
    }

    #[test]
    fn what_a_failed_write_left_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, blob, _) = log(dir.path());
        log.file.write_all_at(b"half a rec", log.len).unwrap();
        log.append(&Record::Have(3)).unwrap();
        log.append(&Record::Have(4)).unwrap();
        let side = Side::read(log.path(), &blob.digest).unwrap().unwrap();
        assert_eq!(side.bits.count(), 2);
        assert!(side.intact);
    }

    #[test]
    fn a_log_becomes_wasteful_and_a_snapshot_cures_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, blob, start) = log(dir.path());
        let mut records = 0;
        while !log.is_wasteful() {
            log.append(&Record::Have(records % 12)).unwrap();
            records += 1;
        }
        assert!(records > 10_000, "{records}");
        log.rewrite(&start).unwrap();
        assert!(!log.is_wasteful());
        log.append(&Record::Have(0)).unwrap();
        assert_eq!(Side::read(log.path(), &blob.digest).unwrap().unwrap().bits.count(), 1);
    }
}
