//! Says who was turned away, without letting strangers fill the log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Silence about an address after it was mentioned.
const SILENCE: Duration = Duration::from_secs(10);
/// Addresses remembered; more than that at once are a flood, of which the first ones are mention enough.
const ADDRESSES: usize = 256;

/// Who was mentioned when.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<HashMap<SocketAddr, Instant>>);

impl RefusalLog {
    /// Whether to mention this address now.
    pub(crate) fn allows(&self, addr: SocketAddr, now: Instant) -> bool {
        let mut mentioned = self.0.lock().expect("nothing panics while it holds this lock");
        let is_recent = |then: &Instant| now.saturating_duration_since(*then) < SILENCE;
        if mentioned.get(&addr).is_some_and(is_recent) {
            return false;
        }
        if mentioned.len() >= ADDRESSES {
            mentioned.retain(|_, then| is_recent(then));
        }
        if mentioned.len() >= ADDRESSES {
            return false;
        }
        mentioned.insert(addr, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_mentioned_once_in_a_while_and_a_flood_is_cut() {
        let log = RefusalLog::default();
        let start = Instant::now();
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(log.allows(addr(1), start));
        assert!(!log.allows(addr(1), start + SILENCE / 2));
        assert!(log.allows(addr(1), start + SILENCE));
        let flood = (0..1000)
            .filter(|port| log.allows(addr(1000 + port), start + SILENCE))
            .count();
        assert_eq!(flood, ADDRESSES - 1);
        assert!(log.allows(addr(9), start + SILENCE * 2));
    }
}
