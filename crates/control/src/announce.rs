//! When to tell the Kademlia network which blobs this node holds.
//!
//! Nobody needs these records while a scheduler answers, so they are announced at leisure: a few per second, one round of
//! queries each, new blobs first. A record is repeated before it expires. Blobs that were announced when few nodes were
//! known are announced again when the network turns out larger, as the nodes that seekers will ask are others by then.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use piece::Digest;

/// How long the records of this node live at others.
pub(crate) const RECORD_TTL: Duration = Duration::from_secs(60 * 60);
/// After how long they are repeated: soon enough that one round may fail.
const REPEAT: Duration = Duration::from_secs(20 * 60);
/// The most announcements under way.
const MAX_ACTIVE: usize = 4;
/// How long nodes must not become known before everything is announced again, so that a start costs one round, not many.
const QUIET: Duration = Duration::from_secs(2);

/// The blobs to announce, in the order in which it is due.
#[derive(Debug)]
pub(crate) struct Announcer {
    provided: HashSet<Digest>,
    limit: usize,
    fresh: VecDeque<Digest>,
    /// Announced before, the longest ago first.
    repeat: VecDeque<(Instant, Digest)>,
    active: usize,
    /// Nodes known now, when the last round began, and when the last became known.
    known: usize,
    known_at_round: usize,
    last_known: Option<Instant>,
}

impl Announcer {
    /// For at most `limit` blobs.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            provided: HashSet::new(),
            limit,
            fresh: VecDeque::new(),
            repeat: VecDeque::new(),
            active: 0,
            known: 0,
            known_at_round: 0,
            last_known: None,
        }
    }

    /// This node holds the blob. False if it was known, or is one too many.
    pub(crate) fn add(&mut self, digest: Digest) -> bool {
        if self.provided.len() >= self.limit || !self.provided.insert(digest) {
            return false;
        }
        self.fresh.push_back(digest);
        true
    }

    /// This node does not hold the blob any more.
    pub(crate) fn remove(&mut self, digest: &Digest) -> bool {
        let removed = self.provided.remove(digest);
        if removed {
            self.fresh.retain(|queued| queued != digest);
            self.repeat.retain(|(_, queued)| queued != digest);
        }
        removed
    }

    /// Another node has become known.
    pub(crate) fn node_known(&mut self, now: Instant) {
        self.known += 1;
        self.last_known = Some(now);
    }

    /// The blob to announce now, if any. [`Self::finished`] is to be called when that is done.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Digest> {
        self.begin_round_if_grown(now);
        if self.known == 0 || self.active >= MAX_ACTIVE {
            return None;
        }
        let digest = match self.fresh.pop_front() {
            Some(digest) => digest,
            None => self.repeat.pop_front_if(|(due, _)| *due <= now)?.1,
        };
        self.active += 1;
        self.repeat.push_back((now + REPEAT, digest));
        Some(digest)
    }

    /// An announcement is over.
    pub(crate) fn finished(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    fn begin_round_if_grown(&mut self, now: Instant) {
        let quiet = self
            .last_known
            .is_some_and(|last| now.saturating_duration_since(last) >= QUIET);
        if quiet && self.known > 0 && self.known >= 2 * self.known_at_round {
            self.known_at_round = self.known;
            self.fresh.extend(self.repeat.drain(..).map(|(_, digest)| digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    fn round(announcer: &mut Announcer, now: Instant) -> Vec<Digest> {
        std::iter::from_fn(|| {
            let next = announcer.next(now)?;
            announcer.finished();
            Some(next)
        })
        .collect()
    }

    #[test]
    fn blobs_are_announced_once_somebody_is_known_and_repeated_before_they_expire() {
        let start = Instant::now();
        let mut announcer = Announcer::new(10);
        assert!(announcer.add(digest(1)) && !announcer.add(digest(1)));
        assert_eq!(round(&mut announcer, start), [], "nobody to tell");
        announcer.node_known(start);
        assert_eq!(round(&mut announcer, start), [digest(1)]);
        assert_eq!(round(&mut announcer, start + Duration::from_secs(1)), []);
        announcer.add(digest(2));
        assert_eq!(
            round(&mut announcer, start + REPEAT),
            [digest(2), digest(1)],
            "the new one first"
        );
        announcer.remove(&digest(2));
        assert_eq!(round(&mut announcer, start + 2 * REPEAT), [digest(1)]);
    }

    #[test]
    fn everything_is_announced_again_when_the_network_turns_out_larger() {
        let start = Instant::now();
        let mut announcer = Announcer::new(10);
        announcer.add(digest(1));
        announcer.node_known(start);
        assert_eq!(round(&mut announcer, start), [digest(1)]);
        let later = start + Duration::from_secs(10);
        assert_eq!(
            round(&mut announcer, later),
            [digest(1)],
            "the first settled view counts as growth"
        );
        for _ in 0..3 {
            announcer.node_known(later);
        }
        assert_eq!(round(&mut announcer, later), [], "not while more are becoming known");
        assert_eq!(round(&mut announcer, later + QUIET), [digest(1)]);
        announcer.node_known(later + QUIET);
        assert_eq!(
            round(&mut announcer, later + 2 * QUIET),
            [],
            "one more of four changes little"
        );
    }

    #[test]
    fn announcements_under_way_and_blobs_are_bounded() {
        let mut announcer = Announcer::new(2 * MAX_ACTIVE);
        announcer.node_known(Instant::now());
        for n in 0..=u8::try_from(2 * MAX_ACTIVE).unwrap() {
            announcer.add(digest(n));
        }
        assert_eq!(announcer.provided.len(), 2 * MAX_ACTIVE);
        let mut begin = || std::iter::from_fn(|| announcer.next(Instant::now())).count();
        assert_eq!((begin(), begin()), (MAX_ACTIVE, 0));
        announcer.finished();
        assert!(announcer.next(Instant::now()).is_some());
    }
}
