//! What the store and the handles on its blobs share: who is open, what comes, what must go.

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use piece::{Blob, Digest};

use crate::blob::{self, BlobFile, Inner};
use crate::config::Limits;
use crate::eviction::{Candidate, eviction_plan};
use crate::index::{Index, Opened, Slot, Summary, footprint};
use crate::layout::{Layout, remove_if_there};
use crate::reservation::Promises;
use crate::session::{Lock, Session};
use crate::{StoreError, locked};

/// One store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) session: Session,
    pub(crate) limits: Limits,
    /// Whether the store is closed. Read-locked by whoever writes, so that closing waits for them.
    pub(crate) closed: RwLock<bool>,
    /// Held by whoever makes room: two who evict for themselves at once would evict too much, or give up too early.
    pub(crate) admission: Mutex<()>,
    pub(crate) index: Mutex<Index>,
    pub(crate) promises: Promises,
    /// Last, so that the lock goes when nothing else is left.
    pub(crate) _lock: Lock,
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
    pub(crate) fn open(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Option<BlobFile>, StoreError> {
        let opened = self.look(slot)?;
        if let Some(inner) = &opened {
            slot.touch();
            inner.set_used();
        }
        Ok(opened.map(BlobFile::of))
    }

    /// The same for somebody who only checks it: it does not count as used.
    pub(crate) fn look(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Option<Arc<Inner>>, StoreError> {
        let mut opened = locked(&slot.open);
        if opened.removed {
            return Ok(None);
        }
        if let Some(inner) = opened.file.upgrade() {
            return Ok(Some(inner));
        }
        let Some(inner) = blob::load(self, slot)? else {
            tracing::warn!(digest = %slot.blob.digest, "dropping a blob of which nothing can be proven");
            self.remove_opened(slot, &mut opened)?;
            return Ok(None);
        };
        opened.file = Arc::downgrade(&inner);
        Ok(Some(inner))
    }

    /// `None` if somebody removed the blob meanwhile.
    pub(crate) fn open_or_create(
        self: &Arc<Self>,
        blob: Blob,
        media_type: Option<&str>,
    ) -> Result<Option<BlobFile>, StoreError> {
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
                inner.set_used();
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
    pub(crate) fn make_room(&self, needed: u64) -> bool {
        let _alone = locked(&self.admission);
        let (candidates, used) = self.candidates();
        !self
            .evict(&eviction_plan(&candidates, used, used.saturating_sub(needed)))
            .is_empty()
    }

    /// Carries out a plan, except for what has come into use or was pinned since. Returns what went.
    pub(crate) fn evict(&self, plan: &[Digest]) -> Vec<Digest> {
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

    pub(crate) fn candidates(&self) -> (Vec<Candidate>, u64) {
        let index = locked(&self.index);
        (index.slots().map(|slot| slot.candidate()).collect(), index.used())
    }
}

pub(crate) fn held_bytes(candidates: &[Candidate]) -> u64 {
    candidates
        .iter()
        .filter(|candidate| !candidate.evictable())
        .map(|candidate| candidate.bytes)
        .sum()
}
