//! SHA-256's chaining value at a piece boundary.

use std::fmt;

use sha2::block_api::compress256;

use crate::{Digest, digest};

/// SHA-256's initial hash value (FIPS 180-4, section 5.3.3): the midstate before the first piece.
const IV: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

/// SHA-256's state after a whole number of 64-byte blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Midstate(pub(crate) [u32; 8]);

impl Midstate {
    /// The state before any byte.
    pub const START: Self = Self(IV);

    /// The state as 32 big-endian bytes, as files and messages carry it.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// The state with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_be_bytes(from.try_into().expect("chunks_exact(4) gives four bytes"));
        }
        Self(words)
    }

    /// The state after these whole blocks.
    #[must_use]
    pub(crate) fn advance(mut self, blocks: &[[u8; 64]]) -> Self {
        compress256(&mut self.0, blocks);
        self
    }

    /// The digest of a blob of `size` bytes whose last `tail` bytes follow this state.
    pub(crate) fn finish(self, tail: &[u8], size: u64) -> Digest {
        let (blocks, rest) = tail.as_chunks::<64>();
        let (padding, used) = padding(rest, size);
        let state = self.advance(blocks).advance(&padding[..used]);
        Digest::from_bytes(state.to_bytes())
    }
}

/// The last one or two blocks: what is left of the message, a one bit, zeros, and its length in bits (FIPS 180-4, 5.1.1).
pub(crate) fn padding(rest: &[u8], size: u64) -> ([[u8; 64]; 2], usize) {
    debug_assert!(rest.len() < 64, "whole blocks are compressed before padding");
    let mut padding = [[0; 64]; 2];
    padding[0][..rest.len()].copy_from_slice(rest);
    padding[0][rest.len()] = 0x80;
    let used = if rest.len() < 56 { 1 } else { 2 };
    padding[used - 1][56..].copy_from_slice(&size.wrapping_mul(8).to_be_bytes());
    (padding, used)
}

impl fmt::Debug for Midstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&digest::hex(&self.to_bytes()[..4]))
    }
}

impl<C> minicbor::Encode<C> for Midstate {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Midstate {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d
            .bytes()?
            .try_into()
            .map_err(|_| minicbor::decode::Error::message("a midstate has 32 bytes"))?;
        Ok(Self::from_bytes(bytes))
    }
}

/// Hashes a blob in order, piece by piece, keeping the midstate: how the registry's reader builds the chain.
#[derive(Debug, Clone, Copy)]
pub struct PrefixHasher {
    state: Midstate,
    hashed: u64,
}

impl PrefixHasher {
    /// Begins at the start of a blob.
    pub const fn new() -> Self {
        Self::resume(Midstate::START, 0)
    }

    /// Begins at `offset`, a piece boundary whose midstate is known: how a reader is taken over.
    pub const fn resume(state: Midstate, offset: u64) -> Self {
        Self { state, hashed: offset }
    }

    /// Takes the next piece and returns the midstate after it. `piece` must be whole blocks, so never the blob's last
    /// piece unless its length happens to be a multiple of 64.
    ///
    /// # Panics
    /// If the length of `piece` is no multiple of 64.
    pub fn piece(&mut self, piece: &[u8]) -> Midstate {
        let (blocks, rest) = piece.as_chunks::<64>();
        assert!(
            rest.is_empty(),
            "only a blob's last piece may end inside a block, and that one goes to `last`"
        );
        self.state = self.state.advance(blocks);
        self.hashed += piece.len() as u64;
        self.state
    }

    /// Takes the blob's last piece and returns the digest of the whole blob.
    pub fn last(self, piece: &[u8]) -> Digest {
        self.state.finish(piece, self.hashed + piece.len() as u64)
    }
}

impl Default for PrefixHasher {
    fn default() -> Self {
        Self::new()
    }
}
