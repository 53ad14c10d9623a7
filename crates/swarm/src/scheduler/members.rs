//! Who holds or wants one blob, and who was named to whom.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::slots::{LabelKey, NodeKey, Roster};

/// Neighbours remembered per waiting node; when more are named, the oldest are no longer counted.
const MAX_NAMED: usize = 64;

/// The nodes of one swarm.
#[derive(Debug)]
pub(super) struct Members {
    by_node: BTreeMap<NodeKey, Member>,
    waits: BTreeMap<NodeKey, Wait>,
    /// Those that hold pieces, those that do not, and those that wait: for drawing.
    pub(super) holding: Roster,
    pub(super) empty: Roster,
    pub(super) waiting: Roster,
    whole: u32,
    /// Waiting nodes of each zone that are named nodes of other zones.
    importers: BTreeMap<LabelKey, Vec<NodeKey>>,
}

/// One node's part in a swarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Member {
    /// Pieces that it holds and may be asked for.
    pub(super) pieces: u32,
    /// Whether that is all of them.
    pub(super) whole: bool,
    /// How many nodes it was named to, or that were named to it, and that still wait.
    pub(super) degree: u16,
}

/// What a node that waits is waiting for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wait {
    /// The sources that its clients named, one bit each; none for a node that said only that it wants the blob.
    pub(super) sources: u8,
    /// Who was named to it.
    pub(super) named: Vec<NodeKey>,
    /// When it last got a piece, or was last named neighbours.
    pub(super) moved: Duration,
}

impl Members {
    pub(super) const fn new() -> Self {
        Self {
            by_node: BTreeMap::new(),
            waits: BTreeMap::new(),
            holding: Roster::EMPTY,
            empty: Roster::EMPTY,
            waiting: Roster::EMPTY,
            whole: 0,
            importers: BTreeMap::new(),
        }
    }

    /// Whether a waiting node is one of its zone's importers; it becomes one if there are fewer than `most` that are `fit`.
    pub(super) fn imports(
        &mut self,
        node: NodeKey,
        zone: LabelKey,
        most: usize,
        fit: impl Fn(NodeKey) -> bool,
    ) -> bool {
        let importers = self.importers.entry(zone).or_default();
        importers.retain(|other| fit(*other));
        let joins = !importers.contains(&node) && importers.len() < most;
        if joins {
            importers.push(node);
        }
        importers.contains(&node)
    }

    /// Whether a node is an importer of its zone.
    pub(super) fn is_importer(&self, node: NodeKey) -> bool {
        self.importers.values().any(|importers| importers.contains(&node))
    }

    /// The importers of one zone.
    pub(super) fn importers(&self, zone: LabelKey) -> impl Iterator<Item = NodeKey> {
        self.importers.get(&zone).into_iter().flatten().copied()
    }

    /// One importer of each other zone.
    pub(super) fn outposts(&self, zone: LabelKey, rng: &mut ChaCha8Rng) -> impl Iterator<Item = NodeKey> {
        let others = self
            .importers
            .iter()
            .filter(move |(other, list)| **other != zone && !list.is_empty());
        others.map(|(_, importers)| importers[rng.random_range(0..importers.len())])
    }

    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// How many hold all of it.
    pub(super) const fn whole(&self) -> u32 {
        self.whole
    }

