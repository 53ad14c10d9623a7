//! What operators are shown. The JSON is part of the contract: `docs/api.md` describes it, and a test pins it.

use std::time::Duration;

use identity::peer_id;
use piece::{Digest, NodeId};
use serde::Serialize;
use swarm::scheduler::{NodeView, Scheduler as Machine, SwarmView};

/// A scheduler at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// `scheduler`.
    pub role: &'static str,
    /// The scheduler's libp2p peer id.
    pub peer_id: String,
    /// The release.
    pub version: &'static str,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Connected seeds.
    pub seeds: usize,
    /// Connected peers.
    pub peers: usize,
    /// Blobs that some node holds or wants.
    pub swarms: usize,
    /// Pairs of a node and a blob that it holds or wants.
    pub holdings: usize,
    /// Questions to registries that seeds are being asked.
    pub questions: usize,
    /// Preheats that are being passed on to peers.
    pub preheats: usize,
    /// Nodes that are kept from some swarm for what others complained of.
    pub banned: usize,
    /// Leases granted since the start.
    pub leases_granted: u64,
    /// Leases given back because a registry, or their holder, failed.
    pub leases_failed: u64,
    /// Complaints of wrong bytes since the start.
    pub complaints_wrong_bytes: u64,
    /// Complaints of forged midstates since the start.
    pub complaints_forged_midstates: u64,
    /// Requests refused since the start, for a limit or because they made no sense.
    pub refused: u64,
    /// Holdings not remembered since the start, for want of room.
    pub dropped: u64,
}

/// A page of nodes.
#[derive(Debug, Clone, Serialize)]
pub struct Nodes {
    /// In an order of their own.
    pub nodes: Vec<NodeStatus>,
    /// The `after` of the next page, if there is one.
    pub next: Option<String>,
}

/// One node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// `seed` or `peer`.
    pub role: &'static str,
    /// Where its data plane listens.
    pub data: String,
    /// Its machine.
    pub host: Option<String>,
    /// Its rack or block.
    pub rack: Option<String>,
    /// Its zone or data centre.
    pub zone: Option<String>,
    /// Whether its connection stands; if not, it will soon be forgotten.
    pub connected: bool,
    /// Seconds since it last said something.
    pub silent_seconds: f64,
    /// Blobs that it holds or wants.
    pub blobs: usize,
    /// Blobs that it waits for.
    pub waiting: usize,
    /// Blobs that it reads from a registry.
    pub reading: usize,
}

/// Who is out.
#[derive(Debug, Clone, Serialize)]
pub struct Banned {
    /// Those whom the operator has expelled first.
    pub banned: Vec<BannedNode>,
}

/// One who is out.
#[derive(Debug, Clone, Serialize)]
pub struct BannedNode {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// `operator`, until unbanned; or `complaints`, when two nodes showed that it signed false midstates.
    pub by: &'static str,
    /// Why; empty if the operator gave no reason.
    pub reason: String,
    /// For how much longer; null: until the operator lets it back in.
    pub seconds_left: Option<u64>,
}

/// A page of swarms.
#[derive(Debug, Clone, Serialize)]
pub struct Swarms {
    /// By digest.
    pub swarms: Vec<SwarmStatus>,
    /// The `after` of the next page, if there is one.
    pub next: Option<String>,
}

/// One blob.
#[derive(Debug, Clone, Serialize)]
pub struct SwarmStatus {
    /// Its digest.
    pub digest: String,
    /// Its size in bytes, if known.
    pub size: Option<u64>,
    /// Its media type, if known.
    pub media_type: Option<String>,
    /// Nodes that hold or want it.
    pub nodes: usize,
    /// Those that hold all of it.
    pub whole: usize,
    /// Those that wait for it.
    pub waiting: usize,
    /// Who reads it from a registry, if anybody does.
    pub reader: Option<Reader>,
}

/// The holder of an origin lease.
#[derive(Debug, Clone, Serialize)]
pub struct Reader {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// The lease's fencing epoch.
    pub epoch: u64,
    /// Whether the registry has answered it.
    pub opened: bool,
    /// Leading pieces that other nodes hold as well.
    pub published: u32,
}

pub(crate) fn status(machine: &Machine, me: NodeId, now: Duration) -> Status {
    let (status, counters) = (machine.status(now), machine.counters());
    Status {
        role: "scheduler",
        peer_id: peer_id(me).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: now.as_secs(),
        seeds: status.seeds,
        peers: status.peers,
        swarms: status.swarms,
        holdings: status.memberships,
        questions: status.upstream,
        preheats: status.preheats,
        banned: status.banned,
        leases_granted: counters.leases,
        leases_failed: counters.failed_leases,
        complaints_wrong_bytes: counters.wrong_bytes,
        complaints_forged_midstates: counters.forged_midstates,
        refused: counters.refused,
        dropped: counters.dropped,
    }
}

pub(crate) fn nodes(machine: &Machine, now: Duration, after: Option<NodeId>, most: usize) -> Nodes {
    let views = machine.nodes(after, most);
    let next = views
        .last()
        .filter(|_| views.len() == most)
        .map(|last| last.node.to_string());
    let nodes = views.into_iter().map(|view| view_node(view, now)).collect();
    Nodes { nodes, next }
}

pub(crate) fn swarms(machine: &Machine, after: Option<Digest>, most: usize) -> Swarms {
    let views = machine.swarms(after, most);
    let next = views
        .last()
        .filter(|_| views.len() == most)
        .map(|last| last.digest.to_string());
    let swarms = views.into_iter().map(view_swarm).collect();
    Swarms { swarms, next }
}

pub(crate) fn banned(machine: &Machine, now: Duration) -> Banned {
    let expelled = machine.expelled().iter().map(|(node, reason)| BannedNode {
        peer_id: peer_id(*node).to_string(),
        by: "operator",
        reason: reason.clone(),
        seconds_left: None,
    });
    let outcasts = machine.outcasts(now).into_iter().map(|(node, until)| BannedNode {
        peer_id: peer_id(node).to_string(),
        by: "complaints",
        reason: "it signed false midstates".to_owned(),
        seconds_left: Some(until.saturating_sub(now).as_secs()),
    });
    Banned {
        banned: expelled.chain(outcasts).collect(),
    }
}

fn view_node(view: NodeView, now: Duration) -> NodeStatus {
    NodeStatus {
        peer_id: peer_id(view.node).to_string(),
        role: view.role.name(),
        data: view.data.0.to_string(),
        host: view.locality.host,
        rack: view.locality.rack,
        zone: view.locality.zone,
        connected: view.connected,
        silent_seconds: now.saturating_sub(view.heard).as_secs_f64(),
        blobs: view.blobs,
        waiting: view.waiting,
        reading: view.reading,
    }
}

fn view_swarm(view: SwarmView) -> SwarmStatus {
    SwarmStatus {
        digest: view.digest.to_string(),
        size: view.size,
        media_type: view.media_type,
        nodes: view.nodes,
        whole: view.whole,
        waiting: view.waiting,
        reader: view.reader.map(|reader| Reader {
            peer_id: peer_id(reader.node).to_string(),
            epoch: reader.epoch,
            opened: reader.opened,
            published: reader.published,
        }),
    }
}
