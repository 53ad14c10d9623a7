//! Rate limits: when the next bytes may go.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A), which keeps one moment instead of a bucket to be refilled: the
//! time at which everything let through so far would have gone at the allowed rate.

use std::time::Duration;

/// How much may go at once after a pause: little enough to be smooth, long enough to outlast a timer's coarseness.
const BURST: Duration = Duration::from_millis(50);

/// A limit in bytes per second that can be changed while it is in use.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// Bytes per second; 0 for no limit.
    rate: u64,
    /// When what was let through would have gone at this rate.
    paid_until: Duration,
}

impl RateLimit {
    /// At most `rate` bytes per second; 0 for no limit.
    pub const fn new(rate: u64) -> Self {
        Self {
            rate,
            paid_until: Duration::ZERO,
        }
    }

    /// Bytes per second; 0 for no limit.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// Changes the limit from `now` on. What was let through under the old one is forgotten.
    pub fn set(&mut self, now: Duration, rate: u64) {
        self.rate = rate;
        self.paid_until = now;
    }

    /// Lets `bytes` through; whoever sent them is to wait this long before it sends more.
    pub fn pass(&mut self, now: Duration, bytes: u64) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.paid_until = self.paid_until.max(now.saturating_sub(BURST)) + cost;
        self.paid_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut limit = RateLimit::new(0);
        assert_eq!(limit.pass(Duration::ZERO, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_pause_is_worth_a_short_burst_and_no_more() {
        let mut limit = RateLimit::new(MIB);
        let now = Duration::from_secs(100);
        assert_eq!(limit.pass(now, MIB / 20), Duration::ZERO, "50 ms worth");
        let wait = limit.pass(now, MIB);
        assert!(
            wait.abs_diff(Duration::from_secs(1)) < Duration::from_micros(10),
            "{wait:?}"
        );
    }

    #[test]
    fn a_raised_limit_counts_at_once() {
        let mut limit = RateLimit::new(1);
        assert!(limit.pass(Duration::ZERO, MIB) > Duration::from_secs(1000));
        limit.set(Duration::from_secs(1), MIB);
        assert!(limit.pass(Duration::from_secs(1), MIB) <= Duration::from_secs(1));
        assert_eq!(limit.rate(), MIB);
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_than_the_rate_and_a_burst_goes(
            rate in 1..100 * MIB,
            sizes in prop::collection::vec((1..256 * 1024u64, 0..200u64), 1..200),
        ) {
            let mut limit = RateLimit::new(rate);
            let (mut now, mut sent) = (Duration::from_secs(1), 0);
            let begun = now;
            for (bytes, pause) in sizes {
                now += Duration::from_millis(pause) + limit.pass(now, bytes);
                sent += bytes;
                let allowed = (now - begun + BURST).as_secs_f64() * rate as f64;
                prop_assert!(sent as f64 <= allowed * 1.000_001 + 1.0, "{sent} of {allowed}");
            }
        }
    }
}
