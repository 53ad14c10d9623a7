//! The answer that opened a blob, shared by the reads that lie inside it.
//!
//! Its body is one stream: reads take it in turns, lowest first, each handing it on where its range ends. So nothing that
//! is on its way already is asked for again, however the first reads are cut and however many run at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::body::Body;

/// How long a read waits for one that fills the gap before it: reads that begin together, each in a task of its own, come
/// in any order. Who really wants to leave bytes out, as after a takeover, loses this much once.
const PATIENCE: Duration = Duration::from_millis(100);

/// The opening answer's body, and who waits for it.
pub(crate) struct Opening {
    state: Mutex<State>,
    turned: Notify,
}

struct State {
    /// Absent while somebody reads it, and after it has ended or broken.
    body: Option<Body>,
    taken: bool,
    /// Where it stands, or where its reader took it.
    at: u64,
    /// How far it goes: a read that begins before this takes its turn.
    end: u64,
    /// Where the waiting and the current reads begin.
    claims: BTreeSet<(u64, u64)>,
    next_claim: u64,
}

/// A read's place in the row. Dropping it gives the place up.
pub(crate) struct Claim {
    opening: Arc<Opening>,
    key: (u64, u64),
    holds: bool,
    since: Instant,
}

impl Opening {
    /// With `body` on its way as far as `end`.
    pub(crate) const fn new(body: Option<Body>, at: u64, end: u64) -> Self {
        let state = State {
            body,
            taken: false,
            at,
            end,
            claims: BTreeSet::new(),
            next_claim: 0,
        };
        Self {
            state: Mutex::new(state),
            turned: Notify::const_new(),
        }
    }

    /// A place for a read from `start`, if the body still leads there.
    pub(crate) fn claim(self: &Arc<Self>, start: u64) -> Option<Claim> {
        let mut state = self.lock();
        if start < state.at || start >= state.end {
            return None;
        }
        let key = (start, state.next_claim);
        state.next_claim += 1;
        state.claims.insert(key);
        Some(Claim {
            opening: Arc::clone(self),
            key,
            holds: false,
            since: Instant::now(),
        })
    }

    /// Where the body stands.
    pub(crate) fn position(&self) -> u64 {
        self.lock().at
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Waits until every lower read is over (and a little, if there is a gap, for one to come), then takes the body: `None` when it has broken meanwhile.
    pub(crate) async fn turn(&mut self) -> Option<Body> {
        loop {
            let turned = self.opening.turned.notified();
            let mut turned = std::pin::pin!(turned);
            turned.as_mut().enable();
            let patient = self.since.elapsed() < PATIENCE;
            let lowest = {
                let mut state = self.opening.lock();
                let lowest = !state.taken && state.claims.first() == Some(&self.key);
                let gap = state.body.is_some() && state.at < self.key.0;
                if self.holds || (lowest && !(gap && patient)) {
                    state.taken = true;
                    self.holds = true;
                    return state.body.take();
                }
                lowest
            };
            if lowest {
                // Woken earlier or not: both lead to another look.
                let _ = tokio::time::timeout_at(self.since + PATIENCE, turned).await;
            } else {
                turned.await;
            }
        }
    }

    /// The read is over: hands the body on, as far as it was read.
    pub(crate) fn hand_on(self, body: Option<Body>) {
        if self.holds {
            let mut state = self.opening.lock();
            state.at = body.as_ref().map_or(state.at, Body::at);
            state.body = body;
        }
    }

    /// The body leads nowhere any more: reads that come later ask for themselves.
    pub(crate) fn abandon(self) {
        let mut state = self.opening.lock();
        state.end = state.at;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.opening.lock();
        state.claims.remove(&self.key);
        if self.holds {
            state.taken = false;
        }
        drop(state);
        self.opening.turned.notify_waiters();
    }
}
