//! When something is due although nothing happens.
//!
//! Nodes and swarms have one timer each, which fires early rather than being moved at every report: whoever handles it looks
//! whether anything is due yet and sets it anew. So a report costs no timer work.

use std::collections::BTreeSet;
use std::time::Duration;

use piece::{Digest, NodeId};

use super::event::AskId;

/// What may be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A node may have been silent or away for too long.
    Node(NodeId),
    /// A lease may have been lost, a failure be forgotten, or a grant be possible now.
    Swarm(Digest),
    /// A seed may have taken too long to answer.
    Upstream(AskId),
    /// More nodes can be told of a preheat.
    Preheat,
}

/// All timers, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Duration, Timer)>);

impl Timers {
    pub(super) fn next(&self) -> Option<Duration> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Sets a timer that cannot be set yet.
    pub(super) fn set(&mut self, at: Duration, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Sets a timer whose time stands in `armed`, unless it is set for an earlier time.
    pub(super) fn arm(&mut self, armed: &mut Option<Duration>, at: Duration, timer: Timer) {
        if armed.is_some_and(|armed| armed <= at) {
            return;
        }
        self.disarm(armed, timer);
        *armed = Some(at);
        self.0.insert((at, timer));
    }

    /// Unsets a timer whose time stands in `armed`.
    pub(super) fn disarm(&mut self, armed: &mut Option<Duration>, timer: Timer) {
        if let Some(at) = armed.take() {
            self.0.remove(&(at, timer));
        }
    }

    /// Unsets a timer.
    pub(super) fn unset(&mut self, at: Duration, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// Takes the first timer that is due.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Timer> {
        let (at, timer) = *self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(timer)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
