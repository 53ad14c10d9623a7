//! Pieces that passed verification, as a type: whoever holds a [`Proven`] need not ask.

use crate::verify::Partly;
use crate::{Blob, Digest, Link, PieceIndex, verify, verify_two};

/// The bytes of a piece that were verified against its link, in the chunks in which they came. Only [`prove`], [`prove_two`] and
/// [`Proving`] make one, so a store that takes nothing else cannot be given unverified bytes, nor bytes of another piece or another
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

/// A piece that is hashed while it arrives, and so is proven as soon as its last byte is here: for one that somebody waits
/// for. Several at once are cheaper by [`prove_two`]. It copies the bytes, so that what was hashed is what is proven.
#[derive(Debug)]
pub struct Proving {
    partly: Partly,
    len: usize,
    bytes: Vec<u8>,
    /// Whether there were more bytes than the piece has.
    is_over: bool,
}

impl Proving {
    /// Begins with none of the piece that this link stands for, and with room for all of it.
    pub fn new(link: Link) -> Self {
        let len = usize::try_from(link.blob().geometry().len(link.piece())).expect("a piece fits into memory");
        Self {
            partly: Partly::new(link),
            len,
            bytes: Vec::with_capacity(len),
            is_over: false,
        }
    }

    /// Takes the next bytes. Those beyond the piece's length are not kept: they make it wrong.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.len - self.bytes.len();
        self.is_over |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.partly.advance(&self.bytes);
    }

    /// The piece, if these were its bytes, all of them and no more.
    ///
    /// # Errors
    /// Gives the bytes back if they are not the piece.
    pub fn finish(self) -> Proof<Vec<u8>> {
        let ok = !self.is_over && self.partly.is_all_of(&self.bytes);
        judge(ok, self.partly.link(), vec![self.bytes])
    }
}

fn judge<C>(ok: bool, link: &Link, chunks: Vec<C>) -> Proof<C> {
    let (blob, piece) = (*link.blob(), link.piece());
    if ok {
        Ok(Proven { blob, piece, chunks })
    } else {
        Err(chunks)
    }
}
