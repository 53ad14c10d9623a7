//! Every message that packswarm nodes exchange, and the one bounded codec that reads and writes them.
//!
//! [`exchange`] travels over QUIC between neighbours, [`control`] over libp2p between nodes and schedulers. Both are CBOR
//! (RFC 8949) with numbered fields: a reader skips fields it does not know and takes absent optional ones as absent, so
//! releases mix within one [`PROTOCOL`] version. A message of an unknown kind is an error that costs that message only.
//!
//! This crate does no I/O, reads no clock and holds no global state.

mod authorization;
mod codec;
pub mod control;
pub mod exchange;

pub use authorization::{Authorization, InvalidAuthorization, MAX_AUTHORIZATION};
pub use codec::{DecodeError, FrameBuffer, decode, encode, encode_frame};

/// The version both ends of a connection must share. Raised only when messages change in a way that old nodes would
/// misread; new optional fields and new message kinds do not raise it.
pub const PROTOCOL: u16 = 1;
