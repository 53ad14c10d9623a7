//! Piece buffers: one pool, so that memory is bounded whatever the blobs, the neighbours and the clients.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for. Pieces are multiples of this, except last pieces, which round up.
const UNIT: u64 = 64 << 10;

/// A pool of memory for pieces under way.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    permits: Arc<Semaphore>,
    limit: u32,
    /// Returned buffers, kept so that their pages stay mapped; together never more than the pool's limit.
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer of one piece; it returns to the pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// A pool of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        let limit = u32::try_from(limit.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4).max(1);
        Self {
            permits: Arc::new(Semaphore::new(limit as usize)),
            limit,
            spare: Arc::new(Mutex::new(Vec::new())),
        }
    }

    /// A zeroed or reused buffer of exactly `len` bytes, when the pool has room for it. A piece longer than the whole pool
    /// gets the whole pool: there is no other way to take it.
    pub(crate) async fn take(&self, len: usize) -> Buffer {
        let units = u32::try_from((len as u64).div_ceil(UNIT))
            .unwrap_or(self.limit)
            .clamp(1, self.limit);
        let permit = Arc::clone(&self.permits)
            .acquire_many_owned(units)
            .await
            .expect("the pool is never closed");
        let mut bytes = self
            .spare
            .lock()
            .expect("no holder of this lock panics")
            .pop()
            .unwrap_or_default();
        bytes.resize(len, 0);
        Buffer {
            bytes,
            spare: Arc::clone(&self.spare),
            _permit: permit,
        }
    }
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Small buffers are cheaper to allocate than to keep, and keeping one must not pin a large capacity for long.
        const KEPT: usize = 8;
        let bytes = std::mem::take(&mut self.bytes);
        let mut spare = self.spare.lock().expect("no holder of this lock panics");
        if bytes.capacity() >= (1 << 20) && spare.len() < KEPT {
            spare.push(bytes);
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
            async move { pool.take(1).await.as_ref().len() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "nothing is left");
        drop(first);
        assert_eq!(waiting.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_piece_longer_than_the_pool_still_gets_through() {
        let pool = Buffers::new(1 << 20);
        assert_eq!(pool.take(2 << 20).await.as_ref().len(), 2 << 20);
    }
}
