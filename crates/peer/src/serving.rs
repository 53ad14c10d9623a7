//! Neighbours' requests: kept until the machine has chosen, then served from the page cache.

use std::collections::HashMap;
use std::sync::Arc;

use piece::Blob;
use swarm::node::{Input, ServeId};
use tokio::task::spawn_blocking;
use transport::FetchRequest;
use wire::exchange::{Fetch, Refusal};

use crate::pacing::PORTION;
use crate::parts::Parts;

/// Requests that wait for their turn. As many as the machine's upload queue allows: it refuses the rest.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    waiting: HashMap<ServeId, FetchRequest>,
    next: u64,
}

impl Uploads {
    /// Keeps a request and names it.
    pub(crate) fn take(&mut self, request: FetchRequest) -> ServeId {
        let id = ServeId(self.next);
        self.next += 1;
        self.waiting.insert(id, request);
        id
    }

    /// Turns a request down.
    pub(crate) fn refuse(&mut self, id: ServeId, refusal: Refusal) {
        if let Some(request) = self.waiting.remove(&id) {
            tokio::spawn(request.refuse(refusal));
        }
    }

    /// Serves a request in a task of its own, and tells the machine when it has ended.
    pub(crate) fn serve(&mut self, parts: Arc<Parts>, id: ServeId) {
        let Some(request) = self.waiting.remove(&id) else {
            return;
        };
        tokio::spawn(async move {
            serve(&parts, request).await;
            parts.engine.tell(Input::Served { id }).await;
        });
    }
}

async fn serve(parts: &Arc<Parts>, request: FetchRequest) {
    let fetch = request.fetch;
    let read = {
        let parts = Arc::clone(parts);
        spawn_blocking(move || read(&parts, &fetch)).await
    };
    let served = match read {
        Ok(Ok((runs, bytes))) => {
            let pace = &parts.pacing.upload;
            let portion = if pace.is_limited() { PORTION } else { bytes.len() };
            request.paced_piece(runs, bytes, portion, |sent| pace.pass(sent)).await
        }
        Ok(Err(refusal)) => return request.refuse(refusal).await,
        Err(_) => return request.refuse(Refusal::Failed).await,
    };
    match served {
        Ok(sent) => parts.metrics.sent_bytes(sent),
        Err(error) => tracing::debug!(%error, "a neighbour let go of a piece"),
    }
}

fn read(parts: &Parts, fetch: &Fetch) -> Result<(Vec<piece::SignedRun>, bytes::Bytes), Refusal> {
    let blob = Blob {
        digest: fetch.digest,
        size: fetch.size,
    };
    let file = parts
        .file(&blob.digest)
        .filter(|file| file.blob() == blob)
        .ok_or(Refusal::NotHere)?;
    let piece = blob.geometry().piece(fetch.piece).ok_or(Refusal::NotHere)?;
    let bytes = file.read(piece).map_err(|_| Refusal::NotHere)?;
    let runs = if fetch.runs {
        file.runs_for(piece, parts.key.signing_key(), parts.leases.epoch_of(&blob.digest))
    } else {
        Vec::new()
    };
    Ok((runs, bytes))
}
