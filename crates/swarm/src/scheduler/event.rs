//! What a scheduler is told, and what it asks to be done.

use std::net::IpAddr;
use std::sync::Arc;

use piece::{Blob, Digest, NodeId};
use wire::control::{Request, Response, Source, Swarm, Upstream, UpstreamAnswer};

/// Names one request until its [`Output::Reply`]; chosen by whoever drives the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names one question to a seed until its [`Input::UpstreamAnswered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and none is kept")]
pub enum Input {
    /// A node asks. It gets exactly one [`Output::Reply`], perhaps later.
    Request {
        /// Who.
        from: NodeId,
        /// The address that its connection comes from.
        observed: IpAddr,
        /// The caller's name for the request.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// There is a connection to a node.
    Connected(NodeId),
    /// There is no connection to a node any more.
    Disconnected(NodeId),
    /// The answer to [`Output::AskSeed`].
    UpstreamAnswered {
        /// To which question.
        id: AskId,
        /// What the registry said; absent when the seed could not be asked, or refused.
        answer: Option<UpstreamAnswer>,
    },
    /// Time has passed: comes at [`super::Scheduler::deadline`] at the latest.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Answer a request.
    Reply {
        /// Which.
        id: RequestId,
        /// How.
        response: Response,
    },
    /// Tell a node something about a blob. If it cannot be told, [`Input::Disconnected`] follows sooner or later.
    Update {
        /// Whom.
        to: NodeId,
        /// About which blob.
        digest: Digest,
        /// What.
        swarm: Swarm,
    },
    /// Ask a node what only a registry can tell; the answer is [`Input::UpstreamAnswered`].
    AskSeed {
        /// The question's name.
        id: AskId,
        /// Whom.
        to: NodeId,
        /// What.
        upstream: Upstream,
    },
    /// Have a node fetch blobs ahead of any client.
    Preheat {
        /// Whom.
        to: NodeId,
        /// Which, and where they can be read.
        blobs: Arc<[(Blob, Source)]>,
    },
    /// Tell a node who is expelled; an expelled one, that it is.
    Expelled {
        /// Whom.
        to: NodeId,
        /// All who are out, as far as that is for this node to know.
        nodes: Arc<[NodeId]>,
    },
}
