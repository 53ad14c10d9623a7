//! What a blob is made of, and how every piece of it is proven against the OCI digest itself.
//!
//! An OCI blob is named by the SHA-256 of all its bytes. SHA-256 is a chain of 64-byte blocks, so the hash state at a
//! piece boundary (the *midstate*, FIPS 180-4 section 6.2: "intermediate hash value") lets each piece be checked on its
//! own, out of order and in parallel. When every piece has passed, midstate 0 is the IV, each link was checked, and the
//! last one gives the digest: the blob is proven without a second pass.
//!
//! This crate does no I/O, reads no clock and holds no global state.

mod bitfield;
mod blocks;
mod chain;
mod cover;
mod digest;
mod geometry;
mod midstate;
mod node_id;
mod proven;
mod run;
mod sha_ni;
mod verify;

pub use bitfield::{Bitfield, BitfieldError};
pub use chain::{Chain, ChainError};
pub use digest::{Digest, ParseDigestError};
pub use geometry::{Geometry, MAX_PIECE_LEN, MAX_PIECES, MIN_PIECE_LEN, PieceIndex};
pub use midstate::{Midstate, PrefixHasher};
pub use node_id::{NodeId, ParseNodeIdError};
pub use proven::{Proof, Proven, prove, prove_two};
pub use run::{MAX_RUN, MidstateRun, RunError, SignedRun, Standing};
pub use verify::{Link, verify, verify_two};

/// A blob as OCI descriptors name it: digest and size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Blob {
    /// SHA-256 of all its bytes.
    #[n(0)]
    pub digest: Digest,
    /// Length in bytes.
    #[n(1)]
    pub size: u64,
}

impl Blob {
    /// How this blob is cut into pieces: a pure function of its size.
    pub fn geometry(&self) -> Geometry {
        Geometry::of(self.size)
    }
}
