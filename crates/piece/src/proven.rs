//! Pieces that passed verification, as a type: whoever holds a [`Proven`] need not ask.

use crate::{Digest, Link, PieceIndex, verify, verify_two};

/// The bytes of a piece that were verified against its link. Only [`prove`] and [`prove_two`] make one, so a store that takes
/// nothing else cannot be given unverified bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<B> {
    digest: Digest,
    piece: PieceIndex,
    bytes: B,
}

/// Bytes that claim to be a piece, with all that it takes to prove them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<B> {
    /// What proves the piece, from the blob's chain.
    pub link: Link,
    /// Which piece it is.
    pub piece: PieceIndex,
    /// The blob's digest.
    pub digest: Digest,
    /// The bytes.
    pub bytes: B,
}

impl<B: AsRef<[u8]>> Proven<B> {
    /// Which piece it is.
    pub const fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// The blob's digest.
    pub const fn digest(&self) -> &Digest {
        &self.digest
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

/// Verifies a piece against its link in the chain of the blob with this digest.
///
/// # Errors
/// Gives the buffer back if the bytes are not the piece.
pub fn prove<B: AsRef<[u8]>>(link: &Link, piece: PieceIndex, digest: Digest, bytes: B) -> Result<Proven<B>, B> {
    let ok = verify(link, bytes.as_ref());
    Candidate {
        link: *link,
        piece,
        digest,
        bytes,
    }
    .judged(ok)
}

/// Verifies two pieces at once, of the same blob or of two, in little more than half the time (see [`verify_two`]).
/// Each result is what [`prove`] would give.
pub fn prove_two<B: AsRef<[u8]>>(a: Candidate<B>, b: Candidate<B>) -> (Result<Proven<B>, B>, Result<Proven<B>, B>) {
    let (a_ok, b_ok) = verify_two((&a.link, a.bytes.as_ref()), (&b.link, b.bytes.as_ref()));
    (a.judged(a_ok), b.judged(b_ok))
}

impl<B> Candidate<B> {
    fn judged(self, ok: bool) -> Result<Proven<B>, B> {
        let Self {
            piece, digest, bytes, ..
        } = self;
        if ok {
            Ok(Proven { digest, piece, bytes })
        } else {
            Err(bytes)
        }
    }
}
