//! The bytes of one blob: a file at its full length, and a map of it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use piece::{Geometry, Link, PieceIndex, verify, verify_two};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::layout::create_private;
use crate::locked;
use crate::map::Map;
use crate::reservation::{Promises, Reservation};

/// A blob's file, opened. Its name may change and vanish; the inode is the blob.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) file: File,
    /// Absent for the empty blob: there is nothing to map.
    map: Option<Arc<Map>>,
    geometry: Geometry,
    reservation: Mutex<Reservation>,
}

impl Data {
    /// Makes a file of the blob's length, in place of the one there may be. The space for it is there; most of it
    /// is reserved only by [`Data::prepare`].
    pub(crate) fn create(path: &Path, geometry: Geometry, promises: &Promises) -> io::Result<Self> {
        let file = create_private(path)?;
        let reservation =
            Reservation::begin(&file, geometry.size(), promises).inspect_err(|_| drop(std::fs::remove_file(path)))?;
        Self::of(file, geometry, reservation)
    }

    /// Opens a file; `None` if it has not the blob's length. One in progress goes on to reserve its space.
    pub(crate) fn open(path: &Path, geometry: Geometry, in_progress: Option<&Promises>) -> io::Result<Option<Self>> {
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() != geometry.size() {
            return Ok(None);
        }
        let resume = |promises| Reservation::resume(&file, geometry.size(), promises);
        let reservation = in_progress.map(resume).transpose()?.unwrap_or_default();
        Self::of(file, geometry, reservation).map(Some)
    }

    /// To be called before `len` bytes are written: reserves the blob's space if that is due, so that a disk that fills up
    /// later does not stop it.
    pub(crate) fn prepare(&self, len: u64) -> io::Result<()> {
        locked(&self.reservation).prepare(&self.file, len)
    }

    fn of(file: File, geometry: Geometry, reservation: Reservation) -> io::Result<Self> {
        let map = (!geometry.is_empty())
            .then(|| Map::of(&file, geometry.size()))
            .transpose()?;
        Ok(Self {
            file,
            map,
            geometry,
            reservation: Mutex::new(reservation),
        })
    }

    /// Writes bytes of pieces that the caller has claimed.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// As [`Data::write`], of bytes that lie in chunks: a thousand of them with one system call.
    pub(crate) fn write_chunks<C: AsRef<[u8]>>(&self, mut offset: u64, chunks: &[C]) -> io::Result<()> {
        let mut slices: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk.as_ref())).collect();
        let mut left = &mut slices[..];
        // Drops empty ones at the front, as each further call does, so that none are left when all is written.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            // This takes no more of them than the system allows.
            match rustix::io::pwritev(&self.file, left, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Bytes of the map, without a copy. Only of pieces with a bit, or that the caller has claimed.
    pub(crate) fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        match &self.map {
            Some(map) => map.bytes(range),
            None => Ok(Bytes::new()),
        }
    }

    /// One piece, on the same condition.
    pub(crate) fn piece(&self, piece: PieceIndex) -> io::Result<Bytes> {
        self.bytes(self.geometry.range(piece))
    }

    /// Verifies pieces in place, two at a time, and tells which are good. One that cannot be read is not.
    pub(crate) fn verify(&self, links: &[Link], mut tell: impl FnMut(PieceIndex, bool)) {
        let read = |link: &Link| self.piece(link.piece());
        let alone = |link: &Link, bytes: io::Result<Bytes>| bytes.is_ok_and(|bytes| verify(link, &[bytes]));
        for links in links.chunks(2) {
            match links {
                [a, b] => {
                    let (a_good, b_good) = match (read(a), read(b)) {
                        (Ok(a_bytes), Ok(b_bytes)) => verify_two((a, &[a_bytes]), (b, &[b_bytes])),
                        (a_bytes, b_bytes) => (alone(a, a_bytes), alone(b, b_bytes)),
                    };
                    tell(a.piece(), a_good);
                    tell(b.piece(), b_good);
                }
                rest => rest.iter().for_each(|link| tell(link.piece(), alone(link, read(link)))),
            }
        }
    }

    /// Whether anything was ever written to a piece. True where the filesystem cannot tell.
    pub(crate) fn was_written(&self, piece: PieceIndex) -> bool {
        let range = self.geometry.range(piece);
        match rustix::fs::seek(&self.file, SeekFrom::Data(range.start)) {
            Ok(at) => at < range.end,
            Err(errno) => errno != Errno::NXIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt as _;

    proptest! {
        /// More of them than one system call takes, empty ones at any place.
        #[test]
        fn chunks_are_written_in_a_row(lengths in prop::collection::vec(0usize..4, 0..3000), offset in 0u64..5000) {
            let dir = tempfile::tempdir().unwrap();
            let data = Data::create(&dir.path().join("blob"), Geometry::of(1 << 20), &Promises::default()).unwrap();
            let mut next = 0u8;
            let chunks: Vec<Vec<u8>> = lengths
                .into_iter()
                .map(|len| {
                    next = next.wrapping_add(7);
                    vec![next; len]
                })
                .collect();
            data.write_chunks(offset, &chunks).unwrap();
            let wanted = [vec![0; offset as usize], chunks.concat(), vec![0]].concat();
            prop_assert_eq!(&data.bytes(0..wanted.len() as u64).unwrap()[..], &wanted[..]);
        }
    }

    #[test]
    fn a_new_file_has_its_length_and_knows_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        let geometry = Geometry::of(3 << 20);
        let data = Data::create(&path, geometry, &Promises::default()).unwrap();
        let metadata = data.file.metadata().unwrap();
        assert_eq!(metadata.len(), 3 << 20);
        assert!(
            metadata.blocks() * 512 >= 3 << 20,
            "the space is reserved (this needs a filesystem with fallocate)"
        );
        let piece = |number| geometry.piece(number).unwrap();
        assert!(!data.was_written(piece(5)));
        data.write(geometry.range(piece(5)).start + 17, b"x").unwrap();
        assert!(data.was_written(piece(5)) && !data.was_written(piece(4)) && !data.was_written(piece(6)));
        assert!(Data::open(&path, Geometry::of(3 << 20), None).unwrap().is_some());
        assert!(
            Data::open(&path, Geometry::of(1 << 20), None).unwrap().is_none(),
            "another length is another blob"
        );
    }
}
