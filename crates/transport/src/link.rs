//! What the rest of the crate holds of one connection: the way in, while `connection` runs the task behind it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use quinn::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::error::CloseCode;
use crate::held::Wanted;
use crate::{Config, SendError, endpoint};

/// An admitted connection, as the table keeps it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) outbox: Outbox,
    /// What is being received over it.
    pub(crate) wanted: Wanted,
    /// The right to have a wide receive window, once it has one.
    pub(crate) window: OnceLock<OwnedSemaphorePermit>,
    /// Whether this end opened it.
    pub(crate) dialled: bool,
    pub(crate) since: Instant,
    /// Why this end closed it, if it did: first come, first heard.
    pub(crate) farewell: Arc<OnceLock<String>>,
    /// The task that serves it, up to and including its `Disconnected`.
    pub(crate) task: JoinHandle<()>,
}

impl Link {
    /// Whether it still carries anything.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Lets the neighbour, of whom something is about to be asked, have more in flight, unless too many others do.
    pub(crate) fn widen(&self, windows: &Arc<Semaphore>, config: &Config) {
        if self.window.get().is_none()
            && let Ok(permit) = windows.clone().try_acquire_owned()
            && self.window.set(permit).is_ok()
        {
            endpoint::widen(config, &self.connection);
        }
    }

    /// Ends it, and tells the other end why.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        // Only the first reason is the real one.
        let _ = self.farewell.set(reason.to_owned());
        self.connection.close(code.var_int(), reason.as_bytes());
    }
}

/// The queue of frames for one neighbour, bounded in number and in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

/// The other end of an [`Outbox`].
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// A queue of at most `frames` frames with at most `bytes` bytes.
pub(crate) fn outbox(frames: usize, bytes: usize) -> (Outbox, Outgoing) {
    let (sender, receiver) = mpsc::channel(frames);
    let waiting = Arc::new(AtomicUsize::new(0));
    (
        Outbox {
            queue: sender,
            bytes: waiting.clone(),
            limit: bytes,
        },
        Outgoing {
            queue: receiver,
            bytes: waiting,
        },
    )
}

impl Outbox {
    /// Queues a frame, at once or not at all.
    pub(crate) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        let length = frame.len();
        // Nothing else is ordered by this counter.
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                waiting.checked_add(length).filter(|sum| *sum <= self.limit)
            })
            .map_err(|_| SendError::Full)?;
        self.queue.try_send(frame).map_err(|error| {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full,
                mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
            }
        })
    }
}

impl Outgoing {
    /// Waits for frames and takes up to `most` of them; none when the outbox is gone.
    pub(crate) async fn take(&mut self, most: usize) -> Vec<Bytes> {
        let mut frames = Vec::new();
        self.queue.recv_many(&mut frames, most).await;
        let length = frames.iter().map(Bytes::len).sum();
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outbox_is_bounded_both_ways() {
        let (outbox, mut outgoing) = outbox(3, 100);
        outbox.push(Bytes::from_static(&[0; 60])).unwrap();
        assert_eq!(outbox.push(Bytes::from_static(&[0; 41])), Err(SendError::Full), "bytes");
        outbox.push(Bytes::from_static(&[0; 40])).unwrap();
        outbox.push(Bytes::new()).unwrap();
        assert_eq!(outbox.push(Bytes::new()), Err(SendError::Full), "frames");
        assert_eq!(outgoing.take(2).await.len(), 2);
        outbox.push(Bytes::from_static(&[0; 100])).unwrap();
        assert_eq!(outgoing.take(9).await.len(), 2);
        drop(outgoing);
        assert_eq!(outbox.push(Bytes::new()), Err(SendError::NotConnected));
        assert_eq!(
            outbox.push(Bytes::from_static(&[0; 100])),
            Err(SendError::NotConnected),
            "bytes were given back"
        );
    }
}
