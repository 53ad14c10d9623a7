//! The data plane: what neighbours say to one another over QUIC.
//!
//! The dialler opens one bidirectional stream, both ends send [`Hello`] on it, and it stays open as the message stream for
//! [`Message`] frames in both directions. Each piece is asked for on a bidirectional stream of its own: a [`Fetch`] frame
//! one way, an [`Answer`] frame and then `length` raw bytes the other. Resetting or stopping the stream cancels it.

use minicbor::{Decode, Encode};
use piece::{Blob, Digest, NodeId, SignedRun};

/// The most bytes in a frame of the message stream: a bitfield of 65,536 pieces is 8 KiB, a `Have` at most 32 KiB.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The most bytes in a [`Hello`]: read from a stranger, so kept small.
pub const MAX_HELLO: usize = 512;
/// The most bytes in a [`Fetch`].
pub const MAX_FETCH: usize = 256;
/// The most bytes in an [`Answer`]: its runs, each about 2.2 KiB.
pub const MAX_ANSWER: usize = 32 << 10;
/// The most runs in one [`Answer`].
pub const MAX_ANSWER_RUNS: usize = 8;
/// The most ranges in one [`Message::Have`].
pub const MAX_HAVE_RANGES: usize = 2048;
/// Bytes of a zone's label at most.
pub const MAX_ZONE: usize = 128;
/// Bytes of a media type at most (RFC 6838 allows 127 + 1 + 127).
pub const MAX_MEDIA_TYPE: usize = 255;

/// The first frame each way on a new connection, before any other byte is read: the membership proof.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`crate::PROTOCOL`] of the sender.
    #[n(0)]
    pub protocol: u16,
    /// HMAC-SHA256 over direction, TLS exporter value and the sender's node id, under the key derived from the cluster key.
    /// One for each key that the sender accepts (the current one first, at most two): keys rotate with overlap.
    #[n(1)]
    pub proofs: Vec<Proof>,
    /// The sender's release, for the log.
    #[n(2)]
    pub version: String,
}

/// One membership proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Proof(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// What neighbours tell each other about one blob.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Everything the sender holds of a blob; the first thing said about it, and said again after a change that `Have`
    /// cannot express. Both ends send it, so each learns whether the other wants or holds the blob.
    #[n(0)]
    Holding {
        /// Which blob.
        #[n(0)]
        blob: Blob,
        /// Its pieces at the sender, as [`piece::Bitfield`] bytes; absent when it holds all of them.
        #[cbor(n(1), with = "minicbor::bytes")]
        bits: Option<Vec<u8>>,
        /// Whether the sender still wants pieces.
        #[n(2)]
        wants: bool,
        /// Media type as the registry gave it, if known (manifests).
        #[n(3)]
        media_type: Option<String>,
        /// Whether the sender is to be asked only for what nobody else has: it reads the registry, and its uplink is what the
        /// whole swarm waits for.
        #[cbor(n(4), default)]
        spare: bool,
        /// The sender's zone, if it has a label: at most [`MAX_ZONE`] bytes.
        #[n(5)]
        zone: Option<String>,
        /// Whether the sender fetches its share of what only other zones hold.
        #[cbor(n(6), default)]
        imports: bool,
    },
    /// Pieces that the sender holds since it last spoke: `(first, count)` ranges, at most [`MAX_HAVE_RANGES`].
    #[n(1)]
    Have {
        /// Which blob.
        #[n(0)]
        digest: Digest,
        /// Ranges of piece numbers.
        #[n(1)]
        ranges: Vec<(u32, u32)>,
        /// Requests that the sender is serving or keeps waiting, so that others ask where it is quiet.
        #[cbor(n(2), default)]
        load: u16,
    },
    /// The sender neither holds nor wants the blob (any more).
    #[n(2)]
    Gone {
        /// Which blob.
        #[n(0)]
        digest: Digest,
    },
}

/// Asks for one piece, or for a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// Which blob.
    #[n(0)]
    pub digest: Digest,
    /// Its size, so that both ends mean the same geometry.
    #[n(1)]
    pub size: u64,
    /// Which piece.
    #[n(2)]
    pub piece: u32,
    /// Whether the asker lacks a midstate at either end of the piece and wants the signed runs.
    #[n(3)]
    pub runs: bool,
}

/// What comes back before the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// The whole piece follows.
    #[n(0)]
    Piece {
        /// Signed runs that hold both ends of the piece, if asked for; at most [`MAX_ANSWER_RUNS`].
        #[n(0)]
        runs: Vec<SignedRun>,
    },
    /// Nothing follows.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        refusal: Refusal,
    },
}

/// Why a piece is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// The blob or the piece is not here (any more).
    #[n(0)]
    NotHere,
    /// All upload slots and the queue are taken: ask somebody else, or again later.
    #[n(1)]
    Busy,
    /// The disk failed.
    #[n(2)]
    Failed,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its node id, proven by TLS.
    pub node: NodeId,
    /// Its release, as it says.
    pub version: String,
}
