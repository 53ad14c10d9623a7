//! Having nothing to do with expelled nodes: on both planes, at once, and after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use identity::{ExpelledFile, peer_id};
use piece::NodeId;
use swarm::node::Input;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::parts::Parts;

/// Puts out whom this node has put out in an earlier life, at once: the machine, which is told too, answers only later.
pub(crate) async fn remember(parts: &Parts, nodes: BTreeMap<NodeId, String>) {
    let nodes: Vec<NodeId> = nodes.into_keys().collect();
    put_out(parts, &nodes.iter().copied().collect());
    parts.engine.tell(Input::Expelled { by: None, nodes }).await;
}

fn put_out(parts: &Parts, nodes: &BTreeSet<NodeId>) {
    parts.transport.expel(nodes.clone());
    parts.control.expel(nodes.clone());
}

/// Follows what the machine decides until `stop`.
pub(crate) async fn run(parts: Arc<Parts>, file: Option<ExpelledFile>, stop: CancellationToken) {
    let mut expelled = parts.expelled.subscribe();
    let mut before = BTreeSet::new();
    while let Some(Ok(())) = stop.run_until_cancelled(expelled.changed()).await {
        let now = others(&parts, &mut expelled);
        put_out(&parts, &now);
        // Before it is said, so that whoever has read it can rely on it.
        if let Some(file) = &file {
            save(file.clone(), now.clone()).await;
        }
        for node in now.difference(&before) {
            tracing::warn!(
                node = %peer_id(*node),
                "a node was expelled by the operator: connections with it are closed and refused"
            );
        }
        for node in before.difference(&now) {
            tracing::info!(node = %peer_id(*node), "a node that was expelled may come back");
        }
        before = now;
    }
}

/// Whom to put out. That this node is out itself is said, and changes nothing here: it is the others who refuse.
fn others(parts: &Parts, expelled: &mut watch::Receiver<BTreeSet<NodeId>>) -> BTreeSet<NodeId> {
    let mut nodes = expelled.borrow_and_update().clone();
    let is_out = nodes.remove(&parts.key.node_id());
    if parts.is_expelled.swap(is_out, std::sync::atomic::Ordering::Relaxed) == is_out {
        return nodes;
    }
    if is_out {
        tracing::error!(
            "this node was expelled from the cluster by its operator: other nodes refuse it until `packswarm node unban`"
        );
    } else {
        tracing::info!("this node is no longer expelled");
    }
    nodes
}

async fn save(file: ExpelledFile, nodes: BTreeSet<NodeId>) {
    let nodes = nodes.into_iter().map(|node| (node, String::new())).collect();
    let saved = spawn_blocking(move || file.save(&nodes)).await;
    if let Ok(Err(error)) = saved {
        tracing::error!("{error}; until a scheduler answers, a restart of this node would let them in");
    }
}
