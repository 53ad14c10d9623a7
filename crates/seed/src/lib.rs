//! The role that reads the registry: a peer that others prefer as reader, and that serves no clients.
//!
//! [`peer::Peer`] runs it; all there is to say here is how its configuration differs, so that no other crate needs to
//! know. Should this file ever grow, "a seed is a peer" has become false.

use peer::Config;
use wire::control::Role;

/// A peer's configuration with a seed's role and defaults.
pub fn config(mut peer: Config) -> Config {
    peer.role = Role::Seed;
    peer.node = swarm::node::Config::seed();
    // Connections that others open count here, but not among those that the node seeks.
    peer.transport.max_connections = 2 * peer.node.connections;
    peer
}
