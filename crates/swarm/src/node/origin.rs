//! Reading a blob from the registry: which pieces next, and how far ahead of the swarm.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use piece::PieceIndex;
use wire::control::{Access, Lease};

use super::blob::Pieces;
use super::config::Config;

/// How long whoever takes a reading over listens first: some round trips, and the connections to make them over.
const LISTEN: Duration = Duration::from_millis(500);

/// Bytes asked for when a blob is opened: enough for most files of a model, and little enough that on a slow link the other
/// connections soon help with the first piece.
const OPENING: u64 = 1 << 20;
/// Ranges handed out for each connection, so that none of them waits for the machine.
const RANGES_PER_CONNECTION: usize = 2;

/// One reading of one blob, under a lease or on this node's own decision.
#[derive(Debug)]
pub(super) struct Origin {
    /// Where, and under which epoch; 0 when no scheduler gave one.
    pub(super) lease: Lease,
    /// Whether the registry has been asked to open the blob.
    asked: bool,
    /// When to begin: whoever takes a reading over first hears what others hold of it.
    pub(super) not_before: Duration,
    /// Set while nothing moves: then what others say they hold is read all the same.
    pub(super) impatient: bool,
    /// The pieces that opening brings.
    first: Option<(PieceIndex, u32)>,
    /// Who may read it there, once the registry has answered.
    pub(super) access: Option<Access>,
    /// Whether the registry can only be read from start to end.
    sequential: bool,
    /// Pieces asked of the registry that have not settled.
    reading: BTreeSet<PieceIndex>,
    /// The first piece of each range under way, to count ranges.
    ranges: BTreeSet<PieceIndex>,
}

impl Origin {
    pub(super) fn new(now: Duration, lease: Lease) -> Self {
        Self {
            not_before: if lease.resume.is_some() { now + LISTEN } else { now },
            impatient: false,
            lease,
            asked: false,
            first: None,
            access: None,
            sequential: false,
            reading: BTreeSet::new(),
            ranges: BTreeSet::new(),
        }
    }

