//! What a node is told, and what it asks to be done.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use piece::{Bitfield, Blob, Digest, NodeId, PieceIndex};
use wire::control::{Access, Failure, Holding, Lease, Neighbour, Role, Source, Swarm};
use wire::exchange::{Message, Refusal};

use super::ask::Ask;

/// Names one piece request of ours until its [`Input::Fetched`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// Names one piece request of a neighbour until its [`Input::Served`]; chosen by whoever drives the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServeId(pub u64);

/// What happened.
#[expect(
    clippy::large_enum_variant,
    reason = "an input is made, handled and gone; few exist at a time"
)]
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody on this node wants a blob.
    Want {
        /// Which.
        digest: Digest,
        /// Its size, if a manifest told.
        size: Option<u64>,
        /// Where it was asked for.
        source: Source,
        /// Whether a client waits for it; else it is a preheat.
        urgent: bool,
    },
    /// The lowest piece that a client streaming this blob waits for, or that no client streams it any more.
    Cursor {
        /// Which blob.
        digest: Digest,
        /// The piece its slowest client has got to.
        piece: Option<PieceIndex>,
    },
    /// The store holds these pieces: found at start, put there by other means, or the answer to [`Output::Open`].
    Opened {
        /// Which blob.
        blob: Blob,
        /// Its pieces.
        bits: Bitfield,
        /// Its media type, if known.
        media_type: Option<String>,
    },
    /// The store cannot hold the blob.
    OpenFailed {
        /// Which blob.
        digest: Digest,
        /// Why, for the clients that wait.
        failure: Failure,
    },
    /// The store has evicted the blob, or found it damaged (then `Opened` follows).
    Dropped {
        /// Which blob.
        digest: Digest,
    },
    /// A connection is up.
    Connected {
        /// To whom.
        node: NodeId,
    },
    /// A connection is gone, or could not be made.
    Disconnected {
        /// To whom.
        node: NodeId,
    },
    /// A neighbour said something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// The answer to a piece request of ours has begun.
    Started {
        /// Which.
        id: FetchId,
    },
    /// A piece request of ours has ended.
    Fetched {
        /// Which.
        id: FetchId,
        /// How.
        outcome: Outcome,
    },
    /// A neighbour asks for a piece.
    Serve {
        /// The caller's name for the request.
        id: ServeId,
        /// Who asks.
        from: NodeId,
        /// Of which blob.
        digest: Digest,
        /// Which piece.
        piece: u32,
    },
    /// A served request has ended, well or not.
    Served {
        /// Which.
        id: ServeId,
    },
    /// The registry answered [`Output::OpenOrigin`].
    OriginOpened {
        /// Which blob, now with its size.
        blob: Blob,
        /// Its media type.
        media_type: Option<String>,
        /// Whether the registry serves it to anybody.
        access: Access,
        /// Whether the registry can only be read from the start to the end.
        sequential: bool,
    },
    /// A piece that was read from the registry is proven and stored.
    Settled {
        /// Of which blob.
        digest: Digest,
        /// Which piece.
        piece: PieceIndex,
    },
    /// Reading the registry has failed for good; nothing more comes of this reading.
    ReadFailed {
        /// Which blob.
        digest: Digest,
        /// What the registry said.
        failure: Failure,
        /// Whether it is the bytes that were wrong: then what this node has signed of them is, too.
        unproven: bool,
    },
    /// The chain cannot close with the midstates that were vouched for: they are dropped, and these pieces remain.
    ChainBroken {
        /// Which blob.
        digest: Digest,
        /// What is still proven.
        bits: Bitfield,
        /// Who had vouched for what is dropped.
        vouchers: Vec<NodeId>,
    },
    /// The closed chain contradicts what this node had signed.
    Forged {
        /// Which blob.
        digest: Digest,
        /// Whose signature is on a false midstate.
        signer: NodeId,
    },
    /// An operator has expelled these nodes, and no others.
    Expelled {
        /// Which scheduler says so; none: what this node remembers from an earlier life.
        by: Option<NodeId>,
        /// Who is out.
        nodes: Vec<NodeId>,
    },
    /// A scheduler is connected.
    SchedulerUp {
        /// Which.
        scheduler: NodeId,
    },
    /// A scheduler has been connected for long enough to be responsible for its share of the blobs.
    SchedulerSettled {
        /// Which.
        scheduler: NodeId,
    },
    /// A scheduler is connected no longer.
    SchedulerDown {
        /// Which.
        scheduler: NodeId,
    },
    /// A scheduler took [`Ask::Register`].
    Registered {
        /// Which.
        scheduler: NodeId,
        /// How often it wants a report.
        report_every: std::time::Duration,
    },
    /// A scheduler answered [`Ask::Report`].
    Reported {
        /// Which.
        scheduler: NodeId,
        /// Whether it knows this node.
        known: bool,
    },
    /// A scheduler told something about a blob.
    Told {
        /// Which scheduler.
        scheduler: NodeId,
        /// Of which blob.
        digest: Digest,
        /// What.
        swarm: Swarm,
    },
    /// The answer to [`Output::FindHolders`].
    Holders {
        /// Of which blob.
        digest: Digest,
        /// Who holds or wants it.
        holders: Vec<(Neighbour, Holding)>,
    },
    /// Time has passed: comes at [`super::Node::deadline`] at the latest.
    Tick,
}

