//! What the store knows of each blob without opening it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use piece::{Blob, Digest};

use crate::blob::Inner;
use crate::eviction::Candidate;
use crate::locked;

/// The longest media type kept: a type and a subtype of 127 characters each and a slash (RFC 6838, section 4.2).
pub const MAX_MEDIA_TYPE: usize = 255;
/// The longest source kept; a registry and a repository name have at most 255 characters each.
pub const MAX_SOURCE: usize = 600;
/// The most sources kept of one blob. One suffices to read it again.
pub const MAX_SOURCES: usize = 8;

/// One blob of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which blob.
    pub blob: Blob,
    /// Verified pieces that are here. After an unclean stop they are proven anew when the blob is first opened, and some may
    /// turn out missing then.
    pub pieces: u32,
    /// Whether all are, and the file has its final name.
    pub complete: bool,
    /// Media type as the registry gave it, if known.
    pub media_type: Option<String>,
    /// Where it can be read outside the swarm, in the words of whoever noted it.
    pub sources: Vec<String>,
    /// Whether the operator keeps it.
    pub pinned: bool,
    /// Whether somebody holds it open.
    pub in_use: bool,
    /// When it was opened or let go last, in seconds since 1970.
    pub last_used: u64,
    /// Bytes that it counts against the quota: data and side file in whole blocks.
    pub bytes: u64,
}

/// What is known about a blob beside its bytes and midstates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) media_type: Option<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) pinned: bool,
}

impl Meta {
    /// Sets the media type; false if it cannot be one.
    pub(crate) fn set_media_type(&mut self, media_type: &str) -> bool {
        let fits = !media_type.is_empty() && media_type.len() <= MAX_MEDIA_TYPE;
        if fits {
            self.media_type = Some(media_type.to_owned());
        }
        fits
    }

    /// Adds a source; false if it is no new one, too long, or there are enough.
    pub(crate) fn add_source(&mut self, source: &str) -> bool {
        let new = self.sources.len() < MAX_SOURCES
            && source.len() <= MAX_SOURCE
            && !self.sources.iter().any(|known| known == source);
        if new {
            self.sources.push(source.to_owned());
        }
        new
    }
}

/// The part of a [`Held`] that changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) pieces: u32,
    pub(crate) complete: bool,
    pub(crate) meta: Meta,
}

/// The place of one blob in the index. Locks are taken in this order: `open`, then the blob's state, then the index, then
/// `summary`; the index's holder only ever tries `open`.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) blob: Blob,
    /// Nanoseconds since 1970.
    last_used: AtomicU64,
    pub(crate) summary: Mutex<Summary>,
    /// Held while the blob is created, loaded or removed.
    pub(crate) open: Mutex<Opened>,
}

/// Whether a blob is open.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) file: Weak<Inner>,
    /// The slot has left the index; look there again.
    pub(crate) removed: bool,
}

impl Slot {
    pub(crate) fn new(blob: Blob, summary: Summary, last_used: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            blob,
            last_used: AtomicU64::new(nanos(last_used)),
            summary: Mutex::new(summary),
            open: Mutex::default(),
        })
    }

    /// Notes that the blob was used now.
    pub(crate) fn touch(&self) -> SystemTime {
        let now = SystemTime::now();
        self.last_used.store(nanos(now), Ordering::Relaxed);
        now
    }

    /// Whether a handle lives, or the blob is being opened or removed just now.
    fn in_use(&self) -> bool {
        self.open
            .try_lock()
            .map_or(true, |opened| opened.file.strong_count() > 0)
    }

    pub(crate) fn held(&self) -> Held {
        let in_use = self.in_use();
        let Summary { pieces, complete, meta } = locked(&self.summary).clone();
        let Meta {
            media_type,
            sources,
            pinned,
        } = meta;
        let last_used = self.last_used.load(Ordering::Relaxed) / 1_000_000_000;
        let bytes = footprint(&self.blob);
        Held {
            blob: self.blob,
            pieces,
            complete,
            media_type,
            sources,
            pinned,
            in_use,
            last_used,
            bytes,
        }
    }

    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            digest: self.blob.digest,
            bytes: footprint(&self.blob),
            last_used: self.last_used.load(Ordering::Relaxed),
            in_use: self.in_use(),
            pinned: locked(&self.summary).meta.pinned,
        }
    }
}

/// All blobs, and the bytes they count.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: HashMap<Digest, Arc<Slot>>,
    used: u64,
}

impl Index {
    pub(crate) fn get(&self, digest: &Digest) -> Option<&Arc<Slot>> {
        self.slots.get(digest)
    }

    pub(crate) fn insert(&mut self, slot: Arc<Slot>) {
        self.used += footprint(&slot.blob);
        let before = self.slots.insert(slot.blob.digest, slot);
        debug_assert!(before.is_none(), "whoever inserts has looked");
    }

    pub(crate) fn remove(&mut self, slot: &Slot) {
        let gone = self.slots.remove(&slot.blob.digest);
        debug_assert!(gone.is_some(), "a slot leaves the index once");
        self.used -= footprint(&slot.blob);
    }

    pub(crate) const fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn slots(&self) -> impl ExactSizeIterator<Item = &Arc<Slot>> {
        self.slots.values()
    }
}

/// Bytes that a blob counts against the quota: its data, and a side file with a record and two midstates per piece, both in
/// whole blocks of 4 KiB.
pub(crate) fn footprint(blob: &Blob) -> u64 {
    const BLOCK: u64 = 4096;
    let side = 512 + 80 * u64::from(blob.geometry().count());
    (blob.size.div_ceil(BLOCK).saturating_add(side.div_ceil(BLOCK))).saturating_mul(BLOCK)
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_blobs_count_whole_blocks_and_absurd_ones_do_not_overflow() {
        let of = |size| {
            footprint(&Blob {
                digest: Digest::EMPTY,
                size,
            })
        };
        assert_eq!((of(0), of(1), of(4096), of(4097)), (4096, 8192, 8192, 12_288));
        assert!(of(u64::MAX) >= u64::MAX - 4096);
    }

    #[test]
    fn media_types_and_sources_are_bounded() {
        let mut meta = Meta::default();
        assert!(!meta.set_media_type("") && !meta.set_media_type(&"x".repeat(256)));
        assert!(meta.set_media_type("application/x") && meta.media_type.is_some());
        assert!(!meta.add_source(&"x".repeat(601)));
        let added = (0..20).filter(|n| meta.add_source(&format!("registry/{n}"))).count();
        assert_eq!((added, meta.sources.len()), (MAX_SOURCES, MAX_SOURCES));
        assert!(!meta.add_source("registry/0"), "known already");
    }
}
