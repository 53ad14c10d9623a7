//! Reading a blob from the registry: which pieces next, and how far ahead of the swarm.

use std::collections::BTreeSet;

use piece::PieceIndex;
use wire::control::{Access, Source};

use super::blob::Pieces;
use super::config::Config;

/// One reading of one blob, under a lease or on this node's own decision.
#[derive(Debug)]
pub(super) struct Origin {
    /// Epoch of the lease; 0 when no scheduler gave one.
    pub(super) epoch: u64,
    /// Where.
    pub(super) source: Source,
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
    pub(super) fn new(epoch: u64, source: Source) -> Self {
        Self { epoch, source, access: None, sequential: false, reading: BTreeSet::new(), ranges: BTreeSet::new() }
    }

    /// The registry has answered.
    pub(super) fn opened(&mut self, access: Access, sequential: bool) {
        self.access = Some(access);
        self.sequential = sequential;
    }

    pub(super) fn is_open(&self) -> bool {
        self.access.is_some()
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
        if !self.is_open() || self.ranges.len() >= if self.sequential { 1 } else { config.origin_ranges } {
            return None;
        }
        let piece_len = pieces.geometry.piece_len();
        let wanted = |piece: &PieceIndex| {
            !pieces.have.has(*piece) && !self.reading.contains(piece) && !pieces.in_flight.contains_key(piece)
        };
        let mut open = pieces.geometry.pieces().skip(pieces.have.prefix() as usize).skip_while(|piece| !wanted(piece));
        let first = open.next()?;
        let ahead = u64::from(first.get().saturating_sub(published)) * piece_len;
        if others_want && ahead >= config.read_ahead.max(piece_len) {
            return None;
        }
        let most = (config.origin_range_bytes / piece_len).max(1) as usize;
        let count = 1 + open.take_while(wanted).take(most - 1).count() as u32;
        self.reading.extend((first.get()..first.get() + count).filter_map(|number| pieces.geometry.piece(number)));
        self.ranges.insert(first);
        Some((first, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piece::{Bitfield, Geometry};
    use wire::control::{Kind, Repository};

    fn origin() -> Origin {
        let repository = Repository { registry: "r".into(), name: "m".into() };
        let mut origin = Origin::new(1, Source { repository, kind: Kind::Blob });
        origin.opened(Access::Public, false);
        origin
    }

    /// 40 pieces of 4 MiB.
    fn pieces() -> Pieces {
        let geometry = Geometry::of((160 << 20) + (96 << 20));
        Pieces::new(geometry, Bitfield::empty(&geometry))
    }

    #[test]
    fn reads_disjoint_ranges_up_to_the_window() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        let ranges: Vec<(u32, u32)> = std::iter::from_fn(|| origin.next_range(&pieces, 0, false, &config))
            .map(|(first, count)| (first.get(), count))
            .collect();
        assert_eq!(ranges, [(0, 2), (2, 2), (4, 2), (6, 2)]);
        let settle = |origin: &mut Origin, pieces: &mut Pieces, number| {
            let piece = pieces.geometry.piece(number).unwrap();
            pieces.have.set(piece);
            origin.settled(piece);
        };
        settle(&mut origin, &mut pieces, 0);
        assert!(origin.next_range(&pieces, 0, false, &config).is_none(), "half a range frees nothing");
        settle(&mut origin, &mut pieces, 1);
        assert_eq!(origin.next_range(&pieces, 0, false, &config).map(|(first, _)| first.get()), Some(8));
    }

    #[test]
    fn stays_within_the_read_ahead_while_others_wait() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        for number in 0..16 {
            pieces.have.set(pieces.geometry.piece(number).unwrap());
        }
        assert!(origin.next_range(&pieces, 0, true, &config).is_none(), "16 pieces of 4 MiB unpublished");
        assert!(origin.next_range(&pieces, 1, true, &config).is_some());
        assert!(origin.next_range(&pieces, 0, false, &config).is_some(), "nobody waits");
    }

    #[test]
    fn skips_what_the_swarm_brings() {
        let (mut origin, mut pieces, config) = (origin(), pieces(), Config::default());
        pieces.have.set(pieces.geometry.piece(1).unwrap());
        let first = origin.next_range(&pieces, 0, false, &config).map(|(first, count)| (first.get(), count));
        assert_eq!(first, Some((0, 1)));
        let second = origin.next_range(&pieces, 0, false, &config).map(|(first, count)| (first.get(), count));
        assert_eq!(second, Some((2, 2)));
    }

    #[test]
    fn a_registry_without_ranges_is_read_one_range_at_a_time() {
        let (mut origin, pieces, config) = (origin(), pieces(), Config::default());
        origin.opened(Access::Public, true);
        assert!(origin.next_range(&pieces, 0, false, &config).is_some());
        assert!(origin.next_range(&pieces, 0, false, &config).is_none());
    }
}
