//! Where everything lies under the data directory.
//!
//! ```text
//! lock             who uses the directory
//! session          how the last session ended
//! blobs/<hex>      whole blobs
//! partial/<hex>    blobs in progress, at their full length
//! side/<hex>       bitmap, midstates and the rest, of both
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use piece::Digest;

use crate::OpenError;

/// Ends the name of a file that is being written and will be renamed into place.
const UNFINISHED: &str = ".new";

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) partial: PathBuf,
    pub(crate) side: PathBuf,
}

impl Layout {
    /// The layout under this directory, made where absent.
    pub(crate) fn create(root: &Path) -> Result<Self, OpenError> {
        let below = |name| root.join(name);
        let layout = Self {
            root: root.to_owned(),
            blobs: below("blobs"),
            partial: below("partial"),
            side: below("side"),
        };
        for dir in [&layout.root, &layout.blobs, &layout.partial, &layout.side] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(OpenError::io("make the directory", dir))?;
        }
        Ok(layout)
    }

    /// A whole blob.
    pub(crate) fn finished(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// A blob in progress.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partial.join(digest.hex())
    }

    /// Its side file.
    pub(crate) fn side(&self, digest: &Digest) -> PathBuf {
        self.side.join(digest.hex())
    }
}

/// The name of `path` while it is being written.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// Makes a file that only we can read, in place of whatever has its name. What had it keeps its inode, so a map of it stays
/// as it was.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    remove_if_there(path)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Unlinks a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes renames into and out of a directory last through a loss of power.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The blobs with a file in this directory. What an interrupted write left is removed; what we never wrote is left alone.
pub(crate) fn sweep(dir: &Path) -> Result<Vec<Digest>, OpenError> {
    let mut digests = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
        let entry = entry.map_err(OpenError::io("list", dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if let Some(digest) = parse(&name) {
            digests.push(digest);
        } else if name.strip_suffix(UNFINISHED).is_some_and(|name| parse(name).is_some()) {
            remove_if_there(&path).map_err(OpenError::io("remove the unfinished", &path))?;
        } else {
            tracing::warn!(path = %path.display(), "leaving alone a file that is not the store's");
        }
    }
    Ok(digests)
}

fn parse(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn sweeping_removes_unfinished_files_and_leaves_strangers() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let digest = Digest::of(b"x");
        for name in [
            digest.hex(),
            format!("{}.new", digest.hex()),
            "notes.new".to_owned(),
            "README".to_owned(),
        ] {
            fs::write(layout.side.join(name), "").unwrap();
        }
        assert_eq!(sweep(&layout.side).unwrap(), [digest]);
        let left = |name: &str| layout.side.join(name).exists();
        assert!(left(&digest.hex()) && left("notes.new") && left("README"));
        assert!(!left(&format!("{}.new", digest.hex())));
    }

    #[test]
    fn files_and_directories_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("deep/store")).unwrap();
        let file = layout.partial(&Digest::EMPTY);
        create_private(&file).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&layout.root), mode(&layout.side), mode(&file)),
            (0o700, 0o700, 0o600)
        );
    }
}
