//! Why something did not work, and whose fault it is.

use std::net::SocketAddr;
use std::time::Duration;

use identity::peer_id;
use piece::NodeId;
use quinn::{ConnectionError, TransportErrorCode, VarInt};
use wire::exchange::Refusal;

use crate::ConfigError;

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A setting is unusable.
    #[error("the data plane's settings do not fit: {0}")]
    Config(#[from] ConfigError),
    /// The socket is unusable.
    #[error("cannot use the data plane's UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// This node's certificate or TLS cannot be set up.
    #[error("cannot set up the data plane's TLS: {0}")]
    Tls(#[from] identity::tls::TlsError),
}

/// Why there is no connection to a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// It is this node.
    #[error("node {} is this node itself", peer_id(*.node))]
    Myself {
        /// This node.
        node: NodeId,
    },
    /// It is banned here.
    #[error("node {} is banned here", peer_id(*.node))]
    Banned {
        /// The banned node.
        node: NodeId,
    },
    /// All places here are taken.
    #[error("all {limit} connections of this node are taken")]
    Full {
        /// `max_connections`.
        limit: usize,
    },
    /// Too many nodes are being dialled already.
    #[error("{limit} nodes are being dialled already")]
    TooManyDials {
        /// `max_handshakes`.
        limit: usize,
    },
    /// This transport is closing.
    #[error("the data plane is shutting down")]
    Closing,
    /// The address cannot be dialled from this socket.
    #[error("cannot dial {addr}: {reason}")]
    Address {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// Nobody answered, or not to the end.
    #[error("node {} at {addr} did not answer within {after:?}: check that UDP passes both ways", peer_id(*.node))]
    Timeout {
        /// Who was dialled.
        node: NodeId,
        /// Where.
        addr: SocketAddr,
        /// `handshake_timeout`.
        after: Duration,
    },
    /// Somebody else answered.
    #[error("it is not node {} that answers at {addr}", peer_id(*.node))]
    WrongNode {
        /// Who was dialled.
        node: NodeId,
        /// Where.
        addr: SocketAddr,
    },
    /// The two clusters are not one.
    #[error("{}", wrong_key(*.node, *.addr))]
    WrongKey {
        /// Who was dialled.
        node: NodeId,
        /// Where.
        addr: SocketAddr,
    },
    /// It answered, and said no.
    #[error("node {} at {addr} refused the connection: {reason}", peer_id(*.node))]
    Refused {
        /// Who was dialled.
        node: NodeId,
        /// Where.
        addr: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// The connection broke, or what it said makes no sense.
    #[error("the handshake with node {} at {addr} failed: {reason}", peer_id(*.node))]
    Handshake {
        /// Who was dialled.
        node: NodeId,
        /// Where.
        addr: SocketAddr,
        /// What happened.
        reason: String,
    },
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection to that node.
    #[error("not connected")]
    NotConnected,
    /// Too much is waiting for that node already: it does not read, or the link is slow.
    #[error("too many messages are waiting for this neighbour")]
    Full,
    /// No neighbour would take it.
    #[error("the message has {length} bytes, more than the {limit} that a frame may have")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// The most a frame may have.
        limit: usize,
    },
}

/// Why a piece did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There is no connection to that node.
    #[error("not connected")]
    NotConnected,
    /// The neighbour does not serve it.
    #[error("the neighbour refused: {0:?}")]
    Refused(Refusal),
    /// The connection or the stream broke off.
    #[error("the transfer broke off: {0}")]
    Lost(String),
    /// The neighbour broke the protocol.
    #[error("the neighbour broke the protocol: {0}")]
    Malformed(String),
}

/// Why a piece was not served to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The neighbour no longer wants it.
    #[error("the neighbour cancelled")]
    Cancelled,
    /// The connection broke.
    #[error("the connection broke off: {0}")]
    Lost(String),
    /// The runs are more than an answer may hold.
    #[error("{runs} runs in {length} bytes are more than an answer may hold")]
    TooLong {
        /// How many runs.
        runs: usize,
        /// Bytes of the answer.
        length: usize,
    },
}

/// Why a connection was closed, as its other end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// Shutting down, or simply no longer wanted.
    Done = 0,
    /// No valid membership proof.
    WrongKey = 1,
    /// The other of two connections between the same nodes is kept.
    Duplicate = 2,
    /// All connections are taken.
    Full = 3,
    /// The node is banned.
    Banned = 4,
    /// What was said makes no sense.
    Protocol = 5,
}

impl CloseCode {
    pub(crate) fn var_int(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn is(self, error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == self.var_int())
    }
}

/// What an operator must know when two nodes have no key in common.
pub(crate) fn wrong_key(node: NodeId, addr: SocketAddr) -> String {
    let node = peer_id(node);
    format!(
        "node {node} at {addr} does not have this cluster's key: check that --cluster-key names the same file on both"
    )
}

/// Whether the other end closed this connection because it keeps another one between the same nodes.
pub(crate) fn is_duplicate(error: &ConnectionError) -> bool {
    CloseCode::Duplicate.is(error)
}

/// What became of dialling `node` at `addr`.
pub(crate) fn dial_error(node: NodeId, addr: SocketAddr, error: &ConnectionError) -> ConnectError {
    let wrong_node = TransportErrorCode::crypto(identity::tls::WRONG_NODE_ALERT);
    if CloseCode::WrongKey.is(error) {
        return ConnectError::WrongKey { node, addr };
    }
    match error {
        ConnectionError::TransportError(local) if local.code == wrong_node => ConnectError::WrongNode { node, addr },
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            ConnectError::Refused {
                node,
                addr,
                reason: "it has too many handshakes in progress".to_owned(),
            }
        }
        ConnectionError::ApplicationClosed(close) => ConnectError::Refused {
            node,
            addr,
            reason: printable(&close.reason),
        },
        ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => ConnectError::Handshake {
            node,
            addr,
            reason: words(error),
        },
    }
}

/// Why a connection ended, in words.
pub(crate) fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => "closed by the other end".to_owned(),
        ConnectionError::ApplicationClosed(close) => {
            format!("closed by the other end: {}", printable(&close.reason))
        }
        ConnectionError::TimedOut => "nothing heard any more".to_owned(),
        ConnectionError::Reset => "the other end does not know this connection any more".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => error.to_string(),
    }
}

/// What a stranger wrote, fit for a log line.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().to_string()
}
