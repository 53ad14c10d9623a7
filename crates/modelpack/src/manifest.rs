//! ModelPack manifests: an OCI image manifest with model media types.
//!
//! Two generations are in use: `vnd.cncf.model.*` as the specification has it, and `vnd.cnai.model.*` from before the
//! project joined the CNCF, which modctl 0.2 still writes. They differ in nothing but the names.

mod error;
mod media;

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageManifest};
use piece::{Blob, Digest};
use serde::Deserialize;

pub use error::ManifestError;
pub use media::{LayerKind, Packing};

use crate::{Mtime, TreePath};

/// Longest manifest read. The distribution specification asks registries for 4 MiB; 65,536 terse layers need 16.
pub const MAX_MANIFEST_LEN: usize = 16 << 20;
/// Most layers of an artifact.
pub const MAX_LAYERS: usize = 65_536;
/// Largest blob of an artifact, 64 TiB: far above any model, far below where sums could overflow.
pub const MAX_BLOB_SIZE: u64 = 64 << 40;

/// Says what a file is called when its layer has no path (OCI image specification, pre-defined annotations).
const TITLE: &str = "org.opencontainers.image.title";

/// A ModelPack artifact, as its manifest describes it. Every path in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The model config's blob.
    pub config: Blob,
    /// The layers, in the manifest's order.
    pub layers: Vec<Layer>,
}

impl Artifact {
    /// Bytes of all layers, compressed as they are.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.blob.size).sum()
    }
}

/// One layer: a file as it is, or an archive of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What to fetch.
    pub blob: Blob,
    /// As the manifest has it.
    pub media_type: String,
    /// What is in it.
    pub kind: LayerKind,
    /// How it is packed.
    pub packing: Packing,
    /// Where the file goes: the file path annotation, else (for a raw layer) the title. A raw layer always has one. Of
    /// an archive it is a hint, what was packed; the paths inside count.
    pub path: Option<TreePath>,
    /// What is known of the file.
    pub metadata: Option<FileMetadata>,
    /// The title annotation, as CRI-O names artifact files.
    pub title: Option<String>,
}

/// What the file metadata annotation says. Owner and group are read for completeness and never applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileMetadata {
    /// Name without directories.
    pub name: String,
    /// Permission bits and others; only `& 0o777` is ever applied.
    pub mode: u32,
    /// Owner where it was packed.
    pub uid: u32,
    /// Group where it was packed.
    pub gid: u32,
    /// Bytes before packing.
    pub size: u64,
    /// Last modification, if known.
    pub mtime: Option<Mtime>,
    /// 0 or `'0'` for a file, 5 or `'5'` for a directory: writers do not agree.
    pub typeflag: u8,
}

impl FileMetadata {
    /// Whether this describes one regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.typeflag, 0 | b'0')
    }
}

/// Reads a manifest.
///
/// # Errors
/// It is no ModelPack manifest (the error names what it is instead), or one that cannot be unpacked safely.
pub fn parse(bytes: &[u8]) -> Result<Artifact, ManifestError> {
    if bytes.len() > MAX_MANIFEST_LEN {
        return Err(ManifestError::TooLong { len: bytes.len() });
    }
    refuse_index(bytes)?;
    let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    let artifact_type = manifest.artifact_type().as_ref().map(ToString::to_string);
    let config_type = manifest.config().media_type().to_string();
    if !artifact_type.as_deref().is_some_and(media::is_model_manifest) && !media::is_model_config(&config_type) {
        return Err(ManifestError::NotModelPack {
            found: artifact_type.unwrap_or(config_type),
        });
    }
    if manifest.layers().len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers {
            layers: manifest.layers().len(),
        });
    }
    let config = blob(manifest.config(), || "the config".to_owned())?;
    let layers = manifest
        .layers()
        .iter()
        .enumerate()
        .map(|(index, descriptor)| layer(index, descriptor));
    Ok(Artifact {
        config,
        layers: layers.collect::<Result<_, _>>()?,
    })
}

