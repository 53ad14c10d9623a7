//! Pieces that passed verification, as a type: whoever holds a [`Proven`] need not ask.

use crate::{Blob, Digest, Link, PieceIndex, verify, verify_two};

/// The bytes of a piece that were verified against its link. Only [`prove`] and [`prove_two`] make one, so a store that takes
/// nothing else cannot be given unverified bytes, nor bytes of another piece or another length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<B> {
    blob: Blob,
    piece: PieceIndex,
    bytes: B,
}

impl<B: AsRef<[u8]>> Proven<B> {
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

    /// The verified bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The buffer, no longer known to be proven.
    pub fn into_inner(self) -> B {
        self.bytes
    }
}

/// Verifies a piece against its link.
///
/// # Errors
/// Gives the buffer back if the bytes are not the piece.
pub fn prove<B: AsRef<[u8]>>(link: &Link, bytes: B) -> Result<Proven<B>, B> {
    let ok = verify(link, bytes.as_ref());
    judge(ok, link, bytes)
}

/// Verifies two pieces at once, of the same blob or of two, in little more than half the time (see [`verify_two`]).
///
/// # Errors
/// Each result is what [`prove`] would give.
pub fn prove_two<B: AsRef<[u8]>>(a: (&Link, B), b: (&Link, B)) -> (Result<Proven<B>, B>, Result<Proven<B>, B>) {
    let (a_ok, b_ok) = verify_two((a.0, a.1.as_ref()), (b.0, b.1.as_ref()));
    (judge(a_ok, a.0, a.1), judge(b_ok, b.0, b.1))
}

fn judge<B>(ok: bool, link: &Link, bytes: B) -> Result<Proven<B>, B> {
    let (blob, piece) = (*link.blob(), link.piece());
    if ok {
        Ok(Proven { blob, piece, bytes })
    } else {
        Err(bytes)
    }
}
