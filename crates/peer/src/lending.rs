//! Lending a client's credential to whoever reads the registry for it, as long as the client waits.
//!
//! It goes straight to one node over its encrypted connection, never through the scheduler: to the seed that ranks first for
//! the blob, because it will most likely read it, and to another that turns out to be the reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::To;
use piece::{Digest, NodeId};
use tokio::task::AbortHandle;
use wire::Authorization;
use wire::control::{Request, Response, Role, Source};

use crate::parts::Parts;

/// Between two renewals; whoever is lent a credential forgets it after three of them.
const RENEWAL: Duration = Duration::from_secs(20);

/// A loan, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Loan {
    task: AbortHandle,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lends a credential for one content to its readers to be.
pub(crate) fn lend(parts: &Arc<Parts>, source: &Source, digest: &Digest, authorization: &Authorization) -> Loan {
    let lender = Lender {
        parts: Arc::clone(parts),
        source: source.clone(),
        digest: *digest,
        authorization: authorization.clone(),
    };
    // Before anything is wanted, so that a reading of this node's own finds it.
    lender.keep_here();
    let task = tokio::spawn(lender.run()).abort_handle();
    Loan { task }
}

struct Lender {
    parts: Arc<Parts>,
    source: Source,
    digest: Digest,
    authorization: Authorization,
}

impl Lender {
    async fn run(self) {
        let mut readers = self.parts.trust.changes();
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.tick().await;
        // A seed reads for itself what its own clients want.
        let mut likely = std::pin::pin!(self.parts.seeds.ranked(&self.parts, &self.digest));
        let mut looking = self.parts.role == Role::Peer;
        let mut lent: VecDeque<NodeId> = VecDeque::new();
        loop {
            readers.borrow_and_update();
            if let Some(reader) = self.parts.trust.reader(&self.digest) {
                self.lend_anew(reader, &mut lent).await;
            }
            tokio::select! {
                changed = readers.changed() => if changed.is_err() { return },
                seeds = &mut likely, if looking => {
                    looking = false;
                    if let Some(seed) = seeds.first() {
                        self.lend_anew(*seed, &mut lent).await;
                    }
                }
                _ = renewal.tick() => {
                    self.keep_here();
                    for node in &lent {
                        self.lend_to(*node).await;
                    }
                }
            }
        }
    }

    async fn lend_anew(&self, node: NodeId, lent: &mut VecDeque<NodeId>) {
        if lent.contains(&node) {
            return;
        }
        self.lend_to(node).await;
        // The likely reader and the real one; whoever read before them does not come back.
        lent.truncate(1);
        lent.push_front(node);
    }

    fn keep_here(&self) {
        let (digest, source) = (self.digest, self.source.clone());
        let now = Instant::now();
        self.parts.lent.keep(now, digest, source, self.authorization.clone());
    }

    async fn lend_to(&self, node: NodeId) {
        if node == self.parts.key.node_id() {
            return;
        }
        let request = Request::Lend {
            digest: self.digest,
            source: self.source.clone(),
            authorization: self.authorization.clone(),
        };
        match self.parts.control.ask(To::Node(node), request).await {
            Ok(Response::Taken) => {}
            Ok(_) => tracing::debug!(?node, digest = %self.digest, "a node does not take lent credentials"),
            Err(error) => tracing::debug!(?node, digest = %self.digest, %error, "a credential could not be lent"),
        }
    }
}