/// KitOps packs ModelKits for several uses behind one index; which one is meant only the user can tell.
fn refuse_index(bytes: &[u8]) -> Result<(), ManifestError> {
    #[derive(Deserialize)]
    struct Probe {
        manifests: Option<Vec<Entry>>,
    }
    #[derive(Deserialize)]
    struct Entry {
        digest: String,
    }
    match serde_json::from_slice::<Probe>(bytes) {
        Ok(Probe {
            manifests: Some(entries),
        }) => Err(ManifestError::Index {
            digests: entries.into_iter().map(|entry| entry.digest).collect(),
        }),
        Ok(Probe { manifests: None }) => Ok(()),
        Err(source) => Err(ManifestError::Json(source)),
    }
}

fn layer(index: usize, descriptor: &Descriptor) -> Result<Layer, ManifestError> {
    let media_type = descriptor.media_type().to_string();
    let Some((kind, packing)) = media::layer(&media_type) else {
        return Err(ManifestError::UnknownLayer { index, media_type });
    };
    let none = HashMap::new();
    let annotations = descriptor.annotations().as_ref().unwrap_or(&none);
    let title = annotations.get(TITLE).cloned();
    let path = layer_path(
        index,
        packing,
        media::FILE_PATH.iter().find_map(|key| annotations.get(*key)),
        title.as_ref(),
    )?;
    let metadata = media::FILE_METADATA
        .iter()
        .find_map(|key| annotations.get(*key))
        .map(|json| metadata(index, json))
        .transpose()?;
    let blob = blob(descriptor, || format!("layer {index}"))?;
    Ok(Layer {
        blob,
        media_type,
        kind,
        packing,
        path,
        metadata,
        title,
    })
}

fn layer_path(
    index: usize,
    packing: Packing,
    annotated: Option<&String>,
    title: Option<&String>,
) -> Result<Option<TreePath>, ManifestError> {
    let whole_tree = |text: &&String| matches!(text.trim_end_matches('/'), "" | ".");
    let text = match packing {
        Packing::Raw => annotated.or(title).ok_or(ManifestError::NoPath { index })?,
        // An archive may well be of the whole tree, and needs no name.
        Packing::Tar | Packing::TarGzip | Packing::TarZstd => match annotated.filter(|text| !whole_tree(text)) {
            Some(text) => text,
            None => return Ok(None),
        },
    };
    let path = TreePath::parse(text).map_err(|reason| ManifestError::Path {
        index,
        path: text.clone(),
        reason,
    })?;
    Ok(Some(path))
}

fn metadata(index: usize, json: &str) -> Result<FileMetadata, ManifestError> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Annotation {
        name: String,
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        mtime: Option<String>,
        typeflag: u8,
    }
    let bad = |reason: String| ManifestError::Metadata { index, reason };
    let read: Annotation = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
    let mtime = read.mtime.map(|text| {
        text.parse::<Mtime>()
            .map_err(|error| bad(format!("mtime `{text}` is {error}")))
    });
    let Annotation {
        name,
        mode,
        uid,
        gid,
        size,
        mtime: _,
        typeflag,
    } = read;
    let mtime = mtime.transpose()?.filter(|mtime| !mtime.is_unset());
    Ok(FileMetadata {
        name,
        mode,
        uid,
        gid,
        size,
        mtime,
        typeflag,
    })
}

fn blob(descriptor: &Descriptor, what: impl Fn() -> String) -> Result<Blob, ManifestError> {
    let text = descriptor.digest().to_string();
    let digest: Digest = match text.parse() {
        Ok(digest) => digest,
        Err(reason) => {
            return Err(ManifestError::Digest {
                what: what(),
                digest: text,
                reason,
            });
        }
    };
    let size = descriptor.size();
    if size > MAX_BLOB_SIZE {
        return Err(ManifestError::TooLarge { what: what(), size });
    }
    Ok(Blob { digest, size })
}

#[cfg(test)]
mod tests;
