//! The mirror over real sockets, in front of a node that does what each test tells it.
#![allow(clippy::unwrap_used, reason = "the line of a failed unwrap says all in a test")]

mod addressing;
mod bodies;
mod credentials;
mod failures;
mod node;
mod pulls;