    /// The bytes to open the blob with, the first time there are any to ask for: nothing is known to be here while the size
    /// is unknown, and nothing is asked while the store has yet to say what is.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        size: Option<u64>,
        pieces: Option<&Pieces>,
        config: &Config,
    ) -> Option<Range<u64>> {
        if self.asked || now < self.not_before {
            return None;
        }
        let range = match (size, pieces) {
            (None, _) => 0..OPENING.min(config.origin_range_bytes),
            (Some(_), None) => return None,
            (Some(_), Some(pieces)) => {
                let (first, count) = self.choose(pieces, config)?;
                self.first = Some((first, count));
                let last = pieces.geometry.piece(first.get() + count - 1)?;
                let (start, end) = (pieces.geometry.range(first).start, pieces.geometry.range(last).end);
                start..end.min(start + OPENING.min(config.origin_range_bytes))
            }
        };
        self.asked = true;
        Some(range)
    }

    /// The registry has answered; the pieces that came with the answer are to be read now.
    pub(super) fn opened(&mut self, access: Access, sequential: bool) -> Option<(PieceIndex, u32)> {
        self.access = Some(access);
        self.sequential = sequential;
        self.first.take()
    }

    pub(super) fn is_open(&self) -> bool {
        self.access.is_some()
    }

    /// Whether any piece is awaited from the registry.
    pub(super) fn is_busy(&self) -> bool {
        !self.reading.is_empty()
    }

    pub(super) fn is_reading(&self, piece: PieceIndex) -> bool {
        self.reading.contains(&piece)
    }

    /// A piece has come to rest.
    pub(super) fn settled(&mut self, piece: PieceIndex) {
        self.reading.remove(&piece);
        let reading = &self.reading;
        // A range ends when nothing of it and before the next range is still awaited.
        let starts: Vec<PieceIndex> = self.ranges.iter().copied().collect();
        for (index, start) in starts.iter().enumerate() {
            let awaited = match starts.get(index + 1) {
                Some(next) => reading.range(*start..*next).next().is_some(),
                None => reading.range(*start..).next().is_some(),
            };
            if !awaited {
                self.ranges.remove(start);
            }
        }
    }

    /// The next range to read, if the window has room: the first pieces that are neither here nor on their way.
    pub(super) fn next_range(
        &mut self,
        pieces: &Pieces,
        published: u32,
        others_want: bool,
        config: &Config,
    ) -> Option<(PieceIndex, u32)> {
        let most = if self.sequential {
            1
        } else {
            config.origin_ranges * RANGES_PER_CONNECTION
        };
        if !self.is_open() || self.ranges.len() >= most {
            return None;
        }
        let piece_len = pieces.geometry.piece_len();
        let next = pieces
            .geometry
            .pieces()
            .skip(pieces.have.prefix() as usize)
            .find(|piece| self.lacks(pieces, *piece))?;
        // What nobody else holds would have to be read again; one piece that is slow to spread is no reason to stand still.
        let rarity = pieces
            .rarity
            .get(published as usize..next.as_usize())
            .unwrap_or_default();
        let ahead = rarity.iter().filter(|holders| **holders == 0).count() as u64 * piece_len;
        if others_want && ahead >= config.read_ahead.max(piece_len) {
            return None;
        }
        self.choose(pieces, config)
    }

    /// Whether a piece is neither here nor on its way, and only the registry has it.
    fn lacks(&self, pieces: &Pieces, piece: PieceIndex) -> bool {
        !pieces.have.has(piece)
            && !self.reading.contains(&piece)
            && !pieces.in_flight.contains_key(&piece)
            && (pieces.rarity[piece.as_usize()] == 0 || self.impatient)
    }

    /// Sets aside the first pieces that are neither here nor on their way, as one range.
    fn choose(&mut self, pieces: &Pieces, config: &Config) -> Option<(PieceIndex, u32)> {
        let piece_len = pieces.geometry.piece_len();
        let wanted = |piece: &PieceIndex| self.lacks(pieces, *piece);
        let mut open = pieces
            .geometry
            .pieces()
            .skip(pieces.have.prefix() as usize)
            .skip_while(|piece| !wanted(piece));
        let first = open.next()?;
        let most = (config.origin_range_bytes / piece_len).max(1) as usize;
        let count = 1 + open.take_while(wanted).take(most - 1).count() as u32;
        self.reading
            .extend((first.get()..first.get() + count).filter_map(|number| pieces.geometry.piece(number)));
        self.ranges.insert(first);
        Some((first, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piece::{Bitfield, Geometry};
    use wire::control::{Kind, Repository, Source};

    fn origin() -> Origin {
        let repository = Repository {
            registry: "r".into(),
            name: "m".into(),
        };
        let source = Source {
            repository,
            kind: Kind::Blob,
        };
        let mut origin = Origin::new(
            Duration::ZERO,
            Lease {
                epoch: 1,
                source,
                resume: None,
            },
        );
        origin.opened(Access::Public, false);
        origin
    }

    /// 1024 pieces of 4 MiB.
    fn pieces() -> Pieces {
        let geometry = Geometry::of(4 << 30);
        Pieces::new(geometry, Bitfield::empty(&geometry))
    }

    #[test]
    fn reads_disjoint_ranges_up_to_the_window() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        let ranges: Vec<(u32, u32)> = std::iter::from_fn(|| origin.next_range(&pieces, 0, false, &config))
            .map(|(first, count)| (first.get(), count))
            .collect();
        assert_eq!(
            ranges,
            [(0, 2), (2, 2), (4, 2), (6, 2), (8, 2), (10, 2), (12, 2), (14, 2)]
        );
        let settle = |origin: &mut Origin, pieces: &mut Pieces, number| {
            let piece = pieces.geometry.piece(number).unwrap();
            pieces.have.set(piece);
            origin.settled(piece);
        };
        settle(&mut origin, &mut pieces, 0);
        assert!(
            origin.next_range(&pieces, 0, false, &config).is_none(),
            "half a range frees nothing"
        );
        settle(&mut origin, &mut pieces, 1);
        assert_eq!(
            origin
                .next_range(&pieces, 0, false, &config)
                .map(|(first, _)| first.get()),
            Some(16)
        );
    }

    #[test]
    fn opening_brings_the_first_range() {
        let (config, mut pieces) = (Config::default(), pieces());
        let lease = origin().lease;
        assert_eq!(
            Origin::new(Duration::ZERO, lease.clone()).ask(Duration::ZERO, None, None, &config),
            Some(0..OPENING)
        );
        assert_eq!(
            Origin::new(Duration::ZERO, lease.clone()).ask(Duration::ZERO, Some(1), None, &config),
            None,
            "the store has yet to say what is here"
        );
        pieces.have.set(pieces.geometry.piece(0).unwrap());
        let mut origin = Origin::new(Duration::ZERO, lease);
        assert_eq!(
            origin.ask(Duration::ZERO, Some(4 << 30), Some(&pieces), &config),
            Some(4 << 20..(4 << 20) + OPENING)
        );
        assert_eq!(
            origin.ask(Duration::ZERO, Some(4 << 30), Some(&pieces), &config),
            None,
            "asked once"
        );
        assert_eq!(
            origin
                .opened(Access::Public, false)
                .map(|(first, count)| (first.get(), count)),
            Some((1, 2))
        );
        assert_eq!(
            origin
                .next_range(&pieces, 0, false, &config)
                .map(|(first, _)| first.get()),
            Some(3)
        );
    }

    #[test]
    fn stays_within_the_read_ahead_while_others_wait() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        for number in 0..16 {
            pieces.have.set(pieces.geometry.piece(number).unwrap());
        }
        assert!(
            origin.next_range(&pieces, 0, true, &config).is_none(),
            "16 pieces of 4 MiB unpublished"
        );
        assert!(origin.next_range(&pieces, 1, true, &config).is_some());
        assert!(origin.next_range(&pieces, 0, false, &config).is_some(), "nobody waits");
    }

    #[test]
    fn one_piece_that_nobody_takes_does_not_hold_up_the_rest() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        for number in 0..16 {
            pieces.have.set(pieces.geometry.piece(number).unwrap());
        }
        pieces.rarity[1..16].fill(1);
        let next = origin.next_range(&pieces, 0, true, &config);
        assert_eq!(next.map(|(first, _)| first.get()), Some(16));
    }

    #[test]
    fn skips_what_the_swarm_brings() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        pieces.have.set(pieces.geometry.piece(1).unwrap());
        let first = origin
            .next_range(&pieces, 0, false, &config)
            .map(|(first, count)| (first.get(), count));
        assert_eq!(first, Some((0, 1)));
        let second = origin
            .next_range(&pieces, 0, false, &config)
            .map(|(first, count)| (first.get(), count));
        assert_eq!(second, Some((2, 2)));
    }

    #[test]
    fn what_a_neighbour_holds_is_not_read_while_things_move() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        pieces.rarity[0] = 1;
        assert_eq!(
            origin
                .next_range(&pieces, 0, false, &config)
                .map(|(first, _)| first.get()),
            Some(1)
        );
        origin.impatient = true;
        assert_eq!(
            origin
                .next_range(&pieces, 0, false, &config)
                .map(|(first, _)| first.get()),
            Some(0)
        );
    }

    #[test]
    fn whoever_takes_over_listens_first() {
        let midstate = piece::Midstate::START;
        let lease = Lease {
            resume: Some(wire::control::Resume { boundary: 1, midstate }),
            ..origin().lease
        };
        let (mut origin, config) = (Origin::new(Duration::ZERO, lease), Config::default());
        assert_eq!(
            origin.ask(Duration::ZERO, Some(4 << 30), Some(&pieces()), &config),
            None
        );
        assert!(origin.ask(LISTEN, Some(4 << 30), Some(&pieces()), &config).is_some());
    }

    #[test]
    fn a_registry_without_ranges_is_read_one_range_at_a_time() {
        let (mut origin, pieces, config) = (origin(), pieces(), Config::default());
        origin.opened(Access::Public, true);
        assert!(origin.next_range(&pieces, 0, false, &config).is_some());
        assert!(origin.next_range(&pieces, 0, false, &config).is_none());
    }
}
