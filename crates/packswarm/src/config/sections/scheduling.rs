//! What a scheduler decides, and how much it remembers.

use std::time::Duration;

use swarm::scheduler::{Config, Limits};

use crate::config::section::section;
use crate::config::time;

section! {
    /// How the scheduler leads the swarm.
    Scheduling in Config;
    /// Time between two reports of a node; more with more nodes than `reports_per_second` allows.
    #[serde(with = "time")]
    report_every => report_every: Duration, "2s";
    /// Reports that all nodes together should send per second at most.
    reports_per_second => reports_per_second: u32, "1000";
    /// Neighbours named to a node that joins a swarm. Below 10, the swarm gets long; above 20, messages pile up.
    neighbours => neighbours: usize, "12";
    /// Neighbours of a node per swarm, counting those that name it.
    most_neighbours => most_neighbours: usize, "30";
    /// Nodes of each zone that are named nodes of other zones, per swarm: each fetches its share from there.
    importers => importers: usize, "3";
    /// Waiting nodes that a seed is named to at the same time while there are other ways to the blob. More makes seeds
    /// upload more of what peers could.
    seed_fanout => seed_fanout: usize, "4";
    /// After how long without a word its reader loses a blob. Shorter risks reading a tail of the registry twice.
    #[serde(with = "time")]
    lease_ttl => lease_ttl: Duration, "20s";
    /// The same before the registry has answered the reader for the first time.
    #[serde(with = "time")]
    open_timeout => open_timeout: Duration, "2m";
    /// How long a scheduler that has just started lets the nodes tell what they hold, before it lets anybody read the
    /// registry.
    #[serde(with = "time")]
    recovery => recovery: Duration, "5s";
    /// How long a registry's failure is repeated to those who ask anew.
    #[serde(with = "time")]
    failure_ttl => failure_ttl: Duration, "10s";
    /// How long a tag's resolution is repeated: so long a moved tag may go unnoticed.
    #[serde(with = "time")]
    tag_ttl => tag_ttl: Duration, "30s";
    /// How long is remembered who may read a content.
    #[serde(with = "time")]
    access_ttl => access_ttl: Duration, "1m";
    /// How long a node that two others complained of is kept from a swarm.
    #[serde(with = "time")]
    ban => ban: Duration, "1h";
    /// How long a seed may take to answer what only a registry can tell. Keep it below the nodes'
    /// `control.request_timeout`.
    #[serde(with = "time")]
    upstream_timeout => upstream_timeout: Duration, "8s";
    /// After how long without a piece a waiting node is named more neighbours.
    #[serde(with = "time")]
    stall => stall: Duration, "10s";
    /// After how long without any progress in a swarm its holders count as out of reach, and another node reads the
    /// registry. Shorter risks reading it twice.
    #[serde(with = "time")]
    stuck => stuck: Duration, "2m";
}

section! {
    /// How much the scheduler remembers at most. Beyond, it refuses in words, or forgets what is oldest.
    Memory in Limits;
    /// Nodes; about 1 KiB each.
    nodes => nodes: usize, "1000";
    /// Blobs that are held or wanted; about 1 KiB each.
    swarms => swarms: usize, "10000";
    /// Pairs of a node and a blob that it holds or wants; about 64 bytes each.
    memberships => memberships: usize, "100000";
    /// Questions under way to seeds.
    upstream => upstream: usize, "100";
    /// Nodes waiting for the answers to them.
    upstream_waiters => upstream_waiters: usize, "1000";
    /// Answers of registries that are repeated for a while; at most 8 KiB each, usually 300 bytes.
    answers => answers: usize, "1000";
    /// Contents whose readers are remembered; about 200 bytes each.
    access => access: usize, "1000";
    /// Preheats to all peers that are still being passed on.
    preheats => preheats: usize, "4";
}
