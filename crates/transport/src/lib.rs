//! The data plane: QUIC connections between the members of one cluster, and pieces over them.
//!
//! One [`Transport`] is one UDP socket. It keeps at most one connection per neighbour, whoever dialled; both ends prove
//! their node id by TLS and their membership by [`wire::exchange::Hello`] before anything else is read. What happens comes
//! out as [`Event`]s on one bounded channel: while nobody reads it, the network waits. What the consumer wants goes in by
//! methods: [`Transport::connect`], [`Transport::send`] for messages, [`Transport::fetch`] for pieces.
//!
//! Everything that a neighbour or a stranger can make this node hold is bounded by [`Config`]. `wire::exchange` says what
//! the bytes mean.

mod admission;
mod config;
mod connection;
mod datagrams;
mod endpoint;
mod error;
mod event;
mod fetch;
mod frame;
mod held;
mod link;
mod listen;
mod refusal_log;
mod serve;
mod socket;
mod table;
mod transport;

pub use config::{Config, ConfigError};
pub use error::{ConnectError, FetchError, SendError, ServeError, TransportError};
pub use event::Event;
pub use fetch::{Chunks, IncomingPiece, Progress};
pub use serve::FetchRequest;
pub use socket::SettingReport;
pub use transport::{PathInfo, Status, Transport};
