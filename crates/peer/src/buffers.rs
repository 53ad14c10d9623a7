//! Room for pieces in memory: one pool, so that memory is bounded whatever the blobs, the neighbours and the clients.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for. Pieces are multiples of this, except last pieces, which round up.
const UNIT: u64 = 64 << 10;

/// The pool: bytes of pieces under way that may be in memory.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    permits: Arc<Semaphore>,
    limit: u32,
}

/// Room for one piece; it returns to the pool when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// A pool of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        let limit = u32::try_from(limit.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4).max(1);
        Self {
            permits: Arc::new(Semaphore::new(limit as usize)),
            limit,
        }
    }

    /// Waits until there is room for `len` bytes. A piece longer than the whole pool gets the whole pool: there is no other
    /// way to take it.
    pub(crate) async fn take(&self, len: usize) -> Room {
        let units = u32::try_from((len as u64).div_ceil(UNIT))
            .unwrap_or(self.limit)
            .clamp(1, self.limit);
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await;
        Room {
            _permit: permit.expect("the semaphore is never closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_is_a_limit() {
        let pool = Buffers::new(1 << 20);
        let first = pool.take(1 << 20).await;
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { drop(pool.take(1).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "nothing is left");
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_piece_longer_than_the_pool_still_gets_through() {
        let pool = Buffers::new(1 << 20);
        let _all = pool.take(2 << 20).await;
        assert_eq!(pool.permits.available_permits(), 0);
    }
}
