//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Between two looks; short beside anything that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and panics after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        std::thread::sleep(POLL);
    }
}

/// Looks until it is so, and panics after `limit`.
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}
