//! The media types and annotation names of both generations.

/// Prefixes of model media types: the specification's, and those from before the project joined the CNCF.
const PREFIXES: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];

/// Annotations with a layer's path, the specification's first.
pub(super) const FILE_PATH: [&str; 2] = ["org.cncf.model.filepath", "org.cnai.model.filepath"];
/// Annotations with a file's metadata, the specification's first.
pub(super) const FILE_METADATA: [&str; 2] = ["org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json"];

/// What is in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// Model weights.
    Weight,
    /// What a loader needs beside them: configuration, tokenizer.
    WeightConfig,
    /// Documents, licences.
    Doc,
    /// Code.
    Code,
    /// Data sets.
    Dataset,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// One file, as it is.
    Raw,
    /// A tar archive.
    Tar,
    /// A tar archive compressed with gzip.
    TarGzip,
    /// A tar archive compressed with zstd.
    TarZstd,
}

/// Whether an artifact type is ModelPack's.
pub(super) fn is_model_manifest(artifact_type: &str) -> bool {
    strip_prefix(artifact_type) == Some("manifest.v1+json")
}

/// Whether a config's media type is ModelPack's.
pub(super) fn is_model_config(media_type: &str) -> bool {
    strip_prefix(media_type) == Some("config.v1+json")
}

/// What a layer's media type says, if it is one of the twenty (in either generation).
pub(super) fn layer(media_type: &str) -> Option<(LayerKind, Packing)> {
    let (kind, packing) = strip_prefix(media_type)?.split_once(".v1.")?;
    let kind = match kind {
        "weight" => LayerKind::Weight,
        "weight.config" => LayerKind::WeightConfig,
        "doc" => LayerKind::Doc,
        "code" => LayerKind::Code,
        "dataset" => LayerKind::Dataset,
        _ => return None,
    };
    let packing = match packing {
        "raw" => Packing::Raw,
        "tar" => Packing::Tar,
        "tar+gzip" => Packing::TarGzip,
        "tar+zstd" => Packing::TarZstd,
        _ => return None,
    };
    Some((kind, packing))
}

fn strip_prefix(media_type: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| media_type.strip_prefix(prefix))
}
