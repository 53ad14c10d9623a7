//! SHA-256's 64-byte blocks of bytes that lie in chunks, as they come off a network: hashed where they lie. Only a block that
//! straddles chunks is copied.

use std::slice;

/// Bytes in a block.
const BLOCK: usize = 64;

/// A walk over the whole blocks of a row of chunks, to the bytes after the last one.
#[derive(Debug)]
pub(crate) struct Blocks<'a, C> {
    chunks: slice::Iter<'a, C>,
    /// Whole blocks that lie together in the present chunk; none while there are some in `straddling`.
    whole: &'a [[u8; BLOCK]],
    /// What follows them in that chunk.
    tail: &'a [u8],
    /// A block that straddles chunks, and how much of it is there.
    straddling: [u8; BLOCK],
    filled: usize,
}

impl<'a, C: AsRef<[u8]>> Blocks<'a, C> {
    /// Begins at the first byte of the first chunk.
    pub(crate) fn of(chunks: &'a [C]) -> Self {
        let mut blocks = Self {
            chunks: chunks.iter(),
            whole: &[],
            tail: &[],
            straddling: [0; BLOCK],
            filled: 0,
        };
        blocks.find();
        blocks
    }

    /// The next blocks, as many as lie together; none at the end.
    pub(crate) fn together(&self) -> &[[u8; BLOCK]] {
        if self.filled == BLOCK {
            slice::from_ref(&self.straddling)
        } else {
            self.whole
        }
    }

    /// Goes past `count` of the blocks that lie together.
    pub(crate) fn pass(&mut self, count: usize) {
        if self.filled == BLOCK {
            if count == 0 {
                return;
            }
            self.filled = 0;
        } else {
            self.whole = &self.whole[count..];
        }
        self.find();
    }

    /// At the end: the bytes after the last whole block.
    pub(crate) fn rest(&self) -> &[u8] {
        debug_assert!(self.together().is_empty(), "there are blocks left");
        &self.straddling[..self.filled]
    }

    /// Goes on to the next blocks if there are none at hand.
    fn find(&mut self) {
        while self.whole.is_empty() && self.filled < BLOCK {
            if self.filled == 0 && self.tail.len() >= BLOCK {
                (self.whole, self.tail) = self.tail.as_chunks();
            } else if !self.tail.is_empty() {
                let (part, tail) = self.tail.split_at(self.tail.len().min(BLOCK - self.filled));
                self.straddling[self.filled..self.filled + part.len()].copy_from_slice(part);
                self.filled += part.len();
                self.tail = tail;
            } else if let Some(chunk) = self.chunks.next() {
                self.tail = chunk.as_ref();
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the bytes are cut and however the blocks are taken, they are the bytes' own.
        #[test]
        fn are_those_of_the_bytes_in_a_row(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..12),
            steps in prop::collection::vec(0usize..4, 1..8),
        ) {
            let bytes = chunks.concat();
            let (whole, rest) = bytes.as_chunks::<BLOCK>();
            let mut blocks = Blocks::of(&chunks);
            let mut seen = Vec::new();
            // None at all in one step, so that one that is not taken is not lost either.
            for step in steps.iter().chain([&1]).cycle() {
                let next = blocks.together();
                if next.is_empty() {
                    break;
                }
                let taken = next.len().min(*step);
                seen.extend_from_slice(&next[..taken]);
                blocks.pass(taken);
            }
            prop_assert_eq!(&seen[..], whole);
            prop_assert_eq!(blocks.rest(), rest);
        }
    }
}
