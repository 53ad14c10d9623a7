//! One piece from one neighbour: ask, receive, prove, write.

use std::sync::Arc;

use piece::{Blob, NodeId, PieceIndex};
use swarm::node::{FetchId, Input, Outcome};
use transport::FetchError;
use wire::exchange::Fetch;

use crate::parts::Parts;

/// Fetches a piece and tells the machine how it went.
pub(crate) async fn fetch(parts: Arc<Parts>, id: FetchId, from: NodeId, blob: Blob, piece: PieceIndex) {
    let outcome = attempt(&parts, id, from, blob, piece).await;
    if outcome == Outcome::Stored {
        parts.watches.tell(&blob.digest, |seen| seen.gained += 1);
    }
    if let Some(reason) = rejection(outcome) {
        parts.metrics.piece_rejected(reason);
    }
    parts.engine.tell(Input::Fetched { id, outcome }).await;
}

async fn attempt(parts: &Arc<Parts>, id: FetchId, from: NodeId, blob: Blob, piece: PieceIndex) -> Outcome {
    let Some(file) = parts.file(&blob.digest) else {
        return Outcome::StoreFailed;
    };
    let runs = file.link(piece).is_none();
    let fetch = Fetch {
        digest: blob.digest,
        size: blob.size,
        piece: piece.get(),
        runs,
    };
    let mut incoming = match parts.transport.fetch(&from, fetch).await {
        Ok(incoming) => incoming,
        Err(FetchError::Refused(refusal)) => return Outcome::Refused(refusal),
        Err(error) => {
            tracing::debug!(node = ?from, %error, "a piece did not come");
            return Outcome::Lost;
        }
    };
    parts.engine.hint(Input::Started { id });
    parts.accept_runs(&file, std::mem::take(&mut incoming.runs));
    let Some(link) = file.link(piece) else {
        return Outcome::Unvouched;
    };
    let len = usize::try_from(blob.geometry().len(piece)).expect("a piece fits into memory");
    let room = parts.buffers.take(len).await;
    let pace = &parts.pacing.download;
    let chunks = match incoming.read_paced(len, |received| pace.pass(received)).await {
        Ok(chunks) => chunks,
        Err(error) => {
            tracing::debug!(node = ?from, %error, "a piece broke off");
            return Outcome::Lost;
        }
    };
    parts.metrics.received_bytes(parts.roles.source_of(&from), len as u64);
    let outcome = parts.provers.prove(file, link, chunks, room).await;
    if outcome == Outcome::WrongBytes {
        tracing::warn!(node = %identity::peer_id(from), digest = %blob.digest, piece = piece.get(), "a neighbour sent wrong bytes; they were not stored");
    }
    outcome
}

/// The metric's word for a piece that was refused.
fn rejection(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::WrongBytes => Some("wrong_bytes"),
        Outcome::Unvouched => Some("unvouched"),
        Outcome::Stored | Outcome::Refused(_) | Outcome::Lost | Outcome::StoreFailed | Outcome::Cancelled => None,
    }
}
