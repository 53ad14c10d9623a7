//! The data plane between real sockets on loopback.

// `allow-unwrap-in-tests` does not reach the functions that tests share; and a test panics on whatever it did not expect.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod admission;
mod bounds;
mod connections;
mod flood;
mod hostile;
mod padding;
mod pieces;
mod raw;
mod support;