impl Input {
    /// The blob that this says something about, if it names one.
    pub(super) const fn subject(&self) -> Option<Digest> {
        match self {
            Self::Want { digest, .. }
            | Self::Cursor { digest, .. }
            | Self::OpenFailed { digest, .. }
            | Self::Dropped { digest }
            | Self::Settled { digest, .. }
            | Self::ReadFailed { digest, .. }
            | Self::ChainBroken { digest, .. }
            | Self::Forged { digest, .. }
            | Self::Told { digest, .. }
            | Self::Holders { digest, .. } => Some(*digest),
            Self::Opened { blob, .. } | Self::OriginOpened { blob, .. } => Some(blob.digest),
            Self::Message { message, .. } => match message {
                Message::Holding { blob, .. } => Some(blob.digest),
                Message::Have { digest, .. } | Message::Gone { digest } => Some(*digest),
            },
            // These name requests and nodes: what they touch shows when they are handled.
            Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::Started { .. }
            | Self::Fetched { .. }
            | Self::Serve { .. }
            | Self::Served { .. }
            | Self::SchedulerUp { .. }
            | Self::SchedulerSettled { .. }
            | Self::SchedulerDown { .. }
            | Self::Expelled { .. }
            | Self::Registered { .. }
            | Self::Reported { .. }
            | Self::Tick => None,
        }
    }
}

