//! Content-addressed blobs on disk: sparse files, bitmaps and midstates beside them, pins and quota.
//!
//! A [`Store`] owns one data directory; a [`BlobFile`] is one blob in it, whole or in progress, and in use while a handle
//! lives. Everything here blocks on the disk: call it where blocking is allowed. `docs/store.md` has the layout, the order
//! of writes, and what each crash leaves behind. What holds throughout:
//! - a bit is set only over bytes that were verified, and after they were written; bytes under a set bit never change;
//! - a file under `blobs/` is a whole proven blob, up to what the disk itself corrupts;
//! - nothing is read through a handle but verified pieces.

mod blob;
mod config;
mod data;
mod error;
mod eviction;
mod index;
mod layout;
mod map;
mod reservation;
mod scan;
mod session;
mod shared;
mod side;
mod side_log;
mod store;

pub use blob::{BlobFile, CopyMethod, Settled, Written};
pub use config::Config;
pub use error::{AcceptError, OpenError, StoreError};
pub use eviction::{Candidate, eviction_plan};
pub use index::{Held, MAX_MEDIA_TYPE, MAX_SOURCE, MAX_SOURCES};
pub use store::{Store, Usage};

use std::sync::{Mutex, MutexGuard};

/// Takes a lock that no thread panics under.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}
