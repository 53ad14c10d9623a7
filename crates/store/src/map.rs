//! Memory maps of blob files: the only `unsafe` of this crate.
//!
//! A peer hands pieces to its sockets straight from the page cache. Rust's slices promise that nobody changes what they
//! show, and the system answers a read past a file's end with SIGBUS. Why both are ruled out here:
//! - **Nobody else writes.** The files lie in a directory of mode 0700, under a lock that admits one process.
//! - **We don't write there.** A slice is made only over pieces whose bit is set, or by whoever holds the sole claim on a
//!   piece without one; writes go only to pieces without a bit, under that claim. A bit is cleared only together with a
//!   move of the blob to another file (or before any slice was made, on opening).
//! - **The file is long enough.** It has its full length before it is mapped and is never truncated, only renamed or
//!   unlinked, and both leave a mapped file alone.
//! - **The disk answers.** A page that cannot be read would raise SIGBUS too, so each range is read ahead with
//!   `MADV_POPULATE_READ`, which reports that as an error. (A page that was dropped since and then fails is the one way
//!   left, and kills the process as a failing disk under its executable would.) This also takes the waiting for the disk
//!   out of the network threads. Kernels before 5.14 lack it: there, only this paragraph does not hold.
//!
//! No slice of the whole file ever exists, so nothing is claimed about its unverified parts.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::io::Errno;

/// A shared, read-only map of a whole blob file.
#[derive(Debug)]
pub(crate) struct Map(MmapRaw);

impl Map {
    /// Maps the first `len` bytes of a file, which must have them and keep them; `len` is not 0.
    pub(crate) fn of(file: &File, len: u64) -> io::Result<Arc<Self>> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        MmapOptions::new()
            .len(len)
            .map_raw_read_only(file)
            .map(|raw| Arc::new(Self(raw)))
    }

    /// These bytes of the file, read in and without a copy. The caller knows that they don't change while the result lives.
    ///
    /// # Panics
    /// If the range is not inside the map.
    pub(crate) fn bytes(self: &Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(
            start <= end && end <= self.0.len(),
            "{start}..{end} is not inside a map of {}",
            self.0.len()
        );
        self.populate(start, end - start)?;
        Ok(Bytes::from_owner(Slice {
            map: Arc::clone(self),
            start,
            len: end - start,
        }))
    }

    fn populate(&self, start: usize, len: usize) -> io::Result<()> {
        self.0
            .advise_range(Advice::PopulateRead, start, len)
            .or_else(|error| match Errno::from_io_error(&error) {
                // The kernel doesn't know the advice.
                Some(Errno::INVAL) => Ok(()),
                // What a signal would have said.
                Some(Errno::FAULT) => Err(Errno::IO.into()),
                Some(_) | None => Err(error),
            })
    }
}

/// A part of a map that doesn't change any more.
struct Slice {
    map: Arc<Map>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `bytes` checked that the range lies inside the map, which lives as long as `self.map`; that the bytes
        // don't change meanwhile is the head of this file.
        unsafe { std::slice::from_raw_parts(self.map.0.as_ptr().add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    fn mapped(content: &[u8]) -> (tempfile::NamedTempFile, Arc<Map>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let map = Map::of(file.as_file(), content.len() as u64).unwrap();
        (file, map)
    }

    proptest! {
        #[test]
        fn equals_plain_reads(content in prop::collection::vec(any::<u8>(), 1..20_000), a in any::<usize>(), b in any::<usize>()) {
            let (a, b) = (a % (content.len() + 1), b % (content.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            let (file, map) = mapped(&content);
            let mut plain = vec![0; end - start];
            file.as_file().read_exact_at(&mut plain, start as u64).unwrap();
            prop_assert_eq!(&map.bytes(start as u64..end as u64).unwrap()[..], &plain[..]);
        }
    }

    #[test]
    fn sees_later_writes_elsewhere_and_outlives_the_file() {
        let (file, map) = mapped(&[7; 10_000]);
        let early = map.bytes(0..5000).unwrap();
        file.as_file().write_all_at(&[8; 5000], 5000).unwrap();
        let late = map.bytes(5000..10_000).unwrap();
        drop((file, map));
        assert!(early.iter().all(|byte| *byte == 7) && late.iter().all(|byte| *byte == 8));
    }

    #[test]
    #[should_panic(expected = "not inside a map")]
    fn refuses_a_range_past_the_end() {
        let (_file, map) = mapped(&[7; 100]);
        let _ = map.bytes(50..101);
    }

    #[test]
    fn a_page_that_cannot_be_read_is_an_error_and_no_signal() {
        // A file shorter than its map stands for the bad sector: both raise SIGBUS when touched.
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = Map::of(&file, 1 << 20).unwrap();
        assert!(map.bytes(0..4096).is_ok());
        assert!(map.bytes(8192..16_384).is_err());
    }
}
