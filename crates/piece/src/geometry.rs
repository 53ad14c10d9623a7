//! How a blob is cut into pieces: a pure function of its size, so that nobody negotiates it.
//!
//! A node passes a piece on when it has all of it, so the swarm lags behind its fluid bound by some twenty pieces. A
//! thousand of them keep that to a few percent; many more would cost more in requests than they save.

use std::ops::Range;

/// The shortest piece, 256 KiB. Below this a piece's request costs more than its bytes.
pub const MIN_PIECE_LEN: u64 = 256 << 10;
/// The longest piece of a blob with at most [`MAX_PIECES`] of them, 4 MiB.
pub const MAX_PIECE_LEN: u64 = 4 << 20;
/// The most pieces a blob has; beyond, pieces grow. Bounds bitfields (8 KiB) and midstates (2 MiB).
pub const MAX_PIECES: u64 = 65_536;

/// The pieces of a blob of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    size: u64,
    piece_len: u64,
}

/// The number of a piece that exists. Only a [`Geometry`] issues it, so it is checked once, where it enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// For whoever knows that the piece exists.
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The plain number, to index with.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl Geometry {
    /// The geometry of a blob of `size` bytes: ceil(size / 1024) rounded up to a power of two, clamped to 256 KiB..4 MiB,
    /// doubled while there would be more than 65,536 pieces.
    pub fn of(size: u64) -> Self {
        // Sizes past 2^63 have no next power of two; the clamp makes the exact value irrelevant there.
        let wanted = size.div_ceil(1024).checked_next_power_of_two().unwrap_or(MAX_PIECE_LEN);
        let mut piece_len = wanted.clamp(MIN_PIECE_LEN, MAX_PIECE_LEN);
        while size.div_ceil(piece_len) > MAX_PIECES {
            piece_len *= 2;
        }
        Self { size, piece_len }
    }

    /// Bytes of the blob.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of every piece but the last, a power of two.
    pub const fn piece_len(&self) -> u64 {
        self.piece_len
    }

    /// How many pieces there are; 0 for the empty blob.
    pub const fn count(&self) -> u32 {
        self.size.div_ceil(self.piece_len) as u32
    }

    /// The piece with this number, if there is one.
    pub const fn piece(&self, number: u32) -> Option<PieceIndex> {
        if number < self.count() {
            Some(PieceIndex(number))
        } else {
            None
        }
    }

    /// All pieces, in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + use<> {
        (0..self.count()).map(PieceIndex)
    }

    /// The piece that holds the byte at `offset`, if the blob is that long.
    pub fn piece_at(&self, offset: u64) -> Option<PieceIndex> {
        (offset < self.size).then(|| PieceIndex((offset / self.piece_len) as u32))
    }

    /// Where in the blob a piece lies.
    pub fn range(&self, piece: PieceIndex) -> Range<u64> {
        let start = u64::from(piece.0) * self.piece_len;
        start..self.size.min(start.saturating_add(self.piece_len))
    }

    /// Bytes of one piece.
    pub fn len(&self, piece: PieceIndex) -> u64 {
        let range = self.range(piece);
        range.end - range.start
    }

    /// Whether the blob is empty, and so has no piece.
    pub const fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Whether this is the piece that carries SHA-256's padding.
    pub const fn is_last(&self, piece: PieceIndex) -> bool {
        piece.0 + 1 == self.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_has_a_last_piece() {
        let geometry = Geometry::of(u64::MAX);
        let last = geometry.piece(geometry.count() - 1).unwrap();
        assert_eq!(geometry.range(last).end, u64::MAX);
        assert_eq!(geometry.piece_at(u64::MAX - 1), Some(last));
    }

    #[test]
    fn piece_lengths_follow_the_size() {
        for (size, piece_len, count) in [
            (0, 256 << 10, 0),
            (1, 256 << 10, 1),
            (256 << 10, 256 << 10, 1),
            ((256 << 10) + 1, 256 << 10, 2),
            (256 << 20, 256 << 10, 1024),
            ((256 << 20) + 1, 512 << 10, 513),
            (1 << 30, 1 << 20, 1024),
            (4 << 30, 4 << 20, 1024),
            (6 << 30, 4 << 20, 1536),
            (256 << 30, 4 << 20, 65_536),
            ((256 << 30) + 1, 8 << 20, 32_769),
        ] {
            let geometry = Geometry::of(size);
            assert_eq!(
                (geometry.piece_len(), geometry.count()),
                (piece_len, count),
                "size {size}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_tile_the_blob(size in 0u64..1 << 42) {
            let geometry = Geometry::of(size);
            let (Some(first), Some(last)) = (geometry.pieces().next(), geometry.pieces().next_back()) else {
                proptest::prop_assert_eq!(size, 0);
                return Ok(());
            };
            proptest::prop_assert_eq!(geometry.range(first).start, 0);
            proptest::prop_assert_eq!(geometry.range(last).end, size);
            proptest::prop_assert_eq!(geometry.piece_at(size - 1), Some(last));
            proptest::prop_assert_eq!(geometry.piece_at(size), None);
            proptest::prop_assert!(geometry.piece_len().is_multiple_of(64));
            proptest::prop_assert!(u64::from(geometry.count()) <= MAX_PIECES);
        }
    }
}
