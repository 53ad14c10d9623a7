//! Pieces that passed verification, as a type: whoever holds a [`Proven`] need not ask.

use crate::{Blob, Digest, Link, PieceIndex, verify, verify_two};

/// The bytes of a piece that were verified against its link, in the chunks in which they came. Only [`prove`] and [`prove_two`]
/// make one, so a store that takes nothing else cannot be given unverified bytes, nor bytes of another piece or another
/// length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<C> {
    blob: Blob,
    piece: PieceIndex,
    chunks: Vec<C>,
}

impl<C> Proven<C> {
    /// The blob.
    pub const fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The blob's digest.
    pub const fn digest(&self) -> &Digest {
        &self.blob.digest
    }

    /// Which piece it is.
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// The verified bytes, in order.
    pub fn chunks(&self) -> &[C] {
        &self.chunks
    }

    /// The chunks, no longer known to be proven.
    pub fn into_inner(self) -> Vec<C> {
        self.chunks
    }
}

/// A piece that is proven, or the chunks that are not it.
pub type Proof<C> = Result<Proven<C>, Vec<C>>;

/// Verifies a piece against its link.
///
/// # Errors
/// Gives the chunks back if they are not the piece.
pub fn prove<C: AsRef<[u8]>>(link: &Link, chunks: Vec<C>) -> Proof<C> {
    let ok = verify(link, &chunks);
    judge(ok, link, chunks)
}

/// Verifies two pieces at once, of the same blob or of two, in little more than half the time (see [`verify_two`]).
///
/// # Errors
/// Each result is what [`prove`] would give.
pub fn prove_two<C: AsRef<[u8]>>(a: (&Link, Vec<C>), b: (&Link, Vec<C>)) -> (Proof<C>, Proof<C>) {
    let (a_ok, b_ok) = verify_two((a.0, &a.1), (b.0, &b.1));
    (judge(a_ok, a.0, a.1), judge(b_ok, b.0, b.1))
}

fn judge<C>(ok: bool, link: &Link, chunks: Vec<C>) -> Proof<C> {
    let (blob, piece) = (*link.blob(), link.piece());
    if ok {
        Ok(Proven { blob, piece, chunks })
    } else {
        Err(chunks)
    }
}
