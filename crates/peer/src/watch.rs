//! What those who wait for a blob can see of it: its size, that another piece is here, that it is whole, or that it failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use piece::{Blob, Digest};
use tokio::sync::watch;
use wire::control::Failure;

/// The state of one blob as a waiter sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Known once somebody told its size.
    pub(crate) blob: Option<Blob>,
    /// The store has taken it in, so that its pieces have a place.
    pub(crate) opened: bool,
    /// Its media type, if the registry or a neighbour told.
    pub(crate) media_type: Option<String>,
    /// Pieces that came to rest since the watch began: only its change matters.
    pub(crate) gained: u64,
    /// The whole blob is here and proven.
    pub(crate) complete: bool,
    /// How many attempts have failed; a waiter counts only those after it began to wait.
    pub(crate) failures: u64,
    /// How the last one failed.
    pub(crate) failure: Option<Failure>,
}

impl Seen {
    /// Another attempt has failed.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failures += 1;
        self.opened = false;
        self.failure = Some(failure);
    }

    /// How an attempt has failed since `failures` were counted, if one has.
    pub(crate) fn failed_since(&self, failures: u64) -> Option<&Failure> {
        self.failure.as_ref().filter(|_| self.failures > failures)
    }
}

/// One waiter's view; while one exists, the blob's state is tracked.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// Keeps the blob tracked.
    _sender: Arc<watch::Sender<Seen>>,
    receiver: watch::Receiver<Seen>,
}

impl Watch {
    /// The state now.
    pub(crate) fn now(&self) -> Seen {
        self.receiver.borrow().clone()
    }

    /// Waits until `done` holds, and returns the state at that moment.
    pub(crate) async fn until(&mut self, done: impl FnMut(&Seen) -> bool) -> Seen {
        // The sender lives in this very struct, so the channel cannot close.
        self.receiver
            .wait_for(done)
            .await
            .map(|seen| seen.clone())
            .unwrap_or_default()
    }

    /// Waits for any change since last looked at.
    pub(crate) async fn changed(&mut self) -> Seen {
        let _ = self.receiver.changed().await;
        self.receiver.borrow_and_update().clone()
    }
}

/// The blobs that somebody waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watches {
    /// Entries live as long as their waiters; dead ones are swept as the map grows.
    map: Arc<Mutex<HashMap<Digest, Weak<watch::Sender<Seen>>>>>,
}

impl Watches {
    /// Joins those who wait for a blob.
    pub(crate) fn of(&self, digest: &Digest) -> Watch {
        let mut map = self.map.lock().expect("no holder of this lock panics");
        if let Some(sender) = map.get(digest).and_then(Weak::upgrade) {
            let receiver = sender.subscribe();
            return Watch {
                _sender: sender,
                receiver,
            };
        }
        if map.len().is_power_of_two() {
            map.retain(|_, sender| sender.strong_count() > 0);
        }
        let sender = Arc::new(watch::Sender::new(Seen::default()));
        map.insert(*digest, Arc::downgrade(&sender));
        let receiver = sender.subscribe();
        Watch {
            _sender: sender,
            receiver,
        }
    }

    /// Tells those who wait for a blob, if anybody does.
    pub(crate) fn tell(&self, digest: &Digest, change: impl FnOnce(&mut Seen)) {
        let sender = self
            .map
            .lock()
            .expect("no holder of this lock panics")
            .get(digest)
            .and_then(Weak::upgrade);
        if let Some(sender) = sender {
            sender.send_modify(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_see_changes_and_leave_nothing_behind() {
        let watches = Watches::default();
        let mut watch = watches.of(&Digest::EMPTY);
        watches.tell(&Digest::EMPTY, |seen| seen.complete = true);
        assert!(watch.until(|seen| seen.complete).await.complete);
        drop(watch);
        for n in 0..64u8 {
            drop(watches.of(&Digest::of(&[n])));
        }
        assert!(watches.map.lock().unwrap().len() <= 33, "dead entries are swept");
    }
}
