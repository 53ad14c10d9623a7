//! The blobs in the directory of a node that does not run.

use std::path::Path;

use piece::Digest;
use store::{OpenError, Store};

use super::Verified;
use crate::commands::status::Blob;
use crate::failure::Failure;

/// A node's store, opened by this process.
pub(super) struct Direct(Store);

impl Direct {
    /// Opens a directory that is a node's already: a misspelt one must not become a store.
    pub(super) fn open(dir: &Path, capacity: u64) -> Result<Self, Failure> {
        if !dir.join("blobs").is_dir() {
            return Err(format!("{} is no data directory of a node", dir.display()).into());
        }
        match Store::open(store::Config {
            capacity,
            ..store::Config::at(dir)
        }) {
            Ok(store) => Ok(Self(store)),
            Err(OpenError::Locked { path, .. }) => {
                let dir = path.display();
                Err(format!("the node of {dir} is running: ask it by --admin URL instead of --data-dir").into())
            }
            Err(error @ (OpenError::Version { .. } | OpenError::WaterMarks { .. } | OpenError::Io { .. })) => {
                Err(error.into())
            }
        }
    }

    pub(super) fn blobs(&self) -> Vec<Blob> {
        let blobs = self.0.held().into_iter().map(|held| Blob {
            digest: held.blob.digest.to_string(),
            size: held.blob.size,
            pieces: held.blob.geometry().count(),
            held: held.pieces,
            complete: held.complete,
            pinned: held.pinned,
            media_type: held.media_type,
        });
        blobs.collect()
    }

    pub(super) fn verify(&self, digest: &Digest) -> Result<Verified, Failure> {
        let file = self
            .0
            .get(digest)
            .ok_or_else(|| format!("{digest} cannot be opened; the log says why"))?;
        let pieces = file.geometry().count();
        let damaged = file.verify_all(|_, _| {})?;
        Ok(Verified {
            pieces,
            damaged: damaged.iter().map(|piece| piece.get()).collect(),
        })
    }

    pub(super) fn pin(&self, digest: &Digest, pinned: bool) -> Result<(), Failure> {
        if pinned {
            self.0.pin(digest)?
        } else {
            self.0.unpin(digest)?
        }
        Ok(())
    }

    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Failure> {
        self.0.remove(digest)?;
        Ok(())
    }

    pub(super) fn gc(&self) -> Vec<String> {
        self.0.evict().iter().map(Digest::to_string).collect()
    }

    pub(super) fn close(self) -> Result<(), Failure> {
        self.0.close().map_err(Failure::from)
    }
}

#[cfg(test)]
mod tests {
    use piece::Blob as PieceBlob;

    use super::*;

    fn filled(dir: &Path) -> Digest {
        let store = Store::open(store::Config::at(dir)).unwrap();
        let content = vec![7; 600 << 10];
        let blob = PieceBlob {
            digest: Digest::of(&content),
            size: content.len() as u64,
        };
        store.insert(blob, Some("a/b"), &content).unwrap();
        store.close().unwrap();
        blob.digest
    }

    #[test]
    fn lists_pins_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let digest = filled(dir.path());
        let direct = Direct::open(dir.path(), 0).unwrap();
        direct.pin(&digest, true).unwrap();
        let blobs = direct.blobs();
        assert_eq!((blobs.len(), blobs[0].pinned, blobs[0].complete), (1, true, true));
        direct.pin(&digest, false).unwrap();
        assert!(!direct.blobs()[0].pinned);
        assert!(direct.gc().is_empty(), "far below the high water mark");
        direct.remove(&digest).unwrap();
        assert!(direct.blobs().is_empty());
        direct.close().unwrap();
    }

    #[test]
    fn finds_a_flipped_bit() {
        use std::os::unix::fs::FileExt as _;
        let dir = tempfile::tempdir().unwrap();
        let digest = filled(dir.path());
        let name = digest.to_string().replace("sha256:", "");
        let path = dir.path().join("blobs").join(name);
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&path, permissions).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[6], 300 << 10).unwrap();
        let direct = Direct::open(dir.path(), 0).unwrap();
        assert_eq!(direct.verify(&digest).unwrap().damaged, [1]);
    }

    #[test]
    fn a_directory_in_use_or_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            Direct::open(dir.path(), 0)
                .err()
                .unwrap()
                .to_string()
                .contains("no data directory")
        );
        filled(dir.path());
        let running = Store::open(store::Config::at(dir.path())).unwrap();
        assert!(
            Direct::open(dir.path(), 0)
                .err()
                .unwrap()
                .to_string()
                .contains("--admin")
        );
        drop(running);
    }
}
