//! Manifests and configs of artifacts.

use modelpack::manifest::{MAX_BLOB_SIZE, MAX_LAYERS};
use modelpack::{Config, LayerKind, Packing, TreePath, manifest};

use crate::Decoder;

pub(crate) const DECODER: Decoder = Decoder {
    name: "manifest",
    check,
    words: &[
        "\"mediaType\":",
        "\"layers\":[",
        "\"manifests\":[]",
        "\"digest\":\"sha256:",
        "\"size\":-1",
        "\"size\":18446744073709551615",
        "\"artifactType\":",
        "application/vnd.cncf.model.",
        "application/vnd.cnai.model.",
        "v1.tar+gzip",
        "v1.raw",
        "org.cncf.model.filepath",
        "../",
        "\\u0000",
        "\"modelfs\":{\"diffIds\":[",
        "{},",
        "[",
    ],
    max_len: 64 << 10,
    memory: 4 << 20,
};

fn check(bytes: &[u8]) {
    if let Ok(config) = Config::parse(bytes) {
        assert!(
            config.diff_ids.len() * 64 <= bytes.len(),
            "each of them was written out"
        );
    }
    let artifact = match manifest::parse(bytes) {
        Ok(artifact) => artifact,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(artifact.layers.len() <= MAX_LAYERS && artifact.config.size <= MAX_BLOB_SIZE);
    let mut sum = 0_u64;
    for layer in &artifact.layers {
        assert!(layer.blob.size <= MAX_BLOB_SIZE);
        sum += layer.blob.size;
        assert!(
            layer.packing != Packing::Raw || layer.path.is_some(),
            "a file has a name"
        );
        assert!(layer.media_type.starts_with("application/vnd.c"));
        assert!(matches!(
            layer.kind,
            LayerKind::Weight | LayerKind::WeightConfig | LayerKind::Doc | LayerKind::Code | LayerKind::Dataset
        ));
        layer.path.iter().for_each(stays_below);
    }
    assert_eq!(artifact.size(), sum);
}

/// A path that was accepted is plain names, and itself when it is read again.
pub(crate) fn stays_below(path: &TreePath) {
    let text = path.as_str();
    assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..")));
    assert!(!text.starts_with(".packswarm/") && text != ".packswarm");
    assert!(!text.chars().any(|c| c.is_control() || c == '\\'));
    assert!(text.len() <= 4095);
    assert_eq!(TreePath::parse(text).as_ref(), Ok(path));
}
