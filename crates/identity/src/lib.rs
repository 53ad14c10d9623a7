//! Who a node is, and which cluster it belongs to.
//!
//! A node has one Ed25519 key ([`NodeKey`]); its public half is the [`piece::NodeId`] of our messages and the `PeerId` of
//! libp2p at once ([`peer_id`], [`node_id`]). A cluster shares one secret ([`ClusterKeys`]), never sent anywhere: the
//! control plane's pre-shared key and the data plane's membership proof are derived from it. [`tls`] turns a node key
//! into the certificate and the rustls configurations of the data plane.
//!
//! [`ExpelledFile`] is where a process remembers which nodes its operator has put out of the cluster.
//!
//! Secrets are wiped when dropped and appear in no `Debug`, error or log line.

mod cluster;
mod expelled_file;
mod key_file;
mod node_key;
mod peer_id;
pub mod tls;

pub use cluster::{ClusterKeys, Direction, ParseClusterKeysError};
pub use expelled_file::{ExpelledFile, ExpelledFileError};
pub use key_file::{KeyError, Readers};
pub use node_key::NodeKey;
pub use peer_id::{node_id, parse_node, peer_id};
