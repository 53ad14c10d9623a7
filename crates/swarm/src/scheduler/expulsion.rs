//! Nodes that an operator has expelled by id, until the operator lets them back in.
//!
//! An expelled node is in no swarm, is named to nobody, and is refused whatever it asks, in words. All others are told who is
//! out: at once, and when they register, so that a node that was away learns it as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use piece::NodeId;
use wire::control::MAX_EXPELLED;

use super::Scheduler;
use super::event::Output;

/// Bytes of a reason at most.
pub const MAX_REASON: usize = 256;

/// What an expelled node is told, and says in its own log.
const OUT: &str =
    "this node was expelled from the cluster by its operator: `packswarm node unban` at the scheduler lets it back in";

/// Why a node cannot be expelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpelError {
    /// The list is full.
    #[error("{MAX_EXPELLED} nodes are expelled already: replace the cluster key, or let some back in")]
    Full,
    /// The reason is too long.
    #[error("a reason has at most {MAX_REASON} bytes and no line breaks")]
    Reason,
}

/// Who is out, and why.
#[derive(Debug, Default)]
pub(super) struct Expulsion {
    nodes: BTreeMap<NodeId, String>,
    /// Whether a node may know of a list: then it must also be told that it is empty.
    kept: bool,
}

impl Expulsion {
    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }

    pub(super) fn refuse(&self, node: &NodeId) -> Option<String> {
        let reason = self.nodes.get(node)?;
        Some(if reason.is_empty() {
            OUT.to_owned()
        } else {
            format!("{OUT} (reason: {reason})")
        })
    }

    fn list(&self) -> Arc<[NodeId]> {
        self.nodes.keys().copied().collect()
    }
}

impl Scheduler {
    /// Takes up the list that an earlier scheduler has kept. To be called before anything else; what is beyond
    /// [`MAX_EXPELLED`] is not taken.
    pub fn remember_expelled(&mut self, nodes: BTreeMap<NodeId, String>) {
        self.expulsion.nodes = nodes.into_iter().take(MAX_EXPELLED).collect();
        self.expulsion.kept = true;
    }

    /// Who is out, and why.
    pub const fn expelled(&self) -> &BTreeMap<NodeId, String> {
        &self.expulsion.nodes
    }

    /// Puts a node out for a reason, which may be empty. False if it was out already; the reason is then the new one.
    pub(super) fn put_out(&mut self, node: NodeId, reason: String, out: &mut Vec<Output>) -> Result<bool, ExpelError> {
        if reason.len() > MAX_REASON || reason.contains(char::is_control) {
            return Err(ExpelError::Reason);
        }
        let known = self.expulsion.contains(&node);
        if !known && self.expulsion.nodes.len() >= MAX_EXPELLED {
            return Err(ExpelError::Full);
        }
        self.expulsion.nodes.insert(node, reason);
        self.expulsion.kept = true;
        if known {
            return Ok(false);
        }
        // It hears that it is out, and nobody hears of it any more.
        self.tell_expelled(out);
        if let Some(key) = self.nodes.key(&node) {
            self.forget(key);
        }
        Ok(true)
    }

    /// Lets a node back in. False if it was not out.
    pub fn readmit(&mut self, node: &NodeId, out: &mut Vec<Output>) -> bool {
        let was_out = self.expulsion.nodes.remove(node).is_some();
        if was_out {
            self.tell_expelled(out);
        }
        was_out
    }

    /// Tells a node that has registered who is out.
    pub(super) fn greet_with_expelled(&self, to: NodeId, out: &mut Vec<Output>) {
        if self.expulsion.kept {
            let nodes = self.expulsion.list();
            out.push(Output::Expelled { to, nodes });
        }
    }

    /// Tells an expelled node that it is out, so that it can say so itself, and nothing of others.
    pub(super) fn tell_outcast(&self, to: NodeId, out: &mut Vec<Output>) {
        let nodes = Arc::from([to]);
        out.push(Output::Expelled { to, nodes });
    }

    fn tell_expelled(&self, out: &mut Vec<Output>) {
        let nodes = self.expulsion.list();
        let connected = self.nodes.after(None).filter(|(_, node)| node.connected);
        out.extend(connected.map(|(_, node)| match self.expulsion.contains(&node.id) {
            true => Output::Expelled {
                to: node.id,
                nodes: Arc::from([node.id]),
            },
            false => Output::Expelled {
                to: node.id,
                nodes: Arc::clone(&nodes),
            },
        }));
    }
}
