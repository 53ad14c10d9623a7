//! What happens on the data plane, as its consumer sees it.

use std::net::SocketAddr;

use piece::NodeId;
use wire::exchange::{Message, Remote};

use crate::FetchRequest;

/// One thing that happened. For one node the order is: `Connected`, then messages and fetches, then `Disconnected`, and so
/// on from the start.
#[derive(Debug)]
pub enum Event {
    /// A member of the cluster is now a neighbour.
    Connected {
        /// Who it is.
        remote: Remote,
        /// Where its packets come from.
        addr: SocketAddr,
        /// Whether this end opened the connection.
        dialled: bool,
    },
    /// A neighbour is one no longer. Messages that were sent to it last may not have arrived.
    Disconnected {
        /// Which.
        node: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// A neighbour said something.
    Message {
        /// Which.
        node: NodeId,
        /// What.
        message: Message,
    },
    /// A neighbour asks for a piece.
    Fetch(FetchRequest),
    /// Somebody was turned away. For one address at most every ten seconds; dropped when the consumer is behind.
    Refused {
        /// Where it called from.
        addr: SocketAddr,
        /// Why, in words for an operator.
        why: String,
    },
}
