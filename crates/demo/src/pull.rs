//! What an OCI client does: a manifest by its tag, then every blob that it names, a few at a time, each checked.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use piece::{Blob, Digest};
use sha2::Digest as _;

use crate::DemoError;

/// Blobs fetched at a time, as containerd and modctl do by default or less.
const CONCURRENT: usize = 4;

/// Where a client pulls from: a mirror, or the registry itself.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `http://HOST:PORT/v2/REPOSITORY`, with the registry's name in it where it is a mirror's.
    pub(crate) repository: String,
    pub(crate) tag: &'static str,
}

/// Pulls everything, and says how long it took. `progress` hears of every chunk.
pub(crate) async fn pull(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    progress: &(impl Fn(u64) + Sync),
) -> Result<Duration, DemoError> {
    let begun = Instant::now();
    let manifest = fetch(
        client,
        &format!("{}/manifests/{}", endpoint.repository, endpoint.tag),
        progress,
    )
    .await?;
    stream::iter(named(&manifest).ok_or(DemoError::Manifest)?)
        .map(|blob| async move {
            let url = format!("{}/blobs/{}", endpoint.repository, blob.digest);
            check(client, &url, &blob, progress).await
        })
        .buffer_unordered(CONCURRENT)
        .try_collect::<()>()
        .await?;
    Ok(begun.elapsed())
}

async fn get(client: &reqwest::Client, url: &str) -> Result<reqwest::Response, DemoError> {
    let failed = |error: reqwest::Error| DemoError::Pull {
        url: url.to_owned(),
        reason: error.to_string(),
    };
    client
        .get(url)
        .send()
        .await
        .map_err(failed)?
        .error_for_status()
        .map_err(failed)
}

async fn fetch(client: &reqwest::Client, url: &str, progress: &(impl Fn(u64) + Sync)) -> Result<Vec<u8>, DemoError> {
    let response = get(client, url).await?;
    let body = response.bytes().await;
    let body = body.map_err(|error| DemoError::Pull {
        url: url.to_owned(),
        reason: error.to_string(),
    })?;
    progress(body.len() as u64);
    Ok(body.to_vec())
}

/// Reads a blob to its end, and hashes it as every client does.
async fn check(
    client: &reqwest::Client,
    url: &str,
    blob: &Blob,
    progress: &(impl Fn(u64) + Sync),
) -> Result<(), DemoError> {
    let mut body = get(client, url).await?.bytes_stream();
    let mut hash = sha2::Sha256::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| DemoError::Pull {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
        hash.update(&chunk);
        progress(chunk.len() as u64);
    }
    let got = Digest::from_bytes(hash.finalize().into());
    if got == blob.digest {
        Ok(())
    } else {
        Err(DemoError::WrongBytes {
            expected: blob.digest,
            got,
        })
    }
}

/// The blobs that a manifest names.
fn named(manifest: &[u8]) -> Option<Vec<Blob>> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    let layers = manifest["layers"].as_array()?;
    let descriptors = std::iter::once(&manifest["config"]).chain(layers);
    descriptors
        .map(|descriptor| {
            Some(Blob {
                digest: descriptor["digest"].as_str()?.parse().ok()?,
                size: descriptor["size"].as_u64()?,
            })
        })
        .collect()
}
