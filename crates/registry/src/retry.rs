//! When to ask again, and when to give up.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use crate::config::Config;
use crate::error::RegistryError;

/// The attempts that one read has left.
#[derive(Debug)]
pub(crate) struct Retry {
    retries: u32,
    backoff: Duration,
    max_wait: Duration,
    progress: u64,
    failed: u32,
    gained: u64,
}

impl Retry {
    pub(crate) const fn new(config: &Config) -> Self {
        let Config {
            retries,
            backoff,
            max_wait,
            progress,
            ..
        } = *config;
        Self {
            retries,
            backoff,
            max_wait,
            progress,
            failed: 0,
            gained: 0,
        }
    }

    /// Waits until the next attempt after `error`, or gives it back when there is to be none.
    pub(crate) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        match self.wait(&error, jitter()) {
            Some(wait) => {
                tracing::debug!(%error, attempt = self.failed, ?wait, "asking the registry again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Bytes have arrived; enough of them earn new attempts.
    pub(crate) const fn progress(&mut self, bytes: u64) {
        self.gained = self.gained.saturating_add(bytes);
        if self.gained >= self.progress {
            self.gained = 0;
            self.failed = 0;
        }
    }

    /// The wait before the next attempt; `jitter` is between 0 and 1.
    fn wait(&mut self, error: &RegistryError, jitter: f64) -> Option<Duration> {
        if !error.is_retryable() || self.failed >= self.retries {
            return None;
        }
        let doubled = self.backoff.saturating_mul(1 << self.failed.min(16)).min(self.max_wait);
        self.failed += 1;
        let own = doubled.mul_f64(0.5 + jitter / 2.0);
        match error.retry_after().map(|seconds| Duration::from_secs(seconds.into())) {
            Some(asked) if asked > self.max_wait => None,
            Some(asked) => Some(own.max(asked)),
            None => Some(own),
        }
    }
}

/// Between 0 and 1. The standard library's hash seeds are random enough to keep seeds from retrying in step.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<u32>) -> RegistryError {
        let request = "GET x".to_owned();
        RegistryError::Refused {
            request,
            status,
            detail: None,
            retry_after,
            challenge: None,
            redirected: false,
        }
    }

    fn retry() -> Retry {
        let config = Config {
            retries: 3,
            progress: 100,
            ..Config::default()
        };
        Retry::new(&config)
    }

    #[test]
    fn waits_double_until_the_attempts_are_spent() {
        let mut retry = retry();
        let waits: Vec<_> = (0..4).map(|_| retry.wait(&refused(503, None), 1.0)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(200), ms(400), ms(800), None]);
        assert_eq!(retry.wait(&refused(503, None), 0.0), None);
    }

    #[test]
    fn the_registry_may_ask_for_more_but_not_for_too_much() {
        let mut retry = retry();
        assert_eq!(retry.wait(&refused(429, Some(3)), 0.0), Some(Duration::from_secs(3)));
        assert_eq!(retry.wait(&refused(429, Some(3600)), 0.0), None);
        assert_eq!(retry.wait(&refused(404, None), 0.0), None);
    }

    #[test]
    fn progress_earns_new_attempts() {
        let mut retry = retry();
        for _ in 0..3 {
            assert!(retry.wait(&refused(500, None), 0.0).is_some());
        }
        retry.progress(99);
        assert!(retry.wait(&refused(500, None), 0.0).is_none());
        retry.progress(1);
        assert_eq!(retry.wait(&refused(500, None), 0.0), Some(Duration::from_millis(100)));
    }
}
