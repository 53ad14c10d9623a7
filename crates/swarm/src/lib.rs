//! Every decision of the swarm, as state machines without I/O.
//!
//! [`node::Node`] decides for one node: whom to connect to, which piece to ask of whom, when to give up on somebody, what
//! of the registry to read. [`scheduler::Scheduler`] decides for a cluster: who is told of whom, and who may read a blob
//! from the registry. Both take inputs and the time, and append outputs; the runtime and the simulator drive the same code.
//!
//! Time is a [`std::time::Duration`] since any fixed moment; randomness comes from a ChaCha8 generator seeded by the caller;
//! nothing iterates in hash order. The same inputs give the same outputs, bit for bit.

pub mod node;
mod rate;
mod rendezvous;
pub mod scheduler;

pub use rate::RateLimit;
pub use rendezvous::{rank, ranked};
