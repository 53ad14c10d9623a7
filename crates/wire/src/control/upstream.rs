//! What is said of registries: what they hold, who may read it, and what they answer.

use minicbor::{Decode, Encode};
use piece::{Blob, Digest};

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
        /// The body, at most [`MAX_RELAYED_BODY`](super::MAX_RELAYED_BODY) bytes.
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
