//! On how many connections a blob is read: on as many as bring more.
//!
//! One connection fills most links. More of them only share it: each piece is whole later, and one that begins while the
//! link's queue is full may starve for a second, during which nothing behind its stripe can be proven. Where the registry, or
//! the distance to it, limits each connection, more do bring more. So a reading begins on one, goes on with three, which
//! hide one another's round trips, and adds another for as long as that raises the rate.

use std::time::Duration;

/// With fewer, the link idles while the registry answers.
const USUAL: usize = 3;
/// Stripes of each connection in a round, at the end of which the rate is judged.
const STRIPES: usize = 4;
/// By how much another connection must raise the rate to be kept.
const GAIN: f64 = 1.15;
/// Rounds until the next attempt after one that brought nothing.
const REST: u32 = 32;

/// How many connections there are to be now.
#[derive(Debug)]
pub(crate) struct Width {
    now: usize,
    most: usize,
    /// Stripes of this round, their bytes, and the time that they took one after another.
    stripes: usize,
    bytes: u64,
    time: Duration,
    /// Bytes per second with a connection less; none if that is not known.
    before: Option<f64>,
    rest: u32,
}

impl Width {
    /// One connection first, and up to `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            now: 1,
            most: most.max(1),
            stripes: 0,
            bytes: 0,
            time: Duration::ZERO,
            before: None,
            rest: 0,
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.now
    }

    /// A connection has brought a stripe.
    pub(crate) fn took(&mut self, bytes: u64, time: Duration) {
        let usual = USUAL.min(self.most);
        if self.now < usual {
            self.now += 1;
            return;
        }
        self.stripes += 1;
        self.bytes += bytes;
        self.time += time;
        if self.stripes >= STRIPES * self.now {
            let time = std::mem::take(&mut self.time).max(Duration::from_millis(1));
            let rate = std::mem::take(&mut self.bytes) as f64 / time.as_secs_f64() * self.now as f64;
            self.stripes = 0;
            self.judge(rate, usual);
        }
    }

    /// A round with this rate has ended.
    fn judge(&mut self, rate: f64, usual: usize) {
        if self.rest > 0 {
            self.rest -= 1;
        } else if self.before.is_none_or(|before| rate >= before * GAIN) {
            if self.now < self.most {
                self.before = Some(rate);
                self.now += 1;
            }
        } else {
            self.now = (self.now - 1).max(usual);
            self.before = None;
            self.rest = REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The numbers of connections over this many stripes, on a link that brings as much as `rate` says of each.
    fn widths(most: usize, stripes: usize, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut width = Width::new(most);
        let step = |_| {
            let now = width.connections();
            width.took(rate(now), SECOND);
            now
        };
        (0..stripes).map(step).collect()
    }

    #[test]
    fn a_link_that_one_connection_fills_is_shared_by_three() {
        let widths = widths(8, 1000, |connections| 12_000_000 / connections as u64);
        assert_eq!(widths[..3], [1, 2, 3], "the first stripe has it for itself");
        let more = widths.iter().filter(|width| **width > 3).count();
        assert!(widths.iter().all(|width| *width <= 4) && more * 10 < widths.len());
    }

    #[test]
    fn where_each_connection_is_limited_there_are_soon_as_many_as_may_be() {
        let widths = widths(6, 200, |_| 1_000_000);
        let first = widths.iter().position(|width| *width == 6).unwrap();
        assert!(first < 80, "{first} stripes");
        assert!(widths[first..].iter().all(|width| *width == 6), "and they stay");
    }

    #[test]
    fn there_are_never_more_than_may_be() {
        for most in [0, 1, 2, 3] {
            let widths = widths(most, 100, |_| 1_000_000);
            assert_eq!(widths.iter().max(), Some(&most.max(1)));
        }
    }
}