    /// All of them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeKey> {
        self.by_node.keys().copied()
    }

    pub(super) fn get(&self, node: NodeKey) -> Option<&Member> {
        self.by_node.get(&node)
    }

    pub(super) fn wait(&self, node: NodeKey) -> Option<&Wait> {
        self.waits.get(&node)
    }

    pub(super) fn wait_mut(&mut self, node: NodeKey) -> Option<&mut Wait> {
        self.waits.get_mut(&node)
    }

    /// Sets what a node holds, making it a member if it was none. Returns whether it is new, and whether it has gained.
    pub(super) fn set(&mut self, node: NodeKey, pieces: u32, whole: bool) -> (bool, bool) {
        let new = !self.by_node.contains_key(&node);
        let member = self.by_node.entry(node).or_default();
        let gained = pieces > member.pieces;
        self.whole = self.whole + u32::from(whole) - u32::from(member.whole);
        (member.pieces, member.whole) = (pieces, whole);
        let (to, from) = if pieces > 0 || whole {
            (&mut self.holding, &mut self.empty)
        } else {
            (&mut self.empty, &mut self.holding)
        };
        from.remove(node);
        to.insert(node);
        (new, gained)
    }

    /// The wait of a member, begun if it did not wait.
    pub(super) fn begin_wait(&mut self, node: NodeKey, now: Duration) -> &mut Wait {
        debug_assert!(self.by_node.contains_key(&node), "only members wait");
        self.waiting.insert(node);
        self.waits.entry(node).or_insert_with(|| Wait {
            moved: now,
            ..Wait::default()
        })
    }

    /// A member waits no longer: those that were named to it have room for another.
    pub(super) fn end_wait(&mut self, node: NodeKey) -> Option<Wait> {
        let wait = self.waits.remove(&node)?;
        self.waiting.remove(node);
        self.importers.retain(|_, importers| {
            importers.retain(|other| *other != node);
            !importers.is_empty()
        });
        for other in &wait.named {
            self.change_degree(*other, -1);
        }
        self.change_degree(node, -(wait.named.len() as i16));
        Some(wait)
    }

    /// Those that were named to a waiting member may be named to it again: it has lost them, or not made use of them.
    pub(super) fn forget_named(&mut self, node: NodeKey) {
        let Some(wait) = self.waits.get_mut(&node) else { return };
        let named = std::mem::take(&mut wait.named);
        for other in &named {
            self.change_degree(*other, -1);
        }
        self.change_degree(node, -(named.len() as i16));
    }

    /// A node that does not wait is a member no longer.
    pub(super) fn remove(&mut self, node: NodeKey) {
        debug_assert!(
            !self.waits.contains_key(&node),
            "a wait is ended before its member is removed"
        );
        if let Some(member) = self.by_node.remove(&node) {
            self.whole -= u32::from(member.whole);
            self.holding.remove(node);
            self.empty.remove(node);
        }
    }

    /// Remembers that `other` was named to a waiting member.
    pub(super) fn name(&mut self, node: NodeKey, other: NodeKey) {
        let Some(wait) = self.waits.get_mut(&node) else { return };
        let forgotten = (wait.named.len() >= MAX_NAMED).then(|| wait.named.remove(0));
        wait.named.push(other);
        self.change_degree(other, 1);
        match forgotten {
            Some(forgotten) => self.change_degree(forgotten, -1),
            None => self.change_degree(node, 1),
        }
    }

    /// Forgets neighbours that a waiting member was named and that have left: it has room for others.
    pub(super) fn prune(&mut self, node: NodeKey) {
        let Some(wait) = self.waits.get_mut(&node) else { return };
        let before = wait.named.len();
        let by_node = &self.by_node;
        wait.named.retain(|other| by_node.contains_key(other));
        let gone = before - wait.named.len();
        self.change_degree(node, -(gone as i16));
    }

    fn change_degree(&mut self, node: NodeKey, by: i16) {
        if let Some(member) = self.by_node.get_mut(&node) {
            // Saturating, because one that left and came back starts from nothing.
            member.degree = member.degree.saturating_add_signed(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::slots::Key as _;

    fn node(number: usize) -> NodeKey {
        NodeKey::new(number)
    }

    fn members(count: usize) -> Members {
        let mut members = Members::new();
        for number in 0..count {
            members.set(node(number), 0, false);
            members.begin_wait(node(number), Duration::ZERO);
        }
        members
    }

    fn degrees(members: &Members, count: usize) -> Vec<u16> {
        (0..count)
            .map(|number| members.get(node(number)).unwrap().degree)
            .collect()
    }

    #[test]
    fn a_member_is_either_holding_or_empty() {
        let mut members = members(1);
        assert!(members.empty.contains(node(0)));
        assert_eq!(members.set(node(0), 3, false), (false, true));
        assert!(members.holding.contains(node(0)) && members.empty.is_empty());
        members.set(node(0), 4, true);
        assert_eq!(members.whole(), 1);
        members.set(node(0), 0, false);
        assert!(members.empty.contains(node(0)) && members.whole() == 0);
    }

    #[test]
    fn degrees_count_links_of_those_who_wait() {
        let mut members = members(3);
        members.name(node(0), node(1));
        members.name(node(0), node(2));
        members.name(node(2), node(1));
        assert_eq!(degrees(&members, 3), [2, 2, 2]);
        members.end_wait(node(0));
        assert_eq!(degrees(&members, 3), [0, 1, 1]);
        members.end_wait(node(1));
        members.remove(node(1));
        members.prune(node(2));
        assert_eq!(members.get(node(2)).unwrap().degree, 0);
        assert!(members.wait(node(2)).unwrap().named.is_empty());
    }

    #[test]
    fn each_zone_has_a_few_importers_until_they_no_longer_wait() {
        let mut members = members(6);
        let (here, there) = (LabelKey::new(0), LabelKey::new(1));
        let here_imports: Vec<bool> = (0..4).map(|n| members.imports(node(n), here, 2, |_| true)).collect();
        assert_eq!(here_imports, [true, true, false, false]);
        assert!(
            members.imports(node(0), here, 2, |_| true),
            "once an importer, always one"
        );
        assert!(members.imports(node(4), there, 2, |_| true));
        let mut rng = rand_chacha::rand_core::SeedableRng::seed_from_u64(1);
        assert_eq!(members.outposts(here, &mut rng).collect::<Vec<_>>(), [node(4)]);
        members.end_wait(node(0));
        assert!(members.imports(node(2), here, 2, |_| true), "a place is free");
        assert!(
            members.imports(node(3), here, 2, |other| other != node(1)),
            "and that of who is gone"
        );
        assert_eq!(members.importers(here).collect::<Vec<_>>(), [node(2), node(3)]);
        (1..5).for_each(|n| drop(members.end_wait(node(n))));
        assert!(members.importers.is_empty());
    }

    #[test]
    fn named_neighbours_are_bounded() {
        let mut members = members(200);
        (1..200).for_each(|other| members.name(node(0), node(other)));
        assert_eq!(members.wait(node(0)).unwrap().named.len(), MAX_NAMED);
        assert_eq!(members.get(node(0)).unwrap().degree as usize, MAX_NAMED);
        assert_eq!(members.get(node(1)).unwrap().degree, 0);
    }
}
