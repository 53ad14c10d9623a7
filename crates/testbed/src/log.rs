//! Who was sent what.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use piece::Digest;

/// The most entries kept; beyond, the oldest go. The sums per digest stay complete.
const MAX_ENTRIES: usize = 1 << 16;

/// One answered request, logged when its last byte was handed to the connection or the client had gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `GET` or `HEAD`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Which part was asked for.
    pub range: Option<Range<u64>>,
    /// Of the answer.
    pub status: u16,
    /// Of the body, as handed to the connection: up to one chunk of 256 KiB more than was sent, if the client has gone.
    pub bytes: u64,
    /// Who asked.
    pub user_agent: String,
    /// What was served, if it was a blob or a manifest.
    pub digest: Option<Digest>,
}

/// The access log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    served: BTreeMap<Digest, u64>,
}

impl Log {
    pub(crate) fn add(&self, entry: Entry) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = entry.digest {
            *inner.served.entry(digest).or_default() += entry.bytes;
        }
        if inner.entries.len() >= MAX_ENTRIES {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entries
            .iter()
            .cloned()
            .collect()
    }

    pub(crate) fn served(&self) -> BTreeMap<Digest, u64> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).served.clone()
    }

    pub(crate) fn clear(&self) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Inner::default();
    }
}
