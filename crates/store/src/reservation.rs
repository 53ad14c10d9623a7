//! Space on the disk for a blob: some when it begins, the rest before its second piece is written.
//!
//! Reserving takes the system longer the larger a blob is (3.5 ms for 2 GiB on ext4), and a client waits for the first
//! byte meanwhile. Until then the rest is promised: whoever begins another blob does not count on it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use piece::MAX_PIECE_LEN;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What is reserved before a blob's file is given out.
const AT_ONCE: u64 = 64 << 20;

/// Bytes of one filesystem that are promised to blobs, and not reserved yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promises(Arc<AtomicU64>);

/// The space of one file.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    /// Bytes written so far, or to be written now.
    written: u64,
    /// Bytes at the file's end that are promised and not reserved.
    promised: u64,
    size: u64,
    promises: Promises,
}

impl Reservation {
    /// Gives a new file its length and reserves its beginning; the rest is promised to it. Where the filesystem reserves
    /// nothing, it only gets its length.
    ///
    /// # Errors
    /// If less is free than the file needs beside what others were promised, or the disk refuses.
    pub(crate) fn begin(file: &File, size: u64, promises: &Promises) -> io::Result<Self> {
        let (mut reservation, before) = Self::promise(size, promises);
        // A reservation that fails may take all the space there is before it gives it back, and others would feel that.
        let filesystem = rustix::fs::fstatvfs(file)?;
        let free = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
        if size.saturating_add(before) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.set_len(size)?;
        reservation.reserve(file, size.min(AT_ONCE))?;
        Ok(reservation)
    }

    /// That of a file that another process has begun, and may have left before all was reserved.
    pub(crate) fn resume(file: &File, size: u64, promises: &Promises) -> io::Result<Self> {
        let reserved = file.metadata()?.blocks().saturating_mul(512);
        Ok(if reserved < size {
            Self::promise(size, promises).0
        } else {
            Self::default()
        })
    }

    /// Everything promised and nothing reserved yet; and what was promised to others before.
    fn promise(size: u64, promises: &Promises) -> (Self, u64) {
        let before = promises.0.fetch_add(size, Ordering::AcqRel);
        let reservation = Self {
            written: 0,
            promised: size,
            size,
            promises: promises.clone(),
        };
        (reservation, before)
    }

    /// To be called before `len` bytes are written, and again after an error: what comes after the first piece finds all space
    /// reserved.
    ///
    /// # Errors
    /// If somebody else has taken what was promised, or the disk refuses.
    pub(crate) fn prepare(&mut self, file: &File, len: u64) -> io::Result<()> {
        let written = self.written.saturating_add(len);
        if self.promised > 0 && written > MAX_PIECE_LEN {
            self.reserve(file, self.promised)?;
        }
        self.written = written;
        Ok(())
    }

    /// Reserves the next `len` bytes.
    fn reserve(&mut self, file: &File, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match fallocate(file, FallocateFlags::empty(), self.size - self.promised, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fulfil(len),
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn fulfil(&mut self, len: u64) {
        self.promised -= len;
        self.promises.0.fetch_sub(len, Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.fulfil(self.promised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn the_beginning_is_reserved_at_once_and_the_rest_after_the_first_piece() {
        let (file, promises, size) = (file(), Promises::default(), AT_ONCE + (5 << 20));
        let mut reservation = Reservation::begin(&file, size, &promises).unwrap();
        let reserved = || file.metadata().unwrap().blocks() * 512;
        assert_eq!(file.metadata().unwrap().len(), size);
        reservation.prepare(&file, 4 << 20).unwrap();
        assert!(
            (AT_ONCE..size).contains(&reserved()),
            "this needs a filesystem with fallocate"
        );
        assert_eq!(promises.0.load(Ordering::Relaxed), size - AT_ONCE);
        reservation.prepare(&file, 1).unwrap();
        assert!(reserved() >= size);
        assert_eq!(promises.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_another_process_left_unreserved_is_promised_again() {
        let (file, promises, size) = (file(), Promises::default(), AT_ONCE + (5 << 20));
        drop(Reservation::begin(&file, size, &promises).unwrap());
        let mut reservation = Reservation::resume(&file, size, &promises).unwrap();
        assert_eq!(promises.0.load(Ordering::Relaxed), size);
        reservation.prepare(&file, MAX_PIECE_LEN + 1).unwrap();
        assert!(
            file.metadata().unwrap().blocks() * 512 >= size,
            "this needs a filesystem with fallocate"
        );
        drop(reservation);
        drop(Reservation::resume(&file, size, &promises).unwrap());
        assert_eq!(promises.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_promised_is_not_promised_twice() {
        let promises = Promises::default();
        let filesystem = rustix::fs::fstatvfs(file()).unwrap();
        let most = filesystem.f_bavail * filesystem.f_frsize / 3 * 2;
        let one = Reservation::begin(&file(), most, &promises).unwrap();
        let error = Reservation::begin(&file(), most, &promises).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        drop(one);
        Reservation::begin(&file(), most, &promises).unwrap();
        assert_eq!(promises.0.load(Ordering::Relaxed), 0, "nobody has it any more");
    }
}
