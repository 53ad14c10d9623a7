//! The HTTP servers.

use std::time::Duration;

use crate::config::section::section;
use crate::config::{size, time};

section! {
    /// What clients of the HTTP servers (mirror, admin) may take.
    Http in httpd::Limits;
    /// Connections at a time, of each server; each costs a file descriptor and about 16 KiB.
    connections => connections: usize, "512";
    /// Time from the start of a connection, or the end of the last response, to the end of the next request's head; so also
    /// how long an idle connection is kept.
    #[serde(with = "time")]
    head => head: Duration, "30s";
    /// Bytes of a request's head, at least 8KiB. Tokens of some registries have that and more.
    #[serde(with = "size")]
    head_bytes => head_bytes: usize, "64KiB";
    /// Headers of a request.
    headers => headers: usize, "50";
    /// How long a client may take no byte of a response before it is cut. Container runtimes wait up to 5 min.
    #[serde(with = "time")]
    stall => stall: Duration, "1m";
    /// How long requests under way may take to finish after a SIGTERM. Kubernetes kills after 30 s.
    #[serde(with = "time")]
    drain => drain: Duration, "5s";
}
