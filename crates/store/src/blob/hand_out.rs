//! A whole blob as a file of the user's own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::{BlobFile, Phase};
use crate::StoreError;
use crate::data::Data;

/// Bytes copied at once where the system can't do it by itself.
const CHUNK: usize = 1 << 20;

/// How a file came about, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMethod {
    /// It shares the blob's blocks until one of the two is written to.
    Reflink,
    /// The system copied it without passing the bytes through us.
    Range,
    /// Read and written.
    Plain,
}

impl BlobFile {
    /// Where the file lies, if the blob is complete. It may be evicted once no handle is left.
    pub fn path(&self) -> Option<PathBuf> {
        self.is_complete()
            .then(|| self.0.shared.layout.finished(&self.blob().digest))
    }

    /// Makes `dest`, which must not exist, a copy of the blob, in the best way that both filesystems have.
    ///
    /// # Errors
    /// If the blob is not complete, or `dest` cannot be made or written; then it is removed.
    pub fn copy_to(&self, dest: &Path) -> Result<CopyMethod, StoreError> {
        let data = self.finished()?;
        let to = File::options()
            .write(true)
            .create_new(true)
            .open(dest)
            .map_err(StoreError::io("create", dest))?;
        copy(&data.file, &to, self.blob().size).map_err(|error| {
            // What stands there is ours and no file of the blob.
            let _ = fs::remove_file(dest);
            StoreError::io("copy a blob to", dest)(error)
        })
    }

    /// Makes `dest`, which must not exist, another name of the store's own file. Whoever writes to it then destroys what the
    /// store holds, so only on the user's request; and it takes no space of its own, even once the blob is evicted here.
    ///
    /// # Errors
    /// If the blob is not complete, or `dest` is on another filesystem or cannot be made.
    pub fn link_to(&self, dest: &Path) -> Result<(), StoreError> {
        self.finished()?;
        let path = self.0.shared.layout.finished(&self.blob().digest);
        fs::hard_link(path, dest).map_err(StoreError::io("hard-link a blob as", dest))
    }

    fn finished(&self) -> Result<Arc<Data>, StoreError> {
        let state = self.0.state()?;
        let complete = state.phase == Phase::Finished;
        complete.then(|| Arc::clone(&state.data)).ok_or(StoreError::Incomplete {
            digest: self.blob().digest,
        })
    }
}

fn copy(from: &File, to: &File, size: u64) -> io::Result<CopyMethod> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(CopyMethod::Reflink);
    }
    let done = copy_ranges(from, to, size)?;
    if done == size {
        return Ok(CopyMethod::Range);
    }
    let mut buffer = vec![0; CHUNK];
    let mut at = done;
    while at < size {
        let part = &mut buffer[..CHUNK.min((size - at) as usize)];
        from.read_exact_at(part, at)?;
        to.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(CopyMethod::Plain)
}

/// How far the system got by itself: not at all, where it or the filesystems can't.
fn copy_ranges(from: &File, to: &File, size: u64) -> io::Result<u64> {
    let mut done = 0;
    while done < size {
        let (mut start, mut end) = (done, done);
        let len = usize::try_from(size - done).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut start), to, Some(&mut end), len) {
            Ok(0) => break,
            Ok(copied) => done += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}
