//! The store as its callers see it.

use std::sync::{Arc, Mutex, RwLock};

use piece::{Blob, Digest};

use crate::blob::BlobFile;
use crate::config::Limits;
use crate::eviction::eviction_plan;
use crate::index::Held;
use crate::layout::Layout;
use crate::reservation::Promises;
use crate::scan::scan;
use crate::session::{Lock, Session};
use crate::shared::{Shared, held_bytes};
use crate::{Config, OpenError, StoreError, locked};

/// The blobs under one data directory, of which this is the only user. Clones are the same store; the directory is free
/// again when the last of them, and the last handle on a blob, is gone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

/// How full the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The quota in bytes.
    pub capacity: u64,
    /// Bytes past which eviction sets in.
    pub high: u64,
    /// Bytes at which it ends.
    pub low: u64,
    /// Bytes that count now.
    pub used: u64,
    /// Those of them in use or pinned, so not to be evicted.
    pub held: u64,
    /// Blobs, whole or in progress.
    pub blobs: usize,
}

impl Store {
    /// Opens the store under `config.data_dir`, or makes one there. Reads every side file, but no blob.
    ///
    /// # Errors
    /// If another process uses the directory, another version wrote it, or it cannot be read and written.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let layout = Layout::create(&config.data_dir)?;
        let lock = Lock::take(&layout)?;
        let filesystem = rustix::fs::statvfs(&layout.root)
            .map_err(|errno| OpenError::io("ask for the filesystem of", &layout.root)(errno.into()))?;
        let limits = Limits::of(&config, filesystem.f_blocks.saturating_mul(filesystem.f_frsize))?;
        let (index, seen) = scan(&layout)?;
        let session = Session::begin(&layout, seen)?;
        Ok(Self(Arc::new(Shared {
            layout,
            session,
            limits,
            closed: RwLock::new(false),
            admission: Mutex::new(()),
            index: Mutex::new(index),
            promises: Promises::default(),
            _lock: lock,
        })))
    }

    /// Every blob, whole or in progress, in no order.
    pub fn held(&self) -> Vec<Held> {
        locked(&self.0.index).slots().map(|slot| slot.held()).collect()
    }

    /// Whether all of a blob is here, as far as is known without opening it.
    pub fn is_complete(&self, digest: &Digest) -> bool {
        let slot = locked(&self.0.index).get(digest).map(Arc::clone);
        slot.is_some_and(|slot| locked(&slot.summary).complete)
    }

    /// Opens a blob that is here, whole or in progress. After an unclean stop this may take as long as hashing it.
    /// `None` if there is none, or if nothing of it could be proven or read (the log says so).
    pub fn get(&self, digest: &Digest) -> Option<BlobFile> {
        let _writing = self.0.enter().ok()?;
        let slot = Arc::clone(locked(&self.0.index).get(digest)?);
        self.0.open(&slot).unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "cannot open a blob in the store");
            None
        })
    }

    /// The same, to check it: that does not count as a use, after which it would be evicted later than others.
    pub fn look(&self, digest: &Digest) -> Option<BlobFile> {
        let _writing = self.0.enter().ok()?;
        let slot = Arc::clone(locked(&self.0.index).get(digest)?);
        let inner = self.0.look(&slot).unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "cannot open a blob in the store");
            None
        });
        inner.map(BlobFile::of)
    }

    /// Opens a blob that is here, or begins it: there is space for it that no other blob is given, and others are evicted
    /// if need be. A media type is kept unless one is known.
    ///
    /// # Errors
    /// If there is no room, the blob is known with another size, or the disk refuses.
    pub fn begin(&self, blob: Blob, media_type: Option<&str>) -> Result<BlobFile, StoreError> {
        let _writing = self.0.enter()?;
        loop {
            if let Some(file) = self.0.open_or_create(blob, media_type)? {
                return Ok(file);
            }
        }
    }

    /// Stores a blob whose bytes are all at hand, such as a manifest. Nothing happens if it is here already.
    ///
    /// # Errors
    /// If these are not the bytes that the digest names, there is no room, or the disk refuses.
    pub fn insert(&self, blob: Blob, media_type: Option<&str>, bytes: &[u8]) -> Result<BlobFile, StoreError> {
        let wrong = || StoreError::WrongContent { digest: blob.digest };
        if bytes.len() as u64 != blob.size || Digest::of(bytes) != blob.digest {
            return Err(wrong());
        }
        let file = self.begin(blob, media_type)?;
        if file.fill(bytes)? {
            return Ok(file);
        }
        // The midstates that it had so far were forged: these bytes are the ones, so begin without them.
        file.discard()?;
        let file = self.begin(blob, media_type)?;
        if file.fill(bytes)? { Ok(file) } else { Err(wrong()) }
    }

    /// Removes a blob, pinned or not. Handles on it are dead from then on; bytes read through them stay readable.
    /// `Ok(false)` if there was none.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let _writing = self.0.enter()?;
        let slot = locked(&self.0.index).get(digest).cloned();
        slot.map_or(Ok(false), |slot| self.0.remove(&slot))
    }

    /// Keeps a blob from eviction until it is unpinned or removed.
    ///
    /// # Errors
    /// If it is not here or the disk refuses.
    pub fn pin(&self, digest: &Digest) -> Result<(), StoreError> {
        self.set_pinned(digest, true)
    }

    /// Lets a blob be evicted again.
    ///
    /// # Errors
    /// If it is not here or the disk refuses.
    pub fn unpin(&self, digest: &Digest) -> Result<(), StoreError> {
        self.set_pinned(digest, false)
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let (candidates, used) = self.0.candidates();
        let Limits { capacity, high, low } = self.0.limits;
        Usage {
            capacity,
            high,
            low,
            used,
            held: held_bytes(&candidates),
            blobs: candidates.len(),
        }
    }

    /// Evicts down to the low water mark if more than the high one is used. Returns what went.
    pub fn evict(&self) -> Vec<Digest> {
        let Ok(_writing) = self.0.enter() else {
            return Vec::new();
        };
        let _alone = locked(&self.0.admission);
        let Limits { high, low, .. } = self.0.limits;
        let (candidates, used) = self.0.candidates();
        if used <= high {
            Vec::new()
        } else {
            self.0.evict(&eviction_plan(&candidates, used, low))
        }
    }

    /// Waits for writes in progress, refuses new ones, and notes that everything is on disk, so that the next session
    /// need not prove anything again.
    ///
    /// # Errors
    /// If the disk refuses; then the next session does.
    pub fn close(self) -> Result<(), StoreError> {
        let mut closed = self
            .0
            .closed
            .write()
            .expect("no thread panics while it holds this lock");
        if *closed {
            return Err(StoreError::Closed);
        }
        *closed = true;
        self.0
            .session
            .end()
            .map_err(StoreError::io("write", self.0.session.path()))
    }

    fn set_pinned(&self, digest: &Digest, pinned: bool) -> Result<(), StoreError> {
        self.get(digest)
            .ok_or(StoreError::NotHeld { digest: *digest })?
            .set_pinned(pinned)
    }
}
