//! What the end-to-end tests share: a cluster of separate processes, Debian's `docker-registry`, models that modctl built,
//! and real clients.
//!
//! A test begins with a [`Lab`], which owns a directory and a turn: only one lab exists on the machine at a time, because
//! all of them share its cores and disk, and its end removes everything. A failed test prints the end of every log in it.
//! Nothing here sleeps for luck: [`wait`] polls for conditions, with a deadline.

pub mod access_log;
mod artifact;
pub mod clients;
pub mod cluster;
pub mod damage;
pub mod http;
pub mod lab;
pub mod memory;
pub mod model;
pub mod network;
pub mod node;
pub mod process;
pub mod proxy;
pub mod pulling;
pub mod registry;
pub mod secrets;
pub mod throttle;
pub mod tokens;
pub mod tree;
pub mod wait;

pub use cluster::{Cluster, Options};
pub use lab::Lab;
pub use model::Model;
pub use network::{Host, Link, Network, Traffic};
pub use node::{Node, Role};
pub use process::Process;
pub use proxy::Proxy;
pub use pulling::Pulling;
pub use registry::Registry;
pub use throttle::Throttle;

/// Base64, as `Authorization` has it.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// Whether the big counts are asked for (`tests/run --long`).
pub fn long() -> bool {
    std::env::var("PACKSWARM_TEST_LONG").is_ok_and(|value| value == "1")
}
