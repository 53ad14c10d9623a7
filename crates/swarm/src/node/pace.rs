//! How long something usually takes, and so how long is too long.

use std::time::Duration;

/// Until the first has come, nobody knows.
const UNKNOWN: Duration = Duration::from_secs(1);
/// How many times as long as usual is not too long.
const LENIENCE: u32 = 3;
/// This never is: messages are gathered, and threads are late.
const LEAST: Duration = Duration::from_millis(100);
/// This always is.
const MOST: Duration = Duration::from_secs(10);

/// The measure of something that happens again and again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    usual: Option<Duration>,
}

impl Pace {
    /// How long it may take.
    pub(super) fn allowed(&self) -> Duration {
        self.usual
            .map_or(UNKNOWN, |usual| (usual * LENIENCE).clamp(LEAST, MOST))
    }

    /// It took so long.
    pub(super) fn learn(&mut self, took: Duration) {
        match self.usual {
            Some(_) if took > self.allowed() => self.exceed(),
            // Smoothed as TCP smooths its round-trip time (RFC 6298), with the same weight.
            Some(usual) => self.usual = Some((usual * 7 + took) / 8),
            None => self.usual = Some(took),
        }
    }

    /// It took too long. If it always does, it is the measure that is wrong.
    pub(super) fn exceed(&mut self) {
        self.usual = self.usual.map(|usual| usual.min(MOST) * 9 / 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_follows_what_is_usual() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowed(), UNKNOWN);
        (0..50).for_each(|_| pace.learn(Duration::from_millis(200)));
        assert_eq!(pace.allowed(), Duration::from_millis(600));
        (0..50).for_each(|_| pace.learn(Duration::ZERO));
        assert_eq!(pace.allowed(), LEAST);
    }

    #[test]
    fn a_measure_that_everybody_exceeds_grows() {
        let mut pace = Pace::default();
        pace.learn(Duration::from_millis(200));
        let before = pace.allowed();
        (0..10).for_each(|_| pace.exceed());
        assert!(pace.allowed() > before * 2, "{:?}", pace.allowed());
        (0..100).for_each(|_| pace.exceed());
        assert_eq!(pace.allowed(), MOST);
    }
}
