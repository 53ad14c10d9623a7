//! How much to keep under way to this node.
//!
//! Too little, and the link idles between pieces; too much, and every piece takes longer, so that all who wait for it from
//! here get it later. Enough is what TCP calls bandwidth × delay, and a few pieces more, so that a neighbour that happens
//! to be busy is no gap.

use std::time::Duration;

/// Bytes under way at least: a model has hundreds of small files.
const SMALL: u64 = 2 << 20;
/// How much more than bandwidth × delay is asked for, so that a window that was too small shows as a higher rate.
const PROBE: f64 = 2.0;
/// Time over which the rate is measured.
const MEASURE: Duration = Duration::from_millis(100);
/// Time after which the shortest delay is looked for anew: links change.
const FORGET: Duration = Duration::from_secs(10);

/// The measure of this node's link.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Bytes per second that arrive, smoothed.
    rate: f64,
    /// Bytes since `since`.
    arrived: u64,
    since: Duration,
    /// The shortest time from a request to its first byte, in this period and in the one before.
    shortest: [Option<Duration>; 2],
    period: Duration,
}

impl Window {
    /// A request has been made while none was under way: the time before it says nothing about the link.
    pub(super) const fn begin(&mut self, now: Duration) {
        self.since = now;
        self.arrived = 0;
    }

    /// The first byte has come `delay` after its request.
    pub(super) fn started(&mut self, now: Duration, delay: Duration) {
        if now.saturating_sub(self.period) >= FORGET {
            self.shortest = [None, self.shortest[0]];
            self.period = now;
        }
        self.shortest[0] = Some(self.shortest[0].map_or(delay, |shortest| shortest.min(delay)));
    }

    /// A piece has come.
    pub(super) fn stored(&mut self, now: Duration, bytes: u64) {
        self.arrived += bytes;
        let time = now.saturating_sub(self.since);
        if time < MEASURE {
            return;
        }
        let rate = self.arrived as f64 / time.as_secs_f64();
        self.rate = if self.rate == 0.0 {
            rate
        } else {
            self.rate.mul_add(0.75, rate * 0.25)
        };
        self.begin(now);
    }

    /// Bytes to keep under way while pieces of this length are asked for: what fills the pipe, and so many pieces.
    pub(super) fn bytes(&self, piece_len: u64, pieces: usize) -> u64 {
        let delay = self.shortest.into_iter().flatten().min().unwrap_or_default();
        let pipe = self.rate * delay.as_secs_f64() * PROBE;
        (pieces as u64 * piece_len).max(SMALL) + pipe as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_pieces_suffice_on_a_short_link() {
        let window = Window::default();
        assert_eq!(window.bytes(4 * MIB, 6), 6 * 4 * MIB);
        assert_eq!(window.bytes(1000, 6), SMALL, "and hundreds of small ones");
    }

    #[test]
    fn the_window_follows_bandwidth_and_delay() {
        let mut window = Window::default();
        window.begin(Duration::ZERO);
        window.started(50 * MS, 50 * MS);
        for tenth in 1..=50 {
            window.stored(100 * MS * tenth, 10 * MIB);
        }
        // 100 MiB/s at 50 ms are 5 MiB.
        let pipe = window.bytes(MIB, 6) - 6 * MIB;
        assert!(pipe.abs_diff(10 * MIB) < MIB / 10, "{pipe}");
    }

    #[test]
    fn an_idle_time_does_not_count_and_an_old_delay_is_forgotten() {
        let mut window = Window::default();
        window.begin(Duration::ZERO);
        window.started(MS, MS);
        window.stored(100 * MS, 10 * MIB);
        window.begin(Duration::from_secs(60));
        window.stored(Duration::from_secs(60) + 100 * MS, 10 * MIB);
        assert!((window.rate - 100.0 * MIB as f64).abs() < 1.0, "{}", window.rate);
        window.started(Duration::from_secs(61), 20 * MS);
        window.started(Duration::from_secs(72), 20 * MS);
        assert_eq!(window.shortest, [Some(20 * MS); 2]);
    }
}
