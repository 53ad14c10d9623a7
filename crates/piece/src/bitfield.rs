//! Which pieces somebody has.

use std::ops::Range;

use crate::{Geometry, PieceIndex};

/// One bit per piece; the first piece is the highest bit of the first byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitfield {
    bits: Vec<u8>,
    len: u32,
    ones: u32,
}

/// Why bytes from outside are no bitfield of this blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// The number of bytes does not fit the number of pieces.
    #[error("a bitfield of {pieces} pieces has {expected} bytes, not {got}")]
    Length {
        /// Pieces of the blob.
        pieces: u32,
        /// Bytes that many pieces need.
        expected: usize,
        /// Bytes received.
        got: usize,
    },
    /// A bit past the last piece is set.
    #[error("a bit past the last piece is set")]
    Excess,
}

impl Bitfield {
    /// No piece.
    pub fn empty(geometry: &Geometry) -> Self {
        let len = geometry.count();
        Self {
            bits: vec![0; len.div_ceil(8) as usize],
            len,
            ones: 0,
        }
    }

    /// Every piece.
    pub fn full(geometry: &Geometry) -> Self {
        let mut field = Self::empty(geometry);
        geometry.pieces().for_each(|piece| {
            field.set(piece);
        });
        field
    }

    /// The bitfield with these bytes.
    ///
    /// # Errors
    /// If the length does not fit the geometry or a bit past the last piece is set.
    pub fn from_bytes(geometry: &Geometry, bits: &[u8]) -> Result<Self, BitfieldError> {
        let len = geometry.count();
        let expected = len.div_ceil(8) as usize;
        if bits.len() != expected {
            return Err(BitfieldError::Length {
                pieces: len,
                expected,
                got: bits.len(),
            });
        }
        let spare = expected as u32 * 8 - len;
        if bits.last().is_some_and(|last| last & ((1u16 << spare) - 1) as u8 != 0) {
            return Err(BitfieldError::Excess);
        }
        let ones = bits.iter().map(|byte| byte.count_ones()).sum();
        Ok(Self {
            bits: bits.to_vec(),
            len,
            ones,
        })
    }

    /// The bytes, as messages and side files carry them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Whether a piece is there.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.bits[piece.as_usize() / 8] & mask(piece) != 0
    }

    /// Adds a piece; true if it was new.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        let new = !self.has(piece);
        self.bits[piece.as_usize() / 8] |= mask(piece);
        self.ones += u32::from(new);
        new
    }

    /// Takes a piece away; true if it was there.
    pub fn clear(&mut self, piece: PieceIndex) -> bool {
        let had = self.has(piece);
        self.bits[piece.as_usize() / 8] &= !mask(piece);
        self.ones -= u32::from(had);
        had
    }

    /// How many pieces are there.
    pub const fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is there.
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether no piece is there.
    pub const fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// The pieces numbered in `range` that are here and not in `other`, in order: 64 are skipped at a time.
    pub fn beyond<'a>(&'a self, other: &'a Self, range: Range<u32>) -> impl Iterator<Item = PieceIndex> + 'a {
        debug_assert_eq!(self.len, other.len, "both are of one blob");
        let end = range.end.min(self.len);
        let words = range.start / 64..end.div_ceil(64);
        let first = range.start;
        words.flat_map(move |word| {
            let mut bits = self.word(word) & !other.word(word);
            std::iter::from_fn(move || {
                let next = bits.leading_zeros();
                bits &= !(1u64 << 63).checked_shr(next)?;
                Some(word * 64 + next)
            })
            .filter(move |number| (first..end).contains(number))
            .map(PieceIndex::new)
        })
    }

    /// 64 pieces, the first in the highest bit.
    fn word(&self, word: u32) -> u64 {
        let bytes = &self.bits[word as usize * 8..];
        if let Some(whole) = bytes.first_chunk() {
            return u64::from_be_bytes(*whole);
        }
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        u64::from_be_bytes(padded)
    }

    /// The number of the first missing piece; the number of pieces if none is missing.
    pub fn prefix(&self) -> u32 {
        let whole = self.bits.iter().take_while(|byte| **byte == 0xff).count() as u32;
        let next = self.bits.get(whole as usize).map_or(0, |byte| byte.leading_ones());
        (whole * 8 + next).min(self.len)
    }
}

impl std::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.len)
    }
}

const fn mask(piece: PieceIndex) -> u8 {
    0x80 >> (piece.get() % 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prefix() {
        let geometry = Geometry::of(11 * 256 * 1024);
        let mut field = Bitfield::empty(&geometry);
        for number in [0, 1, 2, 9, 10] {
            assert!(field.set(geometry.piece(number).unwrap()));
        }
        assert_eq!((field.count(), field.prefix()), (5, 3));
        assert!(!field.set(geometry.piece(0).unwrap()));
        assert!(field.clear(geometry.piece(0).unwrap()));
        assert_eq!((field.count(), field.prefix()), (4, 0));
        assert!(Bitfield::full(&geometry).is_full());
        assert_eq!(Bitfield::full(&geometry).prefix(), 11);
    }

    proptest::proptest! {
        #[test]
        fn beyond_is_what_one_has_and_the_other_lacks(
            bits in proptest::collection::vec((proptest::bool::ANY, proptest::bool::ANY), 1..300),
            start in 0u32..320,
            len in 0u32..320,
        ) {
            // Above 16 MiB pieces are longer than the shortest, so there are fewer than bits; the zip takes what there are.
            let geometry = Geometry::of(bits.len() as u64 * 256 * 1024);
            let (mut one, mut other) = (Bitfield::empty(&geometry), Bitfield::empty(&geometry));
            for (piece, (in_one, in_other)) in geometry.pieces().zip(&bits) {
                if *in_one { one.set(piece); }
                if *in_other { other.set(piece); }
            }
            let range = start..start + len;
            let expected: Vec<PieceIndex> = geometry
                .pieces()
                .filter(|piece| range.contains(&piece.get()) && one.has(*piece) && !other.has(*piece))
                .collect();
            proptest::prop_assert_eq!(one.beyond(&other, range).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn refuses_wrong_length_and_excess_bits() {
        let geometry = Geometry::of(11 * 256 * 1024);
        assert!(matches!(
            Bitfield::from_bytes(&geometry, &[0; 3]),
            Err(BitfieldError::Length { .. })
        ));
        assert_eq!(Bitfield::from_bytes(&geometry, &[0, 0x10]), Err(BitfieldError::Excess));
        let full = Bitfield::full(&geometry);
        assert_eq!(Bitfield::from_bytes(&geometry, full.as_bytes()), Ok(full));
    }
}
