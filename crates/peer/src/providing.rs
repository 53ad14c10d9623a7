//! Provider records in Kademlia, so that this node can be found when no scheduler answers.
//!
//! Records cost messages at some twenty other nodes each, so they are published at a bounded pace, in the background.

use std::time::Duration;

use control::Control;
use piece::Digest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Changes that wait; beyond, they are dropped: a lookup that finds fewer holders still finds some.
const QUEUE: usize = 8192;
/// The least time between two records.
const PACE: Duration = Duration::from_millis(20);

/// The way to the publishing task.
#[derive(Debug, Clone)]
pub(crate) struct Providing {
    queue: mpsc::Sender<Change>,
}

#[derive(Debug)]
enum Change {
    Provide(Digest),
    Unprovide(Digest),
}

impl Providing {
    /// Starts publishing.
    pub(crate) fn start(control: Control, stop: CancellationToken) -> Self {
        let (queue, changes) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(publish(control, changes)).await;
        });
        Self { queue }
    }

    pub(crate) fn provide(&self, digest: Digest) {
        self.change(Change::Provide(digest));
    }

    pub(crate) fn unprovide(&self, digest: Digest) {
        self.change(Change::Unprovide(digest));
    }

    fn change(&self, change: Change) {
        if self.queue.try_send(change).is_err() {
            tracing::debug!("too many provider records wait; one is not published");
        }
    }
}

async fn publish(control: Control, mut changes: mpsc::Receiver<Change>) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Provide(digest) => control.provide(&digest).await,
            Change::Unprovide(digest) => control.unprovide(&digest).await,
        }
        tokio::time::sleep(PACE).await;
    }
}
