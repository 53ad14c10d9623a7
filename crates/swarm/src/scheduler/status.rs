//! What a scheduler shows of itself.

use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::{Address, Locality, Role};

use super::Scheduler;
use super::nodes::NodeState;
use super::swarm::SwarmState;

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests refused in words.
    pub refused: u64,
    /// Holdings that were not remembered for want of room.
    pub dropped: u64,
    /// Leases granted.
    pub leases: u64,
    /// Leases given back with a failure.
    pub failed_leases: u64,
    /// Complaints of wrong bytes.
    pub wrong_bytes: u64,
    /// Complaints of forged midstates.
    pub forged_midstates: u64,
    /// Preheats taken.
    pub preheats: u64,
}

/// How much there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Connected seeds.
    pub seeds: usize,
    /// Connected peers.
    pub peers: usize,
    /// Nodes known, with those that were lost a moment ago.
    pub nodes: usize,
    /// Blobs held or wanted.
    pub swarms: usize,
    /// Pairs of a node and a blob that it holds or wants.
    pub memberships: usize,
    /// Questions under way to seeds.
    pub upstream: usize,
    /// Nodes waiting for the answers.
    pub upstream_waiters: usize,
    /// Answers of registries that would be repeated.
    pub answers: usize,
    /// Contents whose readers are known.
    pub access: usize,
    /// Preheats being passed on.
    pub preheats: usize,
    /// Nodes with complaints against them.
    pub accused: usize,
    /// Nodes that are kept from some swarm.
    pub banned: usize,
    /// Timers that are set.
    pub timers: usize,
}

/// One node, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Who.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// Where its data plane listens.
    pub data: Address,
    /// Where it stands.
    pub locality: Locality,
    /// Whether its connection stands.
    pub connected: bool,
    /// When it last said something.
    pub heard: Duration,
    /// Blobs that it holds or wants.
    pub blobs: usize,
    /// Blobs that it waits for.
    pub waiting: usize,
    /// Blobs that it reads from a registry.
    pub reading: usize,
}

/// One blob, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmView {
    /// Which.
    pub digest: Digest,
    /// Its size, if known.
    pub size: Option<u64>,
    /// Its media type, if known.
    pub media_type: Option<String>,
    /// Nodes that hold or want it.
    pub nodes: usize,
    /// Those that hold all of it.
    pub whole: usize,
    /// Those that wait for it.
    pub waiting: usize,
    /// Who reads it from the registry, and how far others have followed.
    pub reader: Option<ReaderView>,
}

/// Who reads a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderView {
    /// The holder of the lease.
    pub node: NodeId,
    /// The lease's epoch.
    pub epoch: u64,
    /// Whether the registry has answered it.
    pub opened: bool,
    /// The boundary below which every piece is held by another node.
    pub published: u32,
}

impl Scheduler {
    /// What has happened since the start.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How much there is at `now`.
    pub fn status(&self, now: Duration) -> Status {
        Status {
            seeds: self.nodes.seeds.len(),
            peers: self.nodes.peers.len(),
            nodes: self.nodes.len(),
            swarms: self.swarms.len(),
            memberships: self.memberships,
            upstream: self.relay.pending(),
            upstream_waiters: self.relay.waiters(),
            answers: self.relay.answers(),
            access: self.access.len(),
            preheats: self.preheats.len(),
            accused: self.conduct.len(),
            banned: self.conduct.banned(now),
            timers: self.timers.len(),
        }
    }

    /// Nodes that are kept from all swarms because two others showed that they signed false midstates, and until when.
    pub fn outcasts(&self, now: Duration) -> Vec<(NodeId, Duration)> {
        self.conduct.outcasts(now).collect()
    }

    /// The first `most` nodes whose ids come after `after`.
    pub fn nodes(&self, after: Option<NodeId>, most: usize) -> Vec<NodeView> {
        self.nodes
            .after(after)
            .take(most)
            .map(|(_, node)| view_node(node))
            .collect()
    }

    /// The first `most` swarms whose digests come after `after`.
    pub fn swarms(&self, after: Option<Digest>, most: usize) -> Vec<SwarmView> {
        self.swarms
            .after(after)
            .take(most)
            .map(|swarm| self.view_swarm(swarm))
            .collect()
    }

    fn view_swarm(&self, swarm: &SwarmState) -> SwarmView {
        SwarmView {
            digest: swarm.digest,
            size: swarm.size,
            media_type: swarm.media_type.clone(),
            nodes: swarm.members.len(),
            whole: swarm.members.whole() as usize,
            waiting: swarm.members.waiting.len(),
            reader: swarm.lease.map(|lease| ReaderView {
                node: self.nodes[lease.holder].id,
                epoch: lease.epoch,
                opened: lease.opened,
                published: swarm.published.map_or(0, |(resume, _)| resume.boundary),
            }),
        }
    }
}

fn view_node(node: &NodeState) -> NodeView {
    NodeView {
        node: node.id,
        role: node.role,
        data: node.data,
        locality: node.locality.clone(),
        connected: node.connected,
        heard: node.heard,
        blobs: node.swarms.len(),
        waiting: node.wanted.len(),
        reading: node.leases.len(),
    }
}
