//! The store: which blobs there are, room for more, and which must go.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use piece::{Blob, Digest};

use crate::blob::{self, BlobFile};
use crate::config::Limits;
use crate::eviction::{Candidate, eviction_plan};
use crate::index::{Held, Index, Opened, Slot, Summary, footprint};
use crate::layout::{Layout, remove_if_there, sweep};
use crate::session::{Lock, Session};
use crate::side::Side;
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

/// What the store and all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) session: Session,
    limits: Limits,
    /// Whether the store is closed. Read-locked by whoever writes, so that closing waits for them.
    closed: RwLock<bool>,
    /// Held by whoever makes room: two who evict for themselves at once would evict too much, or give up too early.
    admission: Mutex<()>,
    index: Mutex<Index>,
    /// Last, so that the lock goes when nothing else is left.
    _lock: Lock,
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
            _lock: lock,
        })))
    }

    /// Every blob, whole or in progress, in no order.
    pub fn held(&self) -> Vec<Held> {
        locked(&self.0.index).slots().map(|slot| slot.held()).collect()
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

    /// Opens a blob that is here, or begins it: its space is reserved now, and others are evicted if need be. A media type is
    /// kept unless one is known.
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

impl Shared {
    /// Leave to write, which closing waits for.
    pub(crate) fn enter(&self) -> Result<RwLockReadGuard<'_, bool>, StoreError> {
        let closed = self.closed.read().expect("no thread panics while it holds this lock");
        if *closed { Err(StoreError::Closed) } else { Ok(closed) }
    }

    /// Removes a blob and kills the handles on it; false if somebody else did.
    pub(crate) fn remove(&self, slot: &Arc<Slot>) -> Result<bool, StoreError> {
        self.remove_opened(slot, &mut locked(&slot.open))
    }

    /// Opens a blob in the index; `None` if it is gone, or nothing of it holds and so it is gone now.
    fn open(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Option<BlobFile>, StoreError> {
        let mut opened = locked(&slot.open);
        if opened.removed {
            return Ok(None);
        }
        slot.touch();
        if let Some(inner) = opened.file.upgrade() {
            return Ok(Some(BlobFile::of(inner)));
        }
        let Some(inner) = blob::load(self, slot)? else {
            tracing::warn!(digest = %slot.blob.digest, "dropping a blob of which nothing can be proven");
            self.remove_opened(slot, &mut opened)?;
            return Ok(None);
        };
        opened.file = Arc::downgrade(&inner);
        Ok(Some(BlobFile::of(inner)))
    }

    /// `None` if somebody removed the blob meanwhile.
    fn open_or_create(self: &Arc<Self>, blob: Blob, media_type: Option<&str>) -> Result<Option<BlobFile>, StoreError> {
        let mut summary = Summary::default();
        media_type.map(|media_type| summary.meta.set_media_type(media_type));
        let fresh = Slot::new(blob, summary, SystemTime::now());
        // Locked before anybody can see it, so that they wait until there is a file.
        let mut opened = locked(&fresh.open);
        if let Some(slot) = self.admit(&fresh)? {
            return self.open_existing(&slot, blob.size, media_type);
        }
        let created = loop {
            match blob::create(self, &fresh) {
                Err(StoreError::DiskFull { .. }) if self.make_room(footprint(&blob)) => {}
                other => break other,
            }
        };
        match created {
            Ok(inner) => {
                opened.file = Arc::downgrade(&inner);
                Ok(Some(BlobFile::of(inner)))
            }
            Err(error) => {
                // Whatever cannot be unlinked either is swept up by the next session.
                let _ = self.unlink(&blob.digest);
                self.forget(&fresh, &mut opened);
                Err(error)
            }
        }
    }

    fn open_existing(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<Option<BlobFile>, StoreError> {
        if slot.blob.size == size {
            let file = self.open(slot)?;
            if let (Some(file), Some(media_type)) = (&file, media_type) {
                file.add_media_type(media_type)?;
            }
            return Ok(file);
        }
        // Whoever began it had a wrong descriptor, or we have. A proven size is right; one that somebody works with stays.
        let held = slot.held();
        if held.complete || held.in_use {
            let digest = slot.blob.digest;
            return Err(StoreError::OtherSize {
                digest,
                held: slot.blob.size,
                asked: size,
            });
        }
        self.remove(slot).map(|_| None)
    }

    /// Puts a new blob into the index once there is room for it. `Some` if there is one with this digest already.
    fn admit(&self, fresh: &Arc<Slot>) -> Result<Option<Arc<Slot>>, StoreError> {
        let existing = |index: &Index| index.get(&fresh.blob.digest).map(Arc::clone);
        if let Some(slot) = existing(&locked(&self.index)) {
            return Ok(Some(slot));
        }
        let _alone = locked(&self.admission);
        let needed = footprint(&fresh.blob);
        let Limits { capacity, high, low } = self.limits;
        let (candidates, used) = self.candidates();
        if used.saturating_add(needed) > high {
            let held = held_bytes(&candidates);
            if held.saturating_add(needed) > capacity {
                return Err(StoreError::Full {
                    blob: fresh.blob,
                    needed,
                    capacity,
                    used,
                    held,
                });
            }
            let target = if needed <= low { low } else { capacity };
            self.evict(&eviction_plan(&candidates, used.saturating_add(needed), target));
        }
        let mut index = locked(&self.index);
        if let Some(slot) = existing(&index) {
            return Ok(Some(slot));
        }
        // Something planned to go may have come into use meanwhile.
        if index.used().saturating_add(needed) > capacity {
            let used = index.used();
            return Err(StoreError::Full {
                blob: fresh.blob,
                needed,
                capacity,
                used,
                held: used,
            });
        }
        index.insert(Arc::clone(fresh));
        Ok(None)
    }

    /// Evicts for a filesystem that is fuller than the quota knows; false if nothing went.
    fn make_room(&self, needed: u64) -> bool {
        let _alone = locked(&self.admission);
        let (candidates, used) = self.candidates();
        !self
            .evict(&eviction_plan(&candidates, used, used.saturating_sub(needed)))
            .is_empty()
    }

    /// Carries out a plan, except for what has come into use or was pinned since. Returns what went.
    fn evict(&self, plan: &[Digest]) -> Vec<Digest> {
        let goes = |digest: &&Digest| {
            let Some(slot) = locked(&self.index).get(digest).map(Arc::clone) else {
                return false;
            };
            let Ok(mut opened) = slot.open.try_lock() else {
                return false;
            };
            if opened.file.strong_count() > 0 || locked(&slot.summary).meta.pinned {
                return false;
            }
            self.remove_opened(&slot, &mut opened).unwrap_or_else(|error| {
                tracing::warn!(%digest, %error, "cannot evict a blob");
                false
            })
        };
        plan.iter().filter(goes).copied().collect()
    }

    fn remove_opened(&self, slot: &Slot, opened: &mut Opened) -> Result<bool, StoreError> {
        if opened.removed {
            return Ok(false);
        }
        let unlink = || self.unlink(&slot.blob.digest);
        match opened.file.upgrade() {
            Some(file) => file.die(unlink)?,
            None => unlink()?,
        }
        self.forget(slot, opened);
        Ok(true)
    }

    /// The side file last: without data it is swept up, while data without it looks like a loss.
    fn unlink(&self, digest: &Digest) -> Result<(), StoreError> {
        for path in [
            self.layout.finished(digest),
            self.layout.partial(digest),
            self.layout.side(digest),
        ] {
            remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(())
    }

    fn forget(&self, slot: &Slot, opened: &mut Opened) {
        opened.removed = true;
        locked(&self.index).remove(slot);
    }

    fn candidates(&self) -> (Vec<Candidate>, u64) {
        let index = locked(&self.index);
        (index.slots().map(|slot| slot.candidate()).collect(), index.used())
    }
}

fn held_bytes(candidates: &[Candidate]) -> u64 {
    candidates
        .iter()
        .filter(|candidate| !candidate.evictable())
        .map(|candidate| candidate.bytes)
        .sum()
}

/// Reads what is there and removes what an interrupted write left. Also returns the highest epoch that a side file names.
fn scan(layout: &Layout) -> Result<(Index, u64), OpenError> {
    let partial: HashSet<_> = sweep(&layout.partial)?.into_iter().collect();
    let sides: HashSet<_> = sweep(&layout.side)?.into_iter().collect();
    let drop_file = |path: &Path| remove_if_there(path).map_err(OpenError::io("remove the stray", path));
    let mut index = Index::default();
    let mut seen = 0;
    let mut keep = HashSet::new();
    for (digest, complete) in sweep(&layout.blobs)?
        .into_iter()
        .map(|digest| (digest, true))
        .chain(partial.iter().map(|digest| (*digest, false)))
    {
        let path = if complete {
            layout.finished(&digest)
        } else {
            layout.partial(&digest)
        };
        // In both places: verification found bad pieces and was moving it back, so the finished file is the one to drop.
        let superseded = complete && partial.contains(&digest);
        match if superseded {
            None
        } else {
            found(layout, &digest, &path, complete)
        } {
            Some((slot, epoch)) => {
                seen = seen.max(epoch);
                keep.insert(digest);
                index.insert(slot);
            }
            None => drop(drop_file(&path)?),
        }
    }
    for digest in sides.difference(&keep) {
        drop_file(&layout.side(digest))?;
    }
    Ok((index, seen))
}

/// The blob with this file, and the epoch of its side file; `None` if it is worth nothing.
fn found(layout: &Layout, digest: &Digest, path: &Path, complete: bool) -> Option<(Arc<Slot>, u64)> {
    let metadata = fs::metadata(path).ok()?;
    let side_path = layout.side(digest);
    let side = Side::read(&side_path, digest).unwrap_or_else(|error| {
        tracing::warn!(path = %side_path.display(), %error, "cannot read a side file");
        None
    });
    let used = fs::metadata(&side_path)
        .and_then(|side| side.modified())
        .or_else(|_| metadata.modified());
    let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
    match side {
        Some(side) if side.blob.size == metadata.len() => {
            let complete = complete && side.bits.is_full();
            let summary = Summary {
                pieces: side.bits.count(),
                complete,
                meta: side.meta,
            };
            Some((Slot::new(side.blob, summary, used), side.epoch))
        }
        // A finished file can be hashed whole without a side file. One in progress has no midstates then, so no proof.
        None if complete => {
            let blob = Blob {
                digest: *digest,
                size: metadata.len(),
            };
            let summary = Summary {
                pieces: blob.geometry().count(),
                complete,
                ..Summary::default()
            };
            Some((Slot::new(blob, summary, used), 0))
        }
        Some(_) | None => None,
    }
}
