//! The control plane: what nodes and schedulers, and in need nodes among themselves, say over libp2p.
//!
//! Every message is a [`Request`] that is answered by one [`Response`]; either end of a connection may ask. A scheduler's
//! pushes ([`Request::Update`]) are requests too, so that it learns when a node no longer listens.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};
use piece::{Blob, Digest, Midstate, NodeId};

use crate::authorization::Authorization;

/// The most bytes in a control message.
pub const MAX_CONTROL: usize = 1 << 20;
/// The most bytes of a relayed upstream body (a page of tags, a referrers index).
pub const MAX_RELAYED_BODY: usize = 768 << 10;
/// The most holdings in one [`Request::Register`] or entries in one [`Request::Report`]; more go in further messages.
pub const MAX_ENTRIES: usize = 4096;
/// The most neighbours in one answer.
pub const MAX_NEIGHBOURS: usize = 32;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Knows who has what and who reads the registry.
    #[n(0)]
    Scheduler,
    /// Reads the registry and feeds the swarm.
    #[n(1)]
    Seed,
    /// Fetches, verifies, stores, serves.
    #[n(2)]
    Peer,
}

impl Role {
    /// Its name, as commands, logs and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Seed => "seed",
            Self::Peer => "peer",
        }
    }
}

/// Where a node stands; labels that an operator chose, compared for equality only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Locality {
    /// The machine.
    #[n(0)]
    pub host: Option<String>,
    /// The rack or block.
    #[n(1)]
    pub rack: Option<String>,
    /// The zone or data centre.
    #[n(2)]
    pub zone: Option<String>,
}

/// A node as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Neighbour {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// Where its data plane listens.
    #[n(1)]
    pub data: Address,
    /// What it does.
    #[n(2)]
    pub role: Role,
    /// Where it stands.
    #[n(3)]
    pub locality: Locality,
}

/// An IP address and port as CBOR carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub SocketAddr);

impl<C> Encode<C> for Address {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?;
        match self.0.ip() {
            IpAddr::V4(ip) => e.bytes(&ip.octets())?,
            IpAddr::V6(ip) => e.bytes(&ip.octets())?,
        };
        e.u16(self.0.port())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Address {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wrong = || minicbor::decode::Error::message("an address is 4 or 16 bytes and a port");
        if d.array()? != Some(2) {
            return Err(wrong());
        }
        let ip = d.bytes()?;
        let ip: IpAddr = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(v4), _) => v4.into(),
            (_, Ok(v6)) => v6.into(),
            _ => return Err(wrong()),
        };
        Ok(Self(SocketAddr::new(ip, d.u16()?)))
    }
}

/// Which endpoint of the registry serves a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// `/v2/REPOSITORY/blobs/DIGEST`.
    #[n(0)]
    Blob,
    /// `/v2/REPOSITORY/manifests/DIGEST`.
    #[n(1)]
    Manifest,
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Repository {
    /// `HOST[:PORT]`, as the client's reference names it.
    #[n(0)]
    pub registry: String,
    /// The name below it, such as `org/model`.
    #[n(1)]
    pub name: String,
}

/// Where a blob can be read outside the swarm.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Source {
    /// The repository.
    #[n(0)]
    pub repository: Repository,
    /// The endpoint.
    #[n(1)]
    pub kind: Kind,
}

/// Whether the registry serves a content without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Access {
    /// Anybody may read it: the registry answered an anonymous request for it.
    #[n(0)]
    Public,
    /// The registry wanted credentials, and those that operators gave their nodes were enough.
    #[n(1)]
    Private,
    /// The registry wanted credentials, and accepted a client's. Whether the nodes' would be enough is not known.
    #[n(2)]
    Personal,
}

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

/// Why a blob cannot be had, in the registry's own terms where it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// The HTTP status that a client should see: the registry's own, or 502/504 when it did not answer.
    #[n(0)]
    pub status: u16,
    /// What was attempted, on what, and what came back; never a secret.
    #[n(1)]
    pub message: String,
    /// Seconds after which the registry wants to be asked again.
    #[n(2)]
    pub retry_after: Option<u32>,
    /// The registry's challenge, to be relayed as `WWW-Authenticate`.
    #[n(3)]
    pub challenge: Option<String>,
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

/// Something only a registry can answer, asked of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Upstream {
    /// Of which repository.
    #[n(0)]
    pub repository: Repository,
    /// What.
    #[n(1)]
    pub query: Query,
}

/// What is asked of a registry besides blobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Query {
    /// Which manifest a tag names now. The manifest itself goes into the seed's store.
    #[n(0)]
    Tag {
        /// The tag.
        #[n(0)]
        tag: String,
    },
    /// Whether the registry serves a content, and to anybody.
    #[n(1)]
    Probe {
        /// Which content.
        #[n(0)]
        digest: Digest,
        /// At which endpoint.
        #[n(1)]
        kind: Kind,
    },
    /// `tags/list`, with the client's query string.
    #[n(2)]
    Tags {
        /// Without the `?`; may be empty.
        #[n(0)]
        query: String,
    },
    /// `referrers/DIGEST`, with the client's query string.
    #[n(3)]
    Referrers {
        /// Of which manifest.
        #[n(0)]
        digest: Digest,
        /// Without the `?`; may be empty.
        #[n(1)]
        query: String,
    },
    /// `/v2/` itself, whatever the repository's name; its answer is an empty [`UpstreamAnswer::Document`] or the challenge.
    #[n(4)]
    Ping,
}

/// What a registry answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum UpstreamAnswer {
    /// To [`Query::Tag`] and [`Query::Probe`]: the content exists.
    #[n(0)]
    Content {
        /// Digest and size. A registry that names no size in a probe makes it 0.
        #[n(0)]
        blob: Blob,
        /// Its media type.
        #[n(1)]
        media_type: String,
        /// Whether the registry serves it to anybody.
        #[n(2)]
        access: Access,
    },
    /// To [`Query::Tags`], [`Query::Referrers`] and [`Query::Ping`]: the registry's answer.
    #[n(1)]
    Document {
        /// The body, at most [`MAX_RELAYED_BODY`] bytes.
        #[cbor(n(0), with = "minicbor::bytes")]
        body: Vec<u8>,
        /// Its media type.
        #[n(1)]
        media_type: String,
        /// The registry's `Link` header.
        #[n(2)]
        link: Option<String>,
        /// The registry's `OCI-Filters-Applied` header.
        #[n(3)]
        filters: Option<String>,
        /// Whether the registry serves it to anybody.
        #[n(4)]
        access: Access,
    },
    /// The registry refused, or could not be asked.
    #[n(2)]
    Failed {
        /// How.
        #[n(0)]
        failure: Failure,
    },
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
    /// To [`Request::Update`], [`Request::Preheat`] and [`Request::Lend`].
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
