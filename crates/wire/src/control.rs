//! The control plane: what nodes and schedulers, and in need nodes among themselves, say over libp2p.
//!
//! Every message is a [`Request`] that is answered by one [`Response`]; either end of a connection may ask. A scheduler's
//! pushes ([`Request::Update`]) are requests too, so that it learns when a node no longer listens.

mod node;
mod swarm;
mod upstream;

use minicbor::{Decode, Encode};
use piece::{Blob, Digest, NodeId};

use crate::authorization::Authorization;

pub use node::{Address, Locality, Neighbour, Role};
pub use swarm::{Accusation, Holding, Lease, Offence, Reading, Resume, Retraction, Swarm};
pub use upstream::{Access, Failure, Kind, Query, Repository, Source, Upstream, UpstreamAnswer};

/// The most bytes in a control message.
pub const MAX_CONTROL: usize = 1 << 20;
/// The most bytes of a relayed upstream body (a page of tags, a referrers index).
pub const MAX_RELAYED_BODY: usize = 768 << 10;
/// The most holdings in one [`Request::Register`] or entries in one [`Request::Report`]; more go in further messages.
pub const MAX_ENTRIES: usize = 4096;
/// The most nodes that can be expelled at once: more are a stolen cluster key, which is to be replaced.
pub const MAX_EXPELLED: usize = 1024;
/// The most neighbours in one answer.
pub const MAX_NEIGHBOURS: usize = 32;

/// Everything that is asked on the control plane.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is decoded, handled and gone; few exist at a time"
)]
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Node to scheduler: I am here, and hold these. Further pages follow while `more` is set.
    #[n(0)]
    Register {
        /// [`crate::PROTOCOL`] of the sender.
        #[n(0)]
        protocol: u16,
        /// What it does.
        #[n(1)]
        role: Role,
        /// Where its data plane can be reached. An unspecified IP means: at the address the scheduler sees.
        #[n(2)]
        data: Address,
        /// Where it stands.
        #[n(3)]
        locality: Locality,
        /// What it holds, at most [`MAX_ENTRIES`].
        #[n(4)]
        holdings: Vec<Holding>,
        /// Whether another page follows.
        #[n(5)]
        more: bool,
    },
    /// Node to scheduler: I want this blob.
    #[n(1)]
    Join {
        /// Which.
        #[n(0)]
        digest: Digest,
        /// Its size, if a manifest told.
        #[n(1)]
        size: Option<u64>,
        /// Where a client asked for it.
        #[n(2)]
        source: Source,
        /// Whether a client waits for it (else it is a preheat).
        #[n(3)]
        urgent: bool,
    },
    /// Node to scheduler: what changed since the last report; also the heartbeat.
    #[n(2)]
    Report {
        /// Changed holdings, at most [`MAX_ENTRIES`].
        #[n(0)]
        holdings: Vec<Holding>,
        /// Blobs no longer held or wanted.
        #[n(1)]
        gone: Vec<Digest>,
        /// Blobs whose lease the sender gives back, with what the registry said.
        #[n(2)]
        failed: Vec<(Digest, u64, Failure)>,
        /// Complaints.
        #[n(3)]
        accusations: Vec<Accusation>,
        /// Blobs for which the sender wants more neighbours.
        #[n(4)]
        lonely: Vec<Digest>,
    },
    /// Node to scheduler, scheduler to seed, or node to seed when no scheduler answers.
    #[n(3)]
    Upstream {
        /// What is asked.
        #[n(0)]
        upstream: Upstream,
    },
    /// Scheduler to node.
    #[n(4)]
    Update {
        /// About which blob.
        #[n(0)]
        digest: Digest,
        /// What is new.
        #[n(1)]
        swarm: Swarm,
    },
    /// Node to node, when no scheduler answers: do you hold or want this blob, and where is your data plane?
    #[n(5)]
    Lookup {
        /// Which.
        #[n(0)]
        digest: Digest,
    },
    /// Command to scheduler, scheduler to node: fetch these blobs ahead of any client.
    #[n(6)]
    Preheat {
        /// The blobs, at most [`MAX_ENTRIES`].
        #[n(0)]
        blobs: Vec<(Blob, Source)>,
        /// Which nodes a scheduler is to pass them to: [`Role::Peer`], all of them; [`Role::Seed`] or absent, for each blob the
        /// seed that would read it. Absent towards a node.
        #[n(1)]
        to: Option<Role>,
    },
    /// Peer to seed, never through a scheduler: ask the registry with exactly this credential, or with none at all, and tell
    /// me what it says.
    #[n(7)]
    Authorised {
        /// What is asked.
        #[n(0)]
        upstream: Upstream,
        /// A client's credential; absent: the registry's words to a client without any are wanted.
        #[n(1)]
        authorization: Option<Authorization>,
    },
    /// Peer to the reader of a blob, or to who will be: a client of mine who wants this blob lends you its credential, for
    /// this content only.
    #[n(8)]
    Lend {
        /// Which blob.
        #[n(0)]
        digest: Digest,
        /// Where it is to be read.
        #[n(1)]
        source: Source,
        /// The credential.
        #[n(2)]
        authorization: Authorization,
    },
    /// Scheduler to node: an operator has expelled these nodes, and no others. Have nothing to do with them.
    #[n(9)]
    Expelled {
        /// All of them, at most [`MAX_EXPELLED`]; the node itself is told of itself alone.
        #[n(0)]
        nodes: Vec<NodeId>,
    },
}

/// Everything that is answered on the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// To [`Request::Register`]: welcome; report at least this often.
    #[n(0)]
    Registered {
        /// Milliseconds between reports.
        #[n(0)]
        report_every: u32,
    },
    /// To [`Request::Join`].
    #[n(1)]
    Joined {
        /// What is known by now; the rest comes as updates.
        #[n(0)]
        swarm: Swarm,
    },
    /// To [`Request::Report`], and to the [`Request::Join`] of a node that is not known.
    #[n(2)]
    Reported {
        /// False when the scheduler does not know the sender (it restarted): register again.
        #[n(0)]
        known: bool,
        /// New neighbours for the lonely.
        #[n(1)]
        swarms: Vec<(Digest, Swarm)>,
    },
    /// To [`Request::Upstream`] and [`Request::Authorised`].
    #[n(3)]
    Upstream {
        /// What the registry said.
        #[n(0)]
        answer: UpstreamAnswer,
    },
    /// To [`Request::Lookup`].
    #[n(4)]
    Found {
        /// The data plane of the node asked. An unspecified IP means: at the address the asker dialled.
        #[n(0)]
        data: Address,
        /// What it does.
        #[n(1)]
        role: Role,
        /// What it holds of the blob, if anything.
        #[n(2)]
        holding: Option<Holding>,
    },
    /// To [`Request::Update`], [`Request::Preheat`], [`Request::Lend`] and [`Request::Expelled`].
    #[n(5)]
    Taken,
    /// The request cannot be served by this node.
    #[n(6)]
    Refused {
        /// Why, for an operator.
        #[n(0)]
        reason: String,
    },
}
