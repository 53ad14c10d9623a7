//! Checking pieces against the two ends of their links in the chain.

use crate::blocks::Blocks;
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

    /// Walks over a piece's blocks, or nothing if the piece has not the length that it must have. Without this check, forged
    /// midstates could pass off an empty piece as proven, and the whole blob as its last piece.
    fn blocks<'a, C: AsRef<[u8]>>(&self, piece: &'a [C]) -> Option<Blocks<'a, C>> {
        let len: u64 = piece.iter().map(|chunk| chunk.as_ref().len() as u64).sum();
        (len == self.blob.geometry().len(self.piece)).then(|| Blocks::of(piece))
    }

    /// Whether the piece that led to `state`, but for its last incomplete block `rest`, is the right one.
    fn ends_with(&self, state: Midstate, rest: &[u8]) -> bool {
        match self.end {
            LinkEnd::Midstate(end) => rest.is_empty() && state == end,
            LinkEnd::Digest => state.finish(rest, self.blob.size) == self.blob.digest,
        }
    }
}

/// Whether `piece`, which lies in chunks of any lengths, is the one this link stands for. Wrong lengths are simply wrong.
pub fn verify<C: AsRef<[u8]>>(link: &Link, piece: &[C]) -> bool {
    link.blocks(piece)
        .is_some_and(|blocks| finish(link, link.start, blocks))
}

/// Verifies two pieces at once, interleaved on one core where the processor has SHA-NI. Equal to calling [`verify`] twice.
pub fn verify_two<C: AsRef<[u8]>>(a: (&Link, &[C]), b: (&Link, &[C])) -> (bool, bool) {
    let (Some(mut a_blocks), Some(mut b_blocks)) = (a.0.blocks(a.1), b.0.blocks(b.1)) else {
        return (verify(a.0, a.1), verify(b.0, b.1));
    };
    let (mut a_state, mut b_state) = (a.0.start, b.0.start);
    loop {
        let (a_next, b_next) = (a_blocks.together(), b_blocks.together());
        let common = a_next.len().min(b_next.len());
        if common == 0 {
            break;
        }
        let (a_next, b_next) = (&a_next[..common], &b_next[..common]);
        sha_ni::compress_two((&mut a_state.0, a_next), (&mut b_state.0, b_next));
        a_blocks.pass(common);
        b_blocks.pass(common);
    }
    (finish(a.0, a_state, a_blocks), finish(b.0, b_state, b_blocks))
}

/// Whether what is left of a piece leads from `state` to the link's end.
fn finish<C: AsRef<[u8]>>(link: &Link, mut state: Midstate, mut blocks: Blocks<'_, C>) -> bool {
    loop {
        let next = blocks.together();
        if next.is_empty() {
            return link.ends_with(state, blocks.rest());
        }
        state = state.advance(next);
        let passed = next.len();
        blocks.pass(passed);
    }
}
