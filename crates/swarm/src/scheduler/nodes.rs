//! The nodes that a scheduler knows, and where they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::NodeId;
use wire::control::{Address, Locality, Neighbour, Role};

use super::slots::{LabelKey, NodeKey, Roster, Slots, SwarmKey};

/// All nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    slots: Slots<NodeKey, NodeState>,
    by_id: BTreeMap<NodeId, NodeKey>,
    /// Those of them that are connected, by role.
    pub(super) seeds: Roster,
    pub(super) peers: Roster,
    labels: Slots<LabelKey, Label>,
    by_label: BTreeMap<(Level, String), LabelKey>,
}

/// One node.
#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) id: NodeId,
    pub(super) role: Role,
    pub(super) data: Address,
    pub(super) locality: Locality,
    labels: [Option<LabelKey>; 3],
    pub(super) connected: bool,
    /// When it last said something, or was lost.
    pub(super) heard: Duration,
    /// How often it was told to report.
    pub(super) every: Duration,
    /// What it holds or wants.
    pub(super) swarms: BTreeSet<SwarmKey>,
    /// What it waits for.
    pub(super) wanted: BTreeSet<SwarmKey>,
    /// What it reads from a registry.
    pub(super) leases: BTreeSet<SwarmKey>,
    /// A registration whose last page has not come.
    pub(super) paging: Option<Paging>,
    /// Whom it has complained of.
    pub(super) accused: BTreeSet<NodeId>,
    /// Where the search for swarms in which it has stalled goes on.
    pub(super) stall_cursor: Option<SwarmKey>,
    /// When its timer is set for.
    pub(super) armed: Option<Duration>,
}

/// What the pages of a registration have named so far.
#[derive(Debug)]
pub(super) struct Paging {
    pub(super) named: BTreeSet<SwarmKey>,
    pub(super) reading: BTreeSet<SwarmKey>,
}

/// How a node introduces itself.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    pub(super) role: Role,
    pub(super) data: Address,
    pub(super) locality: Locality,
}

/// What nodes can have in common, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Host,
    Rack,
    Zone,
}

#[derive(Debug)]
struct Label {
    name: (Level, String),
    nodes: Roster,
}

impl Nodes {
    pub(super) const fn new() -> Self {
        Self {
            slots: Slots::new(),
            by_id: BTreeMap::new(),
            seeds: Roster::EMPTY,
            peers: Roster::EMPTY,
            labels: Slots::new(),
            by_label: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn key(&self, id: &NodeId) -> Option<NodeKey> {
        self.by_id.get(id).copied()
    }

    /// Those whose ids come after `after`, in order.
    pub(super) fn after(&self, after: Option<NodeId>) -> impl Iterator<Item = (NodeKey, &NodeState)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.by_id.range(range).map(|(_, key)| (*key, &self.slots[*key]))
    }

    /// Enters a node, or what has changed about it. It counts as connected.
    pub(super) fn enter(&mut self, id: NodeId, introduction: Introduction, now: Duration) -> NodeKey {
        let Introduction { role, data, locality } = introduction;
        if let Some(key) = self.key(&id) {
            self.unlist(key);
            let node = &mut self.slots[key];
            (node.role, node.data, node.locality, node.heard, node.connected) = (role, data, locality, now, true);
            self.list(key);
            return key;
        }
        let key = self.slots.insert(NodeState {
            id,
            role,
            data,
            locality,
            labels: [None; 3],
            connected: true,
            heard: now,
            every: Duration::ZERO,
            swarms: BTreeSet::new(),
            wanted: BTreeSet::new(),
            leases: BTreeSet::new(),
            paging: None,
            accused: BTreeSet::new(),
            stall_cursor: None,
            armed: None,
        });
        self.by_id.insert(id, key);
        self.list(key);
        key
    }

    /// A node's connection is gone: it is no longer drawn.
    pub(super) fn lose(&mut self, key: NodeKey, now: Duration) {
        self.unlist(key);
        let node = &mut self.slots[key];
        (node.connected, node.heard, node.paging) = (false, now, None);
    }

    /// Forgets a node that is in no swarm any more.
    pub(super) fn remove(&mut self, key: NodeKey) {
        self.unlist(key);
        let node = self.slots.remove(key);
        debug_assert!(
            node.swarms.is_empty() && node.leases.is_empty(),
            "a forgotten node has left every swarm"
        );
        self.by_id.remove(&node.id);
    }

    /// How near two nodes are: 3 on one host, 2 in one rack, 1 in one zone, else 0.
    pub(super) fn closeness(&self, one: NodeKey, other: NodeKey) -> u8 {
        let (one, other) = (&self.slots[one].labels, &self.slots[other].labels);
        let shared = (0..3).find(|level| one[*level].is_some() && one[*level] == other[*level]);
        shared.map_or(0, |level| 3 - level as u8)
    }

    /// The zone that a node is in, if it has a label.
    pub(super) fn zone(&self, key: NodeKey) -> Option<LabelKey> {
        self.slots[key].labels[2]
    }

    /// Whether two nodes are in different zones.
    pub(super) fn are_apart(&self, one: NodeKey, other: NodeKey) -> bool {
        let zones = self.zone(one).zip(self.zone(other));
        zones.is_some_and(|(one, other)| one != other)
    }

    /// The connected nodes on the same host, in the same rack, in the same zone.
    pub(super) fn around(&self, key: NodeKey) -> impl Iterator<Item = &Roster> {
        self.slots[key]
            .labels
            .iter()
            .flatten()
            .map(|label| &self.labels[*label].nodes)
    }

    /// A node as others are told of it.
    pub(super) fn neighbour(&self, key: NodeKey) -> Neighbour {
        let node = &self.slots[key];
        Neighbour {
            node: node.id,
            data: node.data,
            role: node.role,
            locality: node.locality.clone(),
        }
    }

    fn list(&mut self, key: NodeKey) {
        let node = &mut self.slots[key];
        match node.role {
            Role::Seed => self.seeds.insert(key),
            Role::Peer | Role::Scheduler => self.peers.insert(key),
        }
        let Locality { host, rack, zone } = &node.locality;
        for (place, (level, name)) in [(Level::Host, host), (Level::Rack, rack), (Level::Zone, zone)]
            .into_iter()
            .enumerate()
        {
            let Some(name) = name else { continue };
            let name = (level, name.clone());
            let label = *self.by_label.entry(name.clone()).or_insert_with(|| {
                self.labels.insert(Label {
                    name,
                    nodes: Roster::EMPTY,
                })
            });
            self.labels[label].nodes.insert(key);
            node.labels[place] = Some(label);
        }
    }

    fn unlist(&mut self, key: NodeKey) {
        self.seeds.remove(key);
        self.peers.remove(key);
        for label in std::mem::take(&mut self.slots[key].labels).into_iter().flatten() {
            self.labels[label].nodes.remove(key);
            if self.labels[label].nodes.is_empty() {
                let label = self.labels.remove(label);
                self.by_label.remove(&label.name);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn labels(&self) -> usize {
        self.labels.len()
    }
}

impl std::ops::Index<NodeKey> for Nodes {
    type Output = NodeState;

    fn index(&self, key: NodeKey) -> &NodeState {
        &self.slots[key]
    }
}

impl std::ops::IndexMut<NodeKey> for Nodes {
    fn index_mut(&mut self, key: NodeKey) -> &mut NodeState {
        &mut self.slots[key]
    }
}
