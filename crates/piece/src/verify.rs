//! Checking a piece against the two ends of its link in the chain.

use crate::{Digest, Midstate};

/// What proves one piece: the midstate before it, and what must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The midstate at the piece's start.
    pub start: Midstate,
    /// What compressing the piece from `start` must give.
    pub end: LinkEnd,
}

/// What compressing a piece must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// The midstate at the next boundary.
    Midstate(Midstate),
    /// The blob's digest, after SHA-256's padding for `size` bytes: the last piece.
    Digest {
        /// The blob's digest.
        digest: Digest,
        /// The blob's length in bytes, which the padding contains.
        size: u64,
    },
}

/// Whether `piece` is the one this link stands for. Wrong lengths are simply wrong.
pub fn verify(link: &Link, piece: &[u8]) -> bool {
    match link.end {
        LinkEnd::Midstate(end) => {
            let (blocks, rest) = piece.as_chunks::<64>();
            rest.is_empty() && link.start.advance(blocks) == end
        }
        LinkEnd::Digest { digest, size } => link.start.finish(piece, size) == digest,
    }
}

/// Verifies two pieces at once, interleaved on one core where the processor has SHA-NI. Equal to calling [`verify`] twice.
pub fn verify_two(a: (&Link, &[u8]), b: (&Link, &[u8])) -> (bool, bool) {
    (verify(a.0, a.1), verify(b.0, b.1))
}
