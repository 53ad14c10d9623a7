//! Nodes that an operator has expelled: whom this node neither dials nor listens to, whatever it holds.
//!
//! Schedulers say who is out; each says all of it, so that whoever is let back in is no longer named. What was remembered from
//! an earlier life of this node counts until the first scheduler has spoken, because a node that starts while none answers
//! must not let in whom it had put out.

use std::collections::{BTreeMap, BTreeSet};

use piece::NodeId;
use wire::control::MAX_EXPELLED;

use super::Node;
use super::event::Output;

/// Schedulers whose lists are kept; nodes are configured with far fewer.
const MAX_SCHEDULERS: usize = 64;

/// Who is out, by who says so.
#[derive(Debug, Default)]
pub(super) struct Expulsion {
    remembered: BTreeSet<NodeId>,
    by_scheduler: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Expulsion {
    fn remember(&mut self, nodes: BTreeSet<NodeId>) {
        if self.by_scheduler.is_empty() {
            self.remembered = nodes;
        }
    }

    fn told(&mut self, by: NodeId, nodes: BTreeSet<NodeId>) {
        if self.by_scheduler.contains_key(&by) || self.by_scheduler.len() < MAX_SCHEDULERS {
            self.remembered.clear();
            self.by_scheduler.insert(by, nodes);
        }
    }

    /// Whether a node is out.
    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.remembered.contains(node) || self.by_scheduler.values().any(|nodes| nodes.contains(node))
    }

    fn all(&self) -> BTreeSet<NodeId> {
        let told = self.by_scheduler.values().flatten();
        told.chain(&self.remembered).copied().collect()
    }
}

impl Node {
    /// Somebody says who is out: a scheduler, or this node's own memory.
    pub(super) fn expelled(&mut self, by: Option<NodeId>, nodes: Vec<NodeId>, out: &mut Vec<Output>) {
        let before = self.links.expulsion.all();
        let nodes = nodes.into_iter().take(MAX_EXPELLED).collect();
        match by {
            Some(scheduler) => self.links.expulsion.told(scheduler, nodes),
            None => self.links.expulsion.remember(nodes),
        }
        let nodes = self.links.expulsion.all();
        if nodes != before {
            out.push(Output::Expel { nodes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn set(bytes: &[u8]) -> BTreeSet<NodeId> {
        bytes.iter().copied().map(node).collect()
    }

    #[test]
    fn what_is_remembered_counts_until_a_scheduler_speaks() {
        let mut expulsion = Expulsion::default();
        expulsion.remember(set(&[1, 2]));
        assert!(expulsion.contains(&node(1)) && !expulsion.contains(&node(3)));
        expulsion.told(node(9), set(&[2]));
        assert_eq!(expulsion.all(), set(&[2]), "1 was let back in meanwhile");
        expulsion.remember(set(&[1]));
        assert_eq!(expulsion.all(), set(&[2]), "a memory comes too late");
    }

    #[test]
    fn whom_any_scheduler_has_expelled_is_out() {
        let mut expulsion = Expulsion::default();
        expulsion.told(node(8), set(&[1]));
        expulsion.told(node(9), set(&[2]));
        assert_eq!(expulsion.all(), set(&[1, 2]));
        expulsion.told(node(8), set(&[]));
        assert_eq!(expulsion.all(), set(&[2]), "each speaks for itself");
    }

    #[test]
    fn lists_are_bounded() {
        let mut expulsion = Expulsion::default();
        for byte in 0..=u8::MAX {
            expulsion.told(node(byte), set(&[byte]));
        }
        assert_eq!(expulsion.by_scheduler.len(), MAX_SCHEDULERS);
    }
}
