//! The role that reads the registry: a peer that others prefer as reader, and that serves no clients.
//!
//! [`peer::Peer`] runs it; all there is to say here is how its configuration differs, so that no other crate needs to
//! know. Should this file ever grow, "a seed is a peer" has become false.

use peer::Config;
use wire::control::Role;

/// Connections of a seed at once. It is a neighbour of the first nodes of every swarm, of many at a time.
const CONNECTIONS: usize = 256;
/// Requests that wait for an upload slot. Whoever joins a swarm before its first pieces went round asks a seed.
const UPLOAD_QUEUE: usize = 1024;

/// A peer's configuration with a seed's role and defaults.
pub fn config(mut peer: Config) -> Config {
    peer.role = Role::Seed;
    peer.node.connections = CONNECTIONS;
    peer.node.upload_queue = UPLOAD_QUEUE;
    // Connections that others open count here, but not among those that the node seeks.
    peer.transport.max_connections = 2 * CONNECTIONS;
    peer
}
