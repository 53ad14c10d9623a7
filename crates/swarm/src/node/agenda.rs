//! When to look at a blob again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::Digest;

/// At most one time for each blob; the next of all is known at once.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    times: BTreeMap<Digest, Duration>,
    order: BTreeSet<(Duration, Digest)>,
}

impl Agenda {
    /// Looks at a blob at this time, unless that is to be done earlier.
    pub(super) fn note(&mut self, digest: Digest, time: Duration) {
        if self.times.get(&digest).is_some_and(|noted| *noted <= time) {
            return;
        }
        self.remove(&digest);
        self.times.insert(digest, time);
        self.order.insert((time, digest));
    }

    /// The earliest time of all.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(time, _)| *time)
    }

    /// Takes the next blob whose time has come.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Digest> {
        let (_, digest) = *self.order.first().filter(|(time, _)| *time <= now)?;
        self.remove(&digest);
        Some(digest)
    }

    /// The blob needs no look any more.
    pub(super) fn remove(&mut self, digest: &Digest) {
        if let Some(time) = self.times.remove(digest) {
            self.order.remove(&(time, *digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_two_times_counts_and_each_blob_comes_once() {
        let at = Duration::from_secs;
        let (first, second) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let mut agenda = Agenda::default();
        for (digest, time) in [(first, 5), (second, 3), (first, 2), (second, 4)] {
            agenda.note(digest, at(time));
        }
        assert_eq!(agenda.next(), Some(at(2)));
        assert_eq!(agenda.take_due(at(2)), Some(first));
        assert_eq!(agenda.take_due(at(2)), None, "the second is not due");
        assert_eq!(agenda.take_due(at(9)), Some(second));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn what_is_removed_never_comes() {
        let mut agenda = Agenda::default();
        agenda.note(Digest::EMPTY, Duration::ZERO);
        agenda.remove(&Digest::EMPTY);
        assert_eq!(agenda.take_due(Duration::MAX), None);
    }
}
