//! What goes bad on the disk: looked for slowly in the background, and fetched again wherever it is found.

use std::sync::Arc;
use std::time::Duration;

use piece::{Blob, Digest, PieceIndex};
use store::BlobFile;
use swarm::node::Input;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use wire::control::Source;

use crate::files;
use crate::parts::Parts;

/// Between two rounds over a store, and before the first.
const ROUND: Duration = Duration::from_secs(60);
/// Before the first round: a node that starts has better things to do.
const FIRST: Duration = Duration::from_secs(2);

/// Reads every piece that is held again, at `rate` bytes per second, round after round until `stop`.
pub(crate) async fn scrub(parts: Arc<Parts>, rate: u64, stop: CancellationToken) {
    if rate == 0 {
        return;
    }
    let rounds = async {
        tokio::time::sleep(FIRST).await;
        loop {
            let mut blobs: Vec<Blob> = parts.store.held().into_iter().map(|held| held.blob).collect();
            blobs.sort_unstable_by_key(|blob| blob.digest);
            for blob in blobs {
                scrub_blob(&parts, blob, rate).await;
            }
            tokio::time::sleep(ROUND).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
}

/// Reads the pieces of one blob again, about a second's worth at a time; in between it may be evicted.
async fn scrub_blob(parts: &Arc<Parts>, blob: Blob, rate: u64) {
    let geometry = blob.geometry();
    let batch = (rate / geometry.piece_len()).clamp(1, u64::from(geometry.count().max(1))) as u32;
    let mut first = 0;
    while first < geometry.count() {
        let its = Arc::clone(parts);
        let checked = spawn_blocking(move || {
            let mut read = 0;
            let file = its.opening(&blob.digest, || its.store.look(&blob.digest))?;
            let bad = file.verify(first..first.saturating_add(batch), |piece, _| {
                read += geometry.len(piece)
            });
            Some((read, bad))
        });
        let Ok(Some((read, bad))) = checked.await else { return };
        parts.metrics.scrubbed(read);
        match bad {
            Ok(bad) if bad.is_empty() => {}
            Ok(bad) => {
                found_damaged(parts, blob, &bad).await;
                if let Some(source) = source_of(parts, &blob) {
                    parts.engine.want(blob.digest, Some(blob.size), source, false).await;
                }
            }
            // It has just been removed, or there was no room to save the rest of it, and so it is gone as well.
            Err(error) => {
                tracing::warn!(digest = %blob.digest, %error, "a blob could not be checked");
                if parts.file(&blob.digest).is_none() {
                    parts.dropped(&blob.digest).await;
                }
                return;
            }
        }
        first += batch;
        tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
    }
}

/// The store has taken damaged pieces out of a blob: neighbours and the scheduler must hear of it.
pub(crate) async fn found_damaged(parts: &Arc<Parts>, blob: Blob, damaged: &[PieceIndex]) {
    let digest = blob.digest;
    tracing::warn!(%digest, damaged = damaged.len(), "pieces are damaged on disk and are fetched again");
    parts.metrics.damaged(damaged.len() as u64);
    let again = parts.file(&digest).map(|file| (file.bitfield(), file.media_type()));
    parts.dropped(&digest).await;
    if let Some((bits, media_type)) = again {
        parts.engine.tell(Input::Opened { blob, bits, media_type }).await;
    }
}

/// A blob was opened for the first time since an unclean stop, and less of it is good than it seemed: the rest is fetched
/// again, as what is found in the background.
pub(crate) fn found_less(parts: &Parts, digest: Digest, file: Option<&BlobFile>) {
    tracing::warn!(%digest, "less of a blob is good than the last session left");
    let engine = parts.engine.clone();
    let rest = file.map(|file| (file.blob(), file.bitfield(), file.media_type()));
    let source = file.and_then(|file| source_of(parts, &file.blob()));
    tokio::spawn(async move {
        engine.tell(Input::Dropped { digest }).await;
        let Some((blob, bits, media_type)) = rest else { return };
        engine.tell(Input::Opened { blob, bits, media_type }).await;
        if let Some(source) = source {
            engine.want(digest, Some(blob.size), source, false).await;
        }
    });
}

/// Where a blob can be read again, as was noted when it came.
pub(crate) fn source_of(parts: &Parts, blob: &Blob) -> Option<Source> {
    let held = parts.store.held().into_iter().find(|held| held.blob == *blob)?;
    held.sources.iter().find_map(|source| files::parse_source(source))
}
