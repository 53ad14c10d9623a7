//! The node's admin endpoints: status, blobs, and what can be done to them.

use std::sync::Arc;
use std::time::Duration;

use admin::{Admin, ApiError, Readiness};
use piece::Digest;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::housekeeping;
use crate::limits;
use crate::parts::Parts;
use crate::repairing;
use crate::status;

/// How long a damaged blob's verification waits for its pieces to come back, at most.
const REPAIR: Duration = Duration::from_secs(3600);

/// What `cache verify` found.
#[derive(Debug, Serialize)]
struct Verified {
    digest: String,
    pieces: u32,
    /// Numbers of pieces whose bytes were not what they should be; they are fetched again.
    damaged: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct Changed {
    digest: String,
    changed: bool,
}

#[derive(Debug, Serialize)]
struct Evicted {
    evicted: Vec<String>,
}

/// The node's endpoints.
pub(crate) fn admin(parts: Arc<Parts>, registry: prometheus::Registry) -> Admin {
    let share = move || Arc::clone(&parts);
    let (of_status, of_ready, of_blobs) = (share(), share(), share());
    let (of_limits, of_change) = (share(), share());
    let (of_pin, of_unpin, of_verify, of_remove, of_gc) = (share(), share(), share(), share(), share());
    let status = move || {
        let parts = Arc::clone(&of_status);
        async move { serde_json::to_value(status::status(&parts)).unwrap_or_default() }
    };
    let ready = move || match of_ready.store.usage().capacity {
        0 => Readiness::NotReady("the store has no capacity".to_owned()),
        _ => Readiness::Ready,
    };
    Admin::new(registry, status, ready)
        .get("/api/v1/blobs", move || {
            let parts = Arc::clone(&of_blobs);
            async move { Ok(status::blobs(&parts)) }
        })
        .post_blob("pin", move |digest| pin(Arc::clone(&of_pin), digest, true))
        .post_blob("unpin", move |digest| pin(Arc::clone(&of_unpin), digest, false))
        .post_blob("verify", move |digest| verify(Arc::clone(&of_verify), digest))
        .delete_blob(move |digest| remove(Arc::clone(&of_remove), digest))
        .get("/api/v1/limits", move || {
            limits::change(Arc::clone(&of_limits), limits::Change::default())
        })
        .post("/api/v1/limits", move |change| {
            limits::change(Arc::clone(&of_change), change)
        })
        .post("/api/v1/gc", move |(): ()| {
            let parts = Arc::clone(&of_gc);
            async move {
                let evicted = housekeeping::evict(&parts).await;
                Ok(Evicted {
                    evicted: evicted.iter().map(Digest::to_string).collect(),
                })
            }
        })
}

/// Runs what may block on the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    match spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error @ store::StoreError::NotHeld { .. })) => Err(ApiError::NotFound(error.to_string())),
        Ok(Err(error)) => Err(ApiError::Failed(error.to_string())),
        Err(_) => Err(ApiError::Failed(
            "a task of this node ended unexpectedly; see its log".to_owned(),
        )),
    }
}

async fn pin(parts: Arc<Parts>, digest: Digest, pinned: bool) -> Result<Changed, ApiError> {
    on_disk(move || {
        if pinned {
            parts.store.pin(&digest)
        } else {
            parts.store.unpin(&digest)
        }
    })
    .await?;
    Ok(Changed {
        digest: digest.to_string(),
        changed: true,
    })
}

async fn remove(parts: Arc<Parts>, digest: Digest) -> Result<Changed, ApiError> {
    let store = parts.store.clone();
    let changed = on_disk(move || store.remove(&digest)).await?;
    if changed {
        parts.dropped(&digest).await;
    }
    Ok(Changed {
        digest: digest.to_string(),
        changed,
    })
}

/// Reads a blob again, and fetches what is not what it should be.
async fn verify(parts: Arc<Parts>, digest: Digest) -> Result<Verified, ApiError> {
    let Some(file) = parts.file(&digest) else {
        return Err(ApiError::NotFound(format!("{digest} is not in the store")));
    };
    let (blob, checked) = (file.blob(), file.clone());
    let damaged = on_disk(move || checked.verify_all(|_, _| {})).await?;
    if !damaged.is_empty() {
        repairing::found_damaged(&parts, blob, &damaged).await;
        repair(&parts, blob).await?;
    }
    let damaged = damaged.iter().map(|piece| piece.get()).collect();
    Ok(Verified {
        digest: digest.to_string(),
        pieces: blob.geometry().count(),
        damaged,
    })
}

/// Wants a damaged blob again, and waits until it is whole.
async fn repair(parts: &Arc<Parts>, blob: piece::Blob) -> Result<(), ApiError> {
    let Some(source) = repairing::source_of(parts, &blob) else {
        let digest = blob.digest;
        return Err(ApiError::Unavailable(format!(
            "{digest} is damaged, and nobody noted where it came from: pull it again by its name"
        )));
    };
    let mut watch = parts.watches.of(&blob.digest);
    let failures = watch.now().failures;
    parts.engine.want(blob.digest, Some(blob.size), source, true).await;
    let done = watch.until(|seen| seen.complete || seen.failures > failures);
    let seen = tokio::time::timeout(REPAIR, done).await;
    match seen.as_ref().map(|seen| seen.failed_since(failures)) {
        Ok(None) => Ok(()),
        Ok(Some(failure)) => Err(ApiError::Unavailable(format!(
            "damaged, and could not be fetched again: {}",
            failure.message
        ))),
        Err(_) => Err(ApiError::Unavailable(
            "damaged, and still being fetched again".to_owned(),
        )),
    }
}
