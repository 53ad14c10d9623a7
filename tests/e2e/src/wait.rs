//! Waiting for conditions.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks; short beside anything that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and panics after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    until_ok(what, limit, || look().ok_or("it is not there"))
}

/// Looks until it is so, and panics after `limit`.
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}

/// Looks until nothing is wrong, and panics after `limit` with what still is.
pub fn until_ok<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(wrong) => assert!(
                began.elapsed() < limit,
                "{what}: not within {} s: {wrong}",
                limit.as_secs()
            ),
        }
        std::thread::sleep(POLL);
    }
}
