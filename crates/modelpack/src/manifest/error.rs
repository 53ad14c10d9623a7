//! Why a manifest cannot be unpacked.

use piece::ParseDigestError;

use super::{MAX_BLOB_SIZE, MAX_LAYERS, MAX_MANIFEST_LEN};
use crate::PathError;

/// Digests that an error about an index names; the rest are counted.
const NAMED: usize = 8;

/// Why a manifest cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Too long to be read.
    #[error("the manifest has {len} bytes, over the {MAX_MANIFEST_LEN} that packswarm reads")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not an OCI manifest.
    #[error("the manifest is not valid OCI JSON")]
    Json(#[source] serde_json::Error),
    /// An index of manifests.
    #[error(
        "this is an OCI index of several manifests; pull one of them by its digest: {}",
        name(digests)
    )]
    Index {
        /// The manifests it lists.
        digests: Vec<String>,
    },
    /// A container image, a KitOps ModelKit, a Helm chart, ...
    #[error(
        "not a ModelPack artifact: its type is `{found}`; `packswarm pull` unpacks \
         `application/vnd.cncf.model.manifest.v1+json` (other artifacts can still be pulled through the mirror)"
    )]
    NotModelPack {
        /// Its artifact type, else its config's media type.
        found: String,
    },
    /// More layers than supported.
    #[error("the manifest has {layers} layers; at most {MAX_LAYERS} are supported")]
    TooManyLayers {
        /// How many.
        layers: usize,
    },
    /// A layer of a type that the specification does not have.
    #[error("layer {index} has the media type `{media_type}`, which is not one of ModelPack's layer types")]
    UnknownLayer {
        /// Its place in the manifest.
        index: usize,
        /// Its media type.
        media_type: String,
    },
    /// A raw layer that does not say where it goes.
    #[error("layer {index} is a raw file, but neither `org.cncf.model.filepath` nor a title says what it is called")]
    NoPath {
        /// Its place in the manifest.
        index: usize,
    },
    /// A layer that would go where it must not.
    #[error("layer {index} has the path {path:?}, which is refused")]
    Path {
        /// Its place in the manifest.
        index: usize,
        /// What it says.
        path: String,
        /// Why it is refused.
        #[source]
        reason: PathError,
    },
    /// File metadata that makes no sense.
    #[error("the file metadata of layer {index} cannot be read: {reason}")]
    Metadata {
        /// Its place in the manifest.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A digest that cannot be verified.
    #[error("{what} has the digest `{digest}`, which cannot be verified")]
    Digest {
        /// The config, or which layer.
        what: String,
        /// What it says.
        digest: String,
        /// Why it cannot be used.
        #[source]
        reason: ParseDigestError,
    },
    /// A size that no blob has.
    #[error("{what} claims {size} bytes, over the {MAX_BLOB_SIZE} that a blob may have")]
    TooLarge {
        /// The config, or which layer.
        what: String,
        /// What it says.
        size: u64,
    },
}

fn name(digests: &[String]) -> String {
    let named = digests.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match digests.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
