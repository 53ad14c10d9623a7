//! The data plane between real sockets on loopback.

mod admission;
mod bounds;
mod connections;
mod hostile;
mod pieces;
mod raw;
mod support;
