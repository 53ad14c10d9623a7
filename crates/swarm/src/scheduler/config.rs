//! What an operator can change about a scheduler's decisions, and how much it may remember.

use std::time::Duration;

/// A scheduler's settings. Every number says its unit and why it is what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Time between two reports of a node, while there are at most [`Config::reports_per_second`] nodes.
    pub report_every: Duration,
    /// Reports that all nodes together should send per second at most: with more nodes, each reports more rarely.
    pub reports_per_second: u32,
    /// Neighbours named to a node that joins a swarm. 10 to 20: below, random graphs get long; above, haves pile up.
    pub neighbours: usize,
    /// Neighbours of a node per swarm, counting those that name it. Beyond, it is named only when few others are left.
    pub most_neighbours: usize,
    /// Nodes of each zone and swarm that are named nodes of other zones. Each fetches its share from there; with fewer, each
    /// must pass its share on more often before the zone has it.
    pub importers: usize,
    /// Waiting nodes that a seed or reader is named to at the same time, as long as there are other ways to the blob: each
    /// piece then leaves it about once, and the swarm multiplies it.
    pub seed_fanout: usize,
    /// A lease is lost when its holder has not reported it for this long.
    pub lease_ttl: Duration,
    /// The same before the registry has answered the holder for the first time, which may have made it wait.
    pub open_timeout: Duration,
    /// How long a scheduler that may have restarted lets the nodes tell what they hold, before it grants leases.
    pub recovery: Duration,
    /// How long a registry's failure is repeated to those who ask anew.
    pub failure_ttl: Duration,
    /// How long a tag's resolution is repeated.
    pub tag_ttl: Duration,
    /// How long is remembered who may read a content.
    pub access_ttl: Duration,
    /// How long a node is kept from others that two nodes complained of.
    pub ban: Duration,
    /// How long a seed may take to answer what only a registry can tell. Below the time after which the asker gives up.
    pub upstream_timeout: Duration,
    /// A waiting node that has got no piece for this long is named more neighbours.
    pub stall: Duration,
    /// When nobody in a swarm has got a piece for this long although somebody holds more, whoever that is counts as out of
    /// reach and another node reads the registry.
    pub stuck: Duration,
    /// How much is remembered.
    pub limits: Limits,
}

/// How much a scheduler remembers at most. Beyond, it refuses in words or forgets what is oldest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nodes; about 1 KiB each.
    pub nodes: usize,
    /// Blobs that are held or wanted; about 1 KiB each.
    pub swarms: usize,
    /// Pairs of a node and a blob that it holds or wants; about 64 bytes each.
    pub memberships: usize,
    /// Questions under way to seeds.
    pub upstream: usize,
    /// Nodes waiting for the answers to them.
    pub upstream_waiters: usize,
    /// Answers of registries that are repeated for a while; at most 8 KiB each, usually 300 bytes.
    pub answers: usize,
    /// Contents whose readers are remembered; about 200 bytes each.
    pub access: usize,
    /// Preheats to all peers that are still being passed on.
    pub preheats: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            report_every: Duration::from_secs(1),
            reports_per_second: 5000,
            neighbours: 15,
            most_neighbours: 20,
            importers: 6,
            seed_fanout: 8,
            lease_ttl: Duration::from_secs(10),
            open_timeout: Duration::from_secs(60),
            recovery: Duration::from_secs(2),
            failure_ttl: Duration::from_secs(2),
            tag_ttl: Duration::from_secs(10),
            access_ttl: Duration::from_secs(300),
            ban: Duration::from_secs(600),
            upstream_timeout: Duration::from_secs(14),
            stall: Duration::from_secs(5),
            stuck: Duration::from_secs(60),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 20_000,
            swarms: 200_000,
            memberships: 8_000_000,
            upstream: 4096,
            upstream_waiters: 65_536,
            answers: 16_384,
            access: 65_536,
            preheats: 16,
        }
    }
}
