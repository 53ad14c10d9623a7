//! What a node does now and then: evict, count, forget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use piece::Digest;
use swarm::node::Input;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::parts::Parts;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(5);

/// Keeps house until `stop`.
pub(crate) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(ROUND);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        evict(&parts).await;
        parts.files.close_idle(Instant::now());
        parts.note_usage();
    }
}

/// Evicts what the water marks ask for, and tells the machine what is gone.
pub(crate) async fn evict(parts: &Arc<Parts>) -> Vec<Digest> {
    let store = parts.store.clone();
    let evicted = spawn_blocking(move || store.evict()).await.unwrap_or_default();
    for digest in &evicted {
        tracing::info!(%digest, "evicted");
        parts.dropped(digest).await;
    }
    parts.engine.tell(Input::Tick).await;
    evicted
}
