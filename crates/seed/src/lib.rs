//! The role that reads the registry: a peer with an origin.
