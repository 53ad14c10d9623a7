//! Files that are already on this machine: hashed, linked, reflinked, copied inside the kernel or through a buffer.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use piece::Digest;
use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::How;
use super::shared::{Progress, Shared};
use super::tree::Staged;

/// Bytes copied between two progress reports.
const STEP: u64 = 16 << 20;
/// Bytes hashed, or copied where the kernel cannot do it, at a time.
const BUFFER: usize = 256 << 10;

/// Opens a blob's file in a local store, if it is what it should be.
pub(super) fn open(path: &Path, size: u64) -> io::Result<File> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() != size {
        return Err(io::Error::other("not a regular file of the blob's size"));
    }
    Ok(file)
}

/// Hard-links an opened file into `stage/`.
pub(super) fn link(shared: &Shared, path: &Path, opened: &File) -> io::Result<Staged> {
    let staged = shared.tree.stage_link(path)?;
    let (found, wanted) = (shared.tree.stat_staged(staged)?, opened.metadata()?);
    if (found.st_dev, found.st_ino) != (wanted.dev(), wanted.ino()) {
        shared.tree.unstage(staged);
        return Err(io::Error::other("the file was replaced meanwhile"));
    }
    Ok(staged)
}

/// Makes `to` hold the first `size` bytes of `from`.
pub(super) fn copy(from: &File, to: &File, size: u64, progress: &mut Progress) -> io::Result<How> {
    if size > 0 && ioctl_ficlone(to, from).is_ok() {
        progress.add(size);
        return Ok(How::Reflinked);
    }
    let mut done = copy_in_kernel(from, to, size, progress)?;
    let mut buffer = vec![0; BUFFER];
    while done < size {
        let want = buffer.len().min(usize::try_from(size - done).unwrap_or(usize::MAX));
        let got = from.read_at(&mut buffer[..want], done)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..got], done)?;
        done += got as u64;
        progress.add(got as u64);
    }
    Ok(How::Copied)
}

/// The digest of a whole file.
pub(super) fn hash(file: &File) -> io::Result<Digest> {
    let (hasher, _) = hash_first(file, u64::MAX, |_| {})?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// Hashes a file's first `max` bytes; also says how many there were.
pub(super) fn hash_first(mut file: &File, max: u64, mut hashed: impl FnMut(u64)) -> io::Result<(Sha256, u64)> {
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
                hashed(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// As far as the two file systems let the kernel do it; returns how far that was.
fn copy_in_kernel(from: &File, to: &File, size: u64, progress: &mut Progress) -> io::Result<u64> {
    let (mut read, mut written) = (0, 0);
    while written < size {
        let step = (size - written).min(STEP) as usize;
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), step) {
            Ok(0) => break,
            Ok(copied) => progress.add(copied as u64),
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => return Err(error.into()),
            // Other file systems, old kernels, seccomp: each has its own code for "not here".
            Err(_) => break,
        }
    }
    Ok(written)
}
