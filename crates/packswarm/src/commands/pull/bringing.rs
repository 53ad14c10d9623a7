//! Having the peer fetch blobs into its store before they are linked from there.

use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use modelpack::{Artifact, Fetch as _, Layer, Options, Packing};

use super::progress::Display;
use crate::commands::mirror::Mirror;
use crate::failure::Failure;

/// Attempts in a row that bring not a byte.
const ATTEMPTS: u32 = 6;

/// Reads every file's blob once through the mirror, unless the file or the blob is here: then the store has it.
pub(super) async fn bring(
    mirror: &Mirror,
    artifact: &Artifact,
    output: &Path,
    options: &Options,
    display: &Display,
) -> Result<(), Failure> {
    let needed = artifact
        .layers
        .iter()
        .filter(|layer| is_needed(mirror, layer, output, options));
    let reads = needed.map(|layer| read(mirror, layer, display));
    stream::iter(reads)
        .buffer_unordered(options.concurrency.max(1))
        .try_collect()
        .await
}

fn is_needed(mirror: &Mirror, layer: &Layer, output: &Path, options: &Options) -> bool {
    let Some(path) = layer
        .path
        .as_ref()
        .filter(|_| layer.packing == Packing::Raw)
        .map(ToString::to_string)
    else {
        return false;
    };
    // One of another content is found out when it is put in place, and streamed then.
    let present = || std::fs::metadata(output.join(&path)).is_ok_and(|file| file.len() == layer.blob.size);
    options.include.matches(&path) && mirror.local(&layer.blob).is_none() && !present()
}

async fn read(mirror: &Mirror, layer: &Layer, display: &Display) -> Result<(), Failure> {
    let path = layer.path.as_ref().map(ToString::to_string).unwrap_or_default();
    let size = layer.blob.size;
    display.bringing(&path, 0, size);
    let (mut at, mut failures) = (0, 0);
    while at < size {
        let before = at;
        let read = async {
            let mut stream = mirror.open(&layer.blob, at).await?;
            while let Some(chunk) = stream.try_next().await? {
                at += chunk.len() as u64;
                display.bringing(&path, at, size);
            }
            Ok::<_, modelpack::FetchError>(())
        };
        let read = read.await;
        failures = if at > before { 0 } else { failures + 1 };
        match read {
            Err(error) if failures >= ATTEMPTS || !matches!(error, modelpack::FetchError::Passing(_)) => {
                return Err(error.into());
            }
            Ok(()) if failures >= ATTEMPTS => {
                return Err(format!("the mirror ends {path} at byte {at} of {size}").into());
            }
            Ok(()) | Err(_) => {}
        }
        if failures > 0 {
            tokio::time::sleep(modelpack::Options::default().patience.pause * failures).await;
        }
    }
    Ok(())
}
