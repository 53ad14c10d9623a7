//! What can go wrong, by what to do about it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// An address to dial is not one.
    #[error("`{name}` is not an address to connect to: write HOST:PORT")]
    Address {
        /// As configured.
        name: String,
    },
    /// Too many addresses to keep connected to.
    #[error("{count} schedulers and bootstrap nodes are configured; at most {limit} are kept connected")]
    TooManyLinks {
        /// Configured.
        count: usize,
        /// Allowed.
        limit: usize,
    },
    /// A limit or a time is zero.
    #[error("{option} must not be 0")]
    Zero {
        /// The field of [`Config`](crate::Config).
        option: &'static str,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on {address}/tcp for the control plane: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The node key cannot be used.
    #[error("the node key cannot be used to secure connections: {reason}")]
    Key {
        /// Why.
        reason: String,
    },
}

/// An [`ask`](crate::Control::ask) was not answered as hoped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no connection to the node, or it broke before the answer. The request may have been served.
    #[error("cannot reach {to}: {reason}")]
    Unreachable {
        /// Who was asked.
        to: String,
        /// Why.
        reason: String,
    },
    /// The request may have been served.
    #[error("{to} did not answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// Who was asked.
        to: String,
        /// How long.
        after: Duration,
    },
    /// The node answered that it does not serve this request.
    #[error("refused: {0}")]
    Refused(String),
    /// Too many requests are under way here or at the node asked: ask again later.
    #[error("too many requests are under way")]
    Overloaded,
    /// The request cannot be sent in one message.
    #[error("a request of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Encoded length.
        length: usize,
        /// [`MAX_CONTROL`](wire::control::MAX_CONTROL).
        limit: usize,
    },
    /// The answer is not a message.
    #[error("the answer of {to} cannot be understood: {reason}")]
    Unreadable {
        /// Who was asked.
        to: String,
        /// Why.
        reason: String,
    },
    /// This node's control plane was closed.
    #[error("this node is shutting down")]
    Closed,
}
