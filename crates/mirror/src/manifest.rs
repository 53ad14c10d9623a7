//! The media type of a manifest whose registry or referrer named none.

use std::sync::Arc;

use futures::TryStreamExt as _;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::content::{Cut, Opened};

/// Bytes of a manifest that are looked at: what the distribution spec wants registries to accept.
const MAX_MANIFEST: u64 = 4 << 20;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a manifest says that it is; a client compares it with our `Content-Type`.
pub(crate) async fn media_type(manifest: &Opened) -> Result<String, Cut> {
    if manifest.blob.size > MAX_MANIFEST {
        return Ok(IMAGE.to_owned());
    }
    let parts = Arc::clone(&manifest.content).read(0..manifest.blob.size);
    let bytes = parts.try_fold(Vec::new(), |mut bytes, part| {
        bytes.extend_from_slice(&part);
        std::future::ready(Ok(bytes))
    });
    Ok(of_bytes(&bytes.await?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
}

fn of_bytes(bytes: &[u8]) -> String {
    let manifest = serde_json::from_slice(bytes).unwrap_or(Manifest {
        media_type: None,
        manifests: None,
    });
    manifest
        .media_type
        .unwrap_or_else(|| if manifest.manifests.is_some() { INDEX } else { IMAGE }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_the_manifest_says() {
        assert_eq!(
            of_bytes(br#"{"mediaType":"application/x","manifests":[]}"#),
            "application/x"
        );
        assert_eq!(of_bytes(br#"{"schemaVersion":2,"manifests":[{}]}"#), INDEX);
        assert_eq!(of_bytes(br#"{"schemaVersion":2,"config":{},"layers":[]}"#), IMAGE);
        assert_eq!(of_bytes(b"no JSON at all"), IMAGE);
    }
}