/// How a piece request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Proven and stored.
    Stored,
    /// The bytes are not the piece.
    WrongBytes,
    /// The midstates that came with it were vouched for by somebody who has no standing (yet).
    Unvouched,
    /// The neighbour refused.
    Refused(Refusal),
    /// The connection or the stream broke, or the time ran out.
    Lost,
    /// We could not store it.
    StoreFailed,
    /// Cancelled by us.
    Cancelled,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open the blob in the store; the answer is [`Input::Opened`] or [`Input::OpenFailed`].
    Open {
        /// Which.
        blob: Blob,
        /// Its media type, if known.
        media_type: Option<String>,
        /// Where it can be read outside the swarm, to be remembered with it.
        source: Option<Source>,
    },
    /// Connect to a node; the answer is [`Input::Connected`] or [`Input::Disconnected`].
    Connect {
        /// To whom.
        node: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// Close a connection that serves no purpose any more.
    Disconnect {
        /// To whom.
        node: NodeId,
    },
    /// Tell a neighbour something.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Ask a neighbour for a piece; the answer is [`Input::Fetched`].
    Fetch {
        /// The request's name.
        id: FetchId,
        /// Whom.
        from: NodeId,
        /// Of which blob.
        blob: Blob,
        /// Which piece.
        piece: PieceIndex,
    },
    /// Let go of a request; [`Input::Fetched`] still comes.
    Cancel {
        /// Which.
        id: FetchId,
    },
    /// Serve a neighbour's request now; the answer is [`Input::Served`].
    Serve {
        /// Which.
        id: ServeId,
    },
    /// Turn a neighbour's request down. Nothing comes back.
    Refuse {
        /// Which.
        id: ServeId,
        /// Why.
        refusal: Refusal,
    },
    /// Open the blob at the registry; the answer is [`Input::OriginOpened`] or [`Input::ReadFailed`].
    OpenOrigin {
        /// Which.
        digest: Digest,
        /// Its size, if known.
        size: Option<u64>,
        /// Where, from which boundary on, and under which epoch to sign.
        lease: Lease,
        /// The first bytes that the first [`Output::ReadOrigin`] will ask for, so that opening can bring them.
        first: std::ops::Range<u64>,
        /// Connections to read on at the same time.
        connections: usize,
        /// Bytes to ask for at once, at most.
        stripe: u64,
    },
    /// Read pieces from the registry; each gives [`Input::Settled`], in order, or [`Input::ReadFailed`] ends the reading.
    ReadOrigin {
        /// Of which blob.
        digest: Digest,
        /// The first piece.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// Stop reading the registry. Pieces already on their way may still settle.
    CloseOrigin {
        /// Of which blob.
        digest: Digest,
    },
    /// Ask a scheduler.
    Ask {
        /// Which.
        scheduler: NodeId,
        /// What.
        ask: Ask,
    },
    /// Look for holders without a scheduler, and summon a seed where nobody has any of it; the answer is
    /// [`Input::Holders`].
    FindHolders {
        /// Of which blob.
        digest: Digest,
        /// Its size, if known.
        size: Option<u64>,
        /// Where a seed could read it.
        source: Option<Source>,
        /// Whether all that the neighbours hold is here already, so that somebody must read the rest.
        stuck: bool,
    },
    /// Let others find this node as one that holds or wants the blob.
    Provide {
        /// Which.
        digest: Digest,
    },
    /// No longer be found.
    Unprovide {
        /// Which.
        digest: Digest,
    },
    /// From now on accept midstates vouched for by these readers.
    Trust {
        /// Of which blob.
        digest: Digest,
        /// By whom, besides every node whose chain has closed.
        readers: Vec<NodeId>,
        /// Under leases with higher epochs than this.
        after: u64,
    },
    /// The vouched midstates do not prove the blob: drop those, and all that rests on them; the answer is
    /// [`Input::ChainBroken`], or [`Input::Opened`] if the blob has turned out to be whole.
    Distrust {
        /// Of which blob.
        digest: Digest,
        /// Who is not blamed for having signed them.
        unblamed: Option<NodeId>,
    },
    /// The blob's size is known.
    Sized {
        /// The blob.
        blob: Blob,
        /// Its media type, if known.
        media_type: Option<String>,
    },
    /// Whether the registry serves the content at a source to anybody.
    Accessible {
        /// Which blob.
        digest: Digest,
        /// At which source; absent: the one this node asked for.
        source: Option<Source>,
        /// Who may read it.
        access: Access,
    },
    /// The whole blob is here and proven.
    Complete {
        /// Which.
        digest: Digest,
    },
    /// The blob cannot be had; whoever waits is to be told.
    Failed {
        /// Which.
        digest: Digest,
        /// Why.
        failure: Failure,
    },
    /// Refuse connections with this node.
    Ban {
        /// Whom.
        node: NodeId,
    },
    /// Refuse connections with these nodes, and with no others for that reason.
    Expel {
        /// All whom an operator has expelled.
        nodes: BTreeSet<NodeId>,
    },
}

/// What this node is to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
    /// The zone that it is in, if it has a label.
    pub zone: Option<String>,
}
