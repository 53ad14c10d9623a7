//! The node's rate limits, which its transfers keep by waiting.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use swarm::RateLimit;
use tokio::sync::Notify;

/// Bytes that go before a sender looks at its limit again, so that a slow limit is smooth and a raised one is soon felt.
pub(crate) const PORTION: usize = 64 << 10;

/// Rate limits in bytes per second; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// To other nodes.
    pub upload: u64,
    /// From other nodes.
    pub download: u64,
    /// From registries.
    pub registry: u64,
}

/// All limits of a node.
#[derive(Debug)]
pub(crate) struct Pacing {
    pub(crate) upload: Pace,
    pub(crate) download: Pace,
    pub(crate) registry: Pace,
}

impl Pacing {
    pub(crate) fn new(rates: Rates) -> Self {
        Self {
            upload: Pace::new(rates.upload),
            download: Pace::new(rates.download),
            registry: Pace::new(rates.registry),
        }
    }

    pub(crate) fn rates(&self) -> Rates {
        Rates {
            upload: self.upload.rate(),
            download: self.download.rate(),
            registry: self.registry.rate(),
        }
    }

    /// Changes the limits; whoever waits under an old one goes on at once.
    pub(crate) fn set(&self, rates: Rates) {
        self.upload.set(rates.upload);
        self.download.set(rates.download);
        self.registry.set(rates.registry);
    }
}

/// One limit, shared by everything that it holds for.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    limit: Mutex<RateLimit>,
    changed: Notify,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self {
            begun: Instant::now(),
            limit: Mutex::new(RateLimit::new(rate)),
            changed: Notify::new(),
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.rate() > 0
    }

    fn rate(&self) -> u64 {
        self.locked().rate()
    }

    fn set(&self, rate: u64) {
        if self.rate() != rate {
            self.locked().set(self.begun.elapsed(), rate);
            self.changed.notify_waiters();
        }
    }

    /// Waits until more may go after these bytes.
    pub(crate) async fn pass(&self, bytes: usize) {
        let changed = self.changed.notified();
        let wait = self.locked().pass(self.begun.elapsed(), bytes as u64);
        if wait > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, RateLimit> {
        self.limit.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_goes_on_when_the_limit_is_lifted() {
        let pacing = std::sync::Arc::new(Pacing::new(Rates {
            upload: 1,
            ..Rates::default()
        }));
        let waiting = {
            let pacing = std::sync::Arc::clone(&pacing);
            tokio::spawn(async move { pacing.upload.pass(PORTION).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        pacing.set(Rates::default());
        waiting.await.unwrap();
        assert_eq!(pacing.rates(), Rates::default());
    }

    #[test]
    fn a_misspelt_limit_is_an_error() {
        let error = serde_json::from_str::<Rates>(r#"{"upload": 1, "downlaod": 2, "registry": 3}"#).unwrap_err();
        assert!(error.to_string().contains("downlaod"), "{error}");
    }
}
