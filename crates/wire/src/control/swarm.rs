//! What is said of one blob: who holds it, who reads it, and who misbehaved over it.

use minicbor::{Decode, Encode};
use piece::{Blob, Digest, Midstate, NodeId};

use super::{Access, Failure, Neighbour, Source};

/// What a node holds, or is fetching, of one blob.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Holding {
    /// Which blob.
    #[n(0)]
    pub blob: Blob,
    /// Verified pieces it has.
    #[n(1)]
    pub pieces: u32,
    /// Whether it wants the rest.
    #[n(2)]
    pub wants: bool,
    /// Media type as the registry gave it, if known.
    #[n(3)]
    pub media_type: Option<String>,
    /// How far the holder has got with the origin lease, if it holds it.
    #[n(4)]
    pub reading: Option<Reading>,
}

/// The state of an origin lease, as its holder reports it. Sent only once the registry has answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reading {
    /// The lease's fencing epoch.
    #[n(0)]
    pub epoch: u64,
    /// The highest boundary below which every piece is *published*: held by another node.
    #[n(1)]
    pub boundary: u32,
    /// The midstate there; absent at the start and where the chain does not reach.
    #[n(2)]
    pub midstate: Option<Midstate>,
    /// Where it reads.
    #[n(3)]
    pub source: Source,
    /// Whether the registry serves it there to anybody.
    #[n(4)]
    pub access: Access,
}

/// Leave to read a blob from the registry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Lease {
    /// Fencing epoch; grows with every grant for this blob. Runs signed under an older one are no longer accepted anew.
    #[n(0)]
    pub epoch: u64,
    /// Where to read.
    #[n(1)]
    pub source: Source,
    /// Where to go on: the last published boundary that is known, and its midstate. Absent: nobody has read the blob before.
    #[n(2)]
    pub resume: Option<Resume>,
}

/// Where a reader takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Resume {
    /// The boundary.
    #[n(0)]
    pub boundary: u32,
    /// The midstate there.
    #[n(1)]
    pub midstate: Midstate,
}

/// What a scheduler tells a node about one blob. Everything absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Swarm {
    /// The blob's size, once somebody knows it.
    #[n(0)]
    pub size: Option<u64>,
    /// Media type as the registry gave it.
    #[n(1)]
    pub media_type: Option<String>,
    /// Nodes to connect to.
    #[n(2)]
    pub neighbours: Vec<Neighbour>,
    /// Whose midstates to accept besides those of nodes whose chain has closed: the lease's holders so far, latest last.
    #[n(3)]
    pub readers: Vec<NodeId>,
    /// The receiver is to read the registry.
    #[n(4)]
    pub lease: Option<Lease>,
    /// The receiver's lease with this epoch or an older one is over.
    #[n(5)]
    pub revoked: Option<u64>,
    /// Whether a source serves this content to anybody.
    #[n(6)]
    pub access: Option<Access>,
    /// The blob cannot be had from a source.
    #[n(7)]
    pub failure: Option<Failure>,
    /// The source that `access` or `failure` speaks of; absent: the one that the receiver named when it joined.
    #[n(8)]
    pub about: Option<Source>,
    /// What readers signed does not prove the blob.
    #[n(9)]
    pub retracted: Option<Retraction>,
}

/// The bytes of a reading turned out not to be the blob: unless the receiver has proven it, it drops what rests on that reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Retraction {
    /// Runs that were signed under leases up to this epoch are worth nothing.
    #[n(0)]
    pub epoch: u64,
    /// The reader that found out and said so itself; it is not to blame for what it signed.
    #[n(1)]
    pub by: Option<NodeId>,
}

/// A complaint about a node, with what supports it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Accusation {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// About which blob.
    #[n(1)]
    pub digest: Digest,
    /// What it did.
    #[n(2)]
    pub offence: Offence,
}

/// What a node can be accused of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Offence {
    /// Sent bytes that its piece's link refuses.
    #[n(0)]
    WrongBytes,
    /// Signed a midstate that the true chain contradicts. A reader that accuses itself takes back what it signed: the registry
    /// or somebody before it lied to it.
    #[n(1)]
    ForgedMidstates,
}
