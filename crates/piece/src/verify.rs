//! Checking pieces against the two ends of their links in the chain.

use crate::midstate::Midstate;
use crate::{Blob, Digest, PieceIndex, sha_ni};

/// What proves one piece: the midstate before it, and what must come out. Only a [`Chain`](crate::Chain) issues one, so a
/// link always belongs to the blob and the piece that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    blob: Blob,
    piece: PieceIndex,
    start: Midstate,
    end: LinkEnd,
}

/// What compressing a piece must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The midstate at the next boundary.
    Midstate(Midstate),
    /// The blob's digest, after SHA-256's padding: the last piece.
    Digest,
}

impl Link {
    pub(crate) const fn new(blob: Blob, piece: PieceIndex, start: Midstate, end: LinkEnd) -> Self {
        Self {
            blob,
            piece,
            start,
            end,
        }
    }

    /// The blob.
    pub const fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The blob's digest.
    pub const fn digest(&self) -> &Digest {
        &self.blob.digest
    }

    /// Which piece it proves.
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// The whole blocks of a piece and the bytes after them, or nothing if the piece has not the length that it must have.
    /// Without this check, forged midstates could pass off an empty piece as proven, and the whole blob as its last piece.
    fn cut<'a>(&self, piece: &'a [u8]) -> Option<(&'a [[u8; 64]], &'a [u8])> {
        (piece.len() as u64 == self.blob.geometry().len(self.piece)).then_some(piece.as_chunks::<64>())
    }

    /// Whether the piece that led to `state`, but for its last incomplete block `rest`, is the right one.
    fn ends_with(&self, state: Midstate, rest: &[u8]) -> bool {
        match self.end {
            LinkEnd::Midstate(end) => rest.is_empty() && state == end,
            LinkEnd::Digest => state.finish(rest, self.blob.size) == self.blob.digest,
        }
    }
}

/// Whether `piece` is the one this link stands for. Wrong lengths are simply wrong.
pub fn verify(link: &Link, piece: &[u8]) -> bool {
    link.cut(piece)
        .is_some_and(|(blocks, rest)| link.ends_with(link.start.advance(blocks), rest))
}

/// Verifies two pieces at once, interleaved on one core where the processor has SHA-NI. Equal to calling [`verify`] twice.
pub fn verify_two(a: (&Link, &[u8]), b: (&Link, &[u8])) -> (bool, bool) {
    let (Some((a_blocks, a_rest)), Some((b_blocks, b_rest))) = (a.0.cut(a.1), b.0.cut(b.1)) else {
        return (verify(a.0, a.1), verify(b.0, b.1));
    };
    let (mut a_state, mut b_state) = (a.0.start, b.0.start);
    sha_ni::compress_two((&mut a_state.0, a_blocks), (&mut b_state.0, b_blocks));
    (a.0.ends_with(a_state, a_rest), b.0.ends_with(b_state, b_rest))
}
