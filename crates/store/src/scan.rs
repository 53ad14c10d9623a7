//! What lies in the data directory when the store opens.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use piece::{Blob, Digest};

use crate::OpenError;
use crate::index::{Index, Slot, Summary};
use crate::layout::{Layout, remove_if_there, sweep};
use crate::side::Side;

/// Reads what is there and removes what an interrupted write left. Also returns the highest epoch that a side file names.
pub(crate) fn scan(layout: &Layout) -> Result<(Index, u64), OpenError> {
    let partial: HashSet<_> = sweep(&layout.partial)?.into_iter().collect();
    let sides: HashSet<_> = sweep(&layout.side)?.into_iter().collect();
    let drop_file = |path: &Path| remove_if_there(path).map_err(OpenError::io("remove the stray", path));
    let mut index = Index::default();
    let mut seen = 0;
    let mut keep = HashSet::new();
    for (digest, complete) in sweep(&layout.blobs)?
        .into_iter()
        .map(|digest| (digest, true))
        .chain(partial.iter().map(|digest| (*digest, false)))
    {
        let path = if complete {
            layout.finished(&digest)
        } else {
            layout.partial(&digest)
        };
        // In both places: verification found bad pieces and was moving it back, so the finished file is the one to drop.
        let superseded = complete && partial.contains(&digest);
        match if superseded {
            None
        } else {
            found(layout, &digest, &path, complete)
        } {
            Some((slot, epoch)) => {
                seen = seen.max(epoch);
                keep.insert(digest);
                index.insert(slot);
            }
            None => drop(drop_file(&path)?),
        }
    }
    for digest in sides.difference(&keep) {
        drop_file(&layout.side(digest))?;
    }
    Ok((index, seen))
}

/// The blob with this file, and the epoch of its side file; `None` if it is worth nothing.
fn found(layout: &Layout, digest: &Digest, path: &Path, complete: bool) -> Option<(Arc<Slot>, u64)> {
    let metadata = fs::metadata(path).ok()?;
    let side_path = layout.side(digest);
    let side = Side::read(&side_path, digest).unwrap_or_else(|error| {
        tracing::warn!(path = %side_path.display(), %error, "cannot read a side file");
        None
    });
    let used = fs::metadata(&side_path)
        .and_then(|side| side.modified())
        .or_else(|_| metadata.modified());
    let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
    match side {
        Some(side) if side.blob.size == metadata.len() => {
            let complete = complete && side.bits.is_full();
            let summary = Summary {
                pieces: side.bits.count(),
                complete,
                meta: side.meta,
            };
            Some((Slot::new(side.blob, summary, used), side.epoch))
        }
        // A finished file can be hashed whole without a side file. One in progress has no midstates then, so no proof.
        None if complete => {
            let blob = Blob {
                digest: *digest,
                size: metadata.len(),
            };
            let summary = Summary {
                pieces: blob.geometry().count(),
                complete,
                ..Summary::default()
            };
            Some((Slot::new(blob, summary, used), 0))
        }
        Some(_) | None => None,
    }
}
