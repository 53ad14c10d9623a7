//! In which order the bytes of a reading are asked of the registry, over its connections.
//!
//! The pieces of a reading can be proven, and so passed on, only in order. Connections that each read a long range of their
//! own would share the link and all finish late, the first piece with the last; so they all work at the front, each on a
//! stripe that takes it about [`STRIPE_TIME`]. Short stripes on slow links bring the first piece soon, long ones on fast
//! links keep requests few.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use piece::{Geometry, PieceIndex};

/// How long one stripe should take: so much later than it could have been is a piece proven at worst, and so many
/// round trips to the registry are hidden.
const STRIPE_TIME: Duration = Duration::from_millis(250);
/// The first stripe, before anything has been measured.
const FIRST: u64 = 1 << 20;
/// The shortest: below, requests cost more than they bring.
const SHORTEST: u64 = 256 << 10;

/// So many times as long as the last one a stripe may be.
const GROWTH: u64 = 2;

/// Cuts what is to be read into stripes.
#[derive(Debug)]
pub(crate) struct Stripes {
    /// Ranges of bytes not asked for yet, in the order in which they are wanted.
    waiting: VecDeque<Range<u64>>,
    length: u64,
    longest: u64,
}

impl Stripes {
    /// Stripes of at most `longest` bytes.
    pub(crate) fn new(longest: u64) -> Self {
        let longest = longest.max(1);
        Self {
            waiting: VecDeque::new(),
            length: FIRST.min(longest),
            longest,
        }
    }

    /// Adds what is to be read after all that waits.
    pub(crate) fn push(&mut self, range: Range<u64>) {
        match self.waiting.back_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(_) | None => self.waiting.push_back(range),
        }
    }

    /// The next stripe, for a connection that has nothing to do.
    pub(crate) fn next(&mut self) -> Option<Range<u64>> {
        let front = self.waiting.front_mut()?;
        let left = front.end - front.start;
        // No request for a remnant.
        if left <= (self.length + self.length / 2).min(self.longest) {
            return self.waiting.pop_front();
        }
        let stripe = front.start..front.start + self.length;
        front.start = stripe.end;
        Some(stripe)
    }

    /// A connection has brought a stripe: the next ones are as long as takes [`STRIPE_TIME`] at its rate.
    pub(crate) fn took(&mut self, bytes: u64, time: Duration) {
        let rate = bytes as f64 / time.max(Duration::from_millis(1)).as_secs_f64();
        let fitting = (rate * STRIPE_TIME.as_secs_f64()) as u64;
        let shortest = SHORTEST.min(self.longest);
        // A short stripe may come at once, out of a shaper's bucket or a switch's memory, on a link that then needs seconds for
        // a long one, which everything behind it waits for.
        let trusted = self.length.saturating_mul(GROWTH);
        self.length = u64::midpoint(self.length, fitting)
            .min(trusted)
            .clamp(shortest, self.longest);
    }
}

/// Which pieces have all their bytes.
#[derive(Debug)]
pub(crate) struct Arriving {
    geometry: Geometry,
    /// Bytes that each piece asked for still lacks.
    lacking: BTreeMap<PieceIndex, u64>,
}

impl Arriving {
    pub(crate) const fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            lacking: BTreeMap::new(),
        }
    }

    /// These pieces are to come; gives their bytes.
    pub(crate) fn expect(&mut self, first: PieceIndex, count: u32) -> Range<u64> {
        let (geometry, begin) = (self.geometry, self.geometry.range(first).start);
        let pieces = (first.get()..first.get() + count).filter_map(|number| geometry.piece(number));
        let mut end = begin;
        for piece in pieces {
            self.lacking.insert(piece, geometry.len(piece));
            end = geometry.range(piece).end;
        }
        begin..end
    }

    /// These bytes are in the file, each said once; gives the pieces that they complete.
    pub(crate) fn arrived(&mut self, bytes: &Range<u64>) -> Vec<PieceIndex> {
        let mut complete = Vec::new();
        let mut at = bytes.start;
        while let Some(piece) = self.geometry.piece_at(at).filter(|_| at < bytes.end) {
            let end = self.geometry.range(piece).end.min(bytes.end);
            if let Some(lacking) = self.lacking.get_mut(&piece) {
                *lacking = lacking.saturating_sub(end - at);
                if *lacking == 0 {
                    self.lacking.remove(&piece);
                    complete.push(piece);
                }
            }
            at = end;
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn all_connections_work_at_the_front() {
        let mut stripes = Stripes::new(8 * MIB);
        stripes.push(0..4 * MIB);
        stripes.push(4 * MIB..8 * MIB);
        let asked: Vec<_> = std::iter::from_fn(|| stripes.next())
            .map(|range| range.start / MIB)
            .collect();
        assert_eq!(asked, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn stripes_follow_the_rate_between_their_bounds() {
        let mut stripes = Stripes::new(8 * MIB);
        let mut next = |rate: u64| {
            (0..16).for_each(|_| stripes.took(rate, Duration::from_secs(1)));
            stripes.push(0..100 * MIB);
            stripes.next().map(|range| range.end - range.start).unwrap()
        };
        assert_eq!(next(u64::MAX >> 20), 8 * MIB, "as long as may be");
        assert_eq!(next(1000), SHORTEST);
        let quarter = next(12 * MIB);
        assert!(quarter.abs_diff(3 * MIB) < MIB / 100, "{quarter} bytes at 12 MiB/s");
    }

    #[test]
    fn a_stripe_that_came_at_once_makes_the_next_no_more_than_twice_as_long() {
        let mut stripes = Stripes::new(64 * MIB);
        stripes.push(0..100 * MIB);
        stripes.took(MIB, Duration::ZERO);
        assert_eq!(stripes.next(), Some(0..2 * MIB));
    }

    #[test]
    fn no_request_is_made_for_a_remnant() {
        let mut stripes = Stripes::new(8 * MIB);
        stripes.push(0..2 * MIB + MIB / 4);
        assert_eq!(stripes.next(), Some(0..MIB));
        assert_eq!(stripes.next(), Some(MIB..2 * MIB + MIB / 4));
        assert_eq!(stripes.next(), None);
        let mut short = Stripes::new(100);
        short.push(0..250);
        let asked: Vec<_> = std::iter::from_fn(|| short.next()).collect();
        assert_eq!(asked, [0..100, 100..200, 200..250], "never longer than allowed");
    }

    #[test]
    fn a_piece_is_there_with_its_last_byte_whatever_the_order() {
        let geometry = Geometry::of(3 * 256 * 1024 + 100);
        let piece = |number| geometry.piece(number).unwrap();
        let mut arriving = Arriving::new(geometry);
        assert_eq!(arriving.expect(piece(1), 3), 256 * 1024..geometry.size());
        let end = geometry.range(piece(2)).end;
        assert_eq!(arriving.arrived(&(end - 10..geometry.size())), [piece(3)]);
        assert_eq!(arriving.arrived(&(256 * 1024..512 * 1024 + 5)), [piece(1)]);
        assert!(arriving.arrived(&(512 * 1024 + 5..end - 11)).is_empty());
        assert_eq!(arriving.arrived(&(end - 11..end - 10)), [piece(2)]);
        assert!(arriving.arrived(&(0..10)).is_empty(), "not asked for");
    }
}
