//! The options above all tables: where a process keeps its files and where it listens.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::section::section;

section! {
    /// Where the process keeps its files, and where it listens.
    Process;
    /// The directory of everything that the process keeps: its node key, and a node's blobs. One process at a time uses it.
    data_dir: PathBuf = "/var/lib/packswarm".into(), "/data/packswarm";
    /// The file with the cluster key, one or two lines of 64 hex digits (`packswarm keygen`), readable by its owner and at most its group. Whoever has it is
    /// a member of the cluster.
    cluster_key: PathBuf = "/etc/packswarm/cluster.key".into(), "/run/secrets/packswarm";
    /// `IP:PORT` of the control plane (TCP) and the data plane (UDP). `[::]` takes IPv4 too, where the system has IPv6 at
    /// all; port 0 picks a free one.
    listen: SocketAddr = (Ipv6Addr::UNSPECIFIED, 7654).into(), "10.0.0.5:7000";
    /// `IP:PORT` at which others reach this node, if that is not where they see it. A wrong one makes it unreachable.
    /// Unset: what the other end sees.
    advertise: Option<SocketAddr> = None, "192.0.2.5:7654";
    /// `IP:PORT` of health, metrics and the admin API, which has no authentication: whoever reaches it may remove blobs.
    admin: SocketAddr = ([127, 0, 0, 1], 7656).into(), "127.0.0.1:9000";
    /// A file that is put in place once every listener is bound: flat JSON `{role, peer_id, control, data, mirror, admin}`.
    /// Unset: none.
    ready_file: Option<PathBuf> = None, "/run/packswarm/ready.json";
    /// Threads that move bytes and run the planes, 0 for half of the machine's cores. A second one on two cores made
    /// every byte dearer; too few cap the throughput at what their cores do.
    workers: usize = 0, "3";
}

section! {
    /// Whom a node joins.
    Joining;
    /// `HOST:PORT` of each scheduler, the same on every node; names are resolved at every attempt. Blobs are divided over
    /// those that are up. None at all: nodes find each other by `bootstrap` and Kademlia only.
    scheduler: Vec<String> = Vec::new(), "scheduler-0.example:7654,scheduler-1.example:7654";
    /// `HOST:PORT` of other nodes, through which to find the rest when no scheduler answers.
    bootstrap: Vec<String> = Vec::new(), "node-1.example:7654";
}
