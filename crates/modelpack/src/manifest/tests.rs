use serde_json::{Value, json};

use super::*;
use crate::PathError;

const KINDS: [(&str, LayerKind); 5] = [
    ("weight", LayerKind::Weight),
    ("weight.config", LayerKind::WeightConfig),
    ("doc", LayerKind::Doc),
    ("code", LayerKind::Code),
    ("dataset", LayerKind::Dataset),
];
const PACKINGS: [(&str, Packing); 4] = [
    ("raw", Packing::Raw),
    ("tar", Packing::Tar),
    ("tar+gzip", Packing::TarGzip),
    ("tar+zstd", Packing::TarZstd),
];

fn descriptor(media_type: &str, annotations: Value) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(media_type.as_bytes()).to_string(),
        "size": 7,
        "annotations": annotations,
    })
}

fn manifest(generation: &str, layers: Vec<Value>) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": format!("application/vnd.{generation}.model.manifest.v1+json"),
        "config": descriptor(&format!("application/vnd.{generation}.model.config.v1+json"), json!({})),
        "layers": layers,
    })
}

fn read(manifest: &Value) -> Result<Artifact, ManifestError> {
    parse(manifest.to_string().as_bytes())
}

fn one_layer(annotations: Value) -> Result<Artifact, ManifestError> {
    read(&manifest(
        "cncf",
        vec![descriptor("application/vnd.cncf.model.weight.v1.raw", annotations)],
    ))
}

#[test]
fn knows_all_twenty_types_in_both_generations() {
    for generation in ["cncf", "cnai"] {
        let types: Vec<_> = KINDS
            .iter()
            .flat_map(|kind| PACKINGS.iter().map(move |packing| (kind, packing)))
            .collect();
        let layers = types
            .iter()
            .map(|((kind, _), (packing, _))| {
                let path = format!("org.{generation}.model.filepath");
                let media_type = format!("application/vnd.{generation}.model.{kind}.v1.{packing}");
                descriptor(&media_type, json!({ path: format!("{kind}/{packing}") }))
            })
            .collect();
        let artifact = read(&manifest(generation, layers)).unwrap();
        assert_eq!(artifact.layers.len(), 20);
        assert_eq!(artifact.size(), 20 * 7);
        for (layer, ((kind_name, kind), (packing_name, packing))) in artifact.layers.iter().zip(types) {
            assert_eq!((layer.kind, layer.packing), (*kind, *packing));
            assert_eq!(
                layer.path.as_ref().unwrap().as_str(),
                format!("{kind_name}/{packing_name}")
            );
        }
    }
}

#[test]
fn reads_metadata_as_modctl_writes_it() {
    let text = r#"{"name":"a.bin","mode":420,"uid":1000,"gid":1000,"size":7,"mtime":"2025-11-30T12:34:56.5+08:00","typeflag":0}"#;
    let artifact = one_layer(json!({
        "org.cnai.model.filepath": "w/a.bin",
        "org.cnai.model.file.metadata+json": text,
        "org.opencontainers.image.title": "title.bin",
    }));
    let layer = &artifact.unwrap().layers[0];
    let metadata = layer.metadata.as_ref().unwrap();
    assert_eq!(
        (metadata.mode, metadata.uid, metadata.size, metadata.is_file()),
        (0o644, 1000, 7, true)
    );
    assert_eq!(
        metadata.mtime,
        Some(Mtime {
            seconds: 1_764_477_296,
            nanos: 500_000_000
        })
    );
    assert_eq!(layer.path.as_ref().unwrap().as_str(), "w/a.bin");
    assert_eq!(layer.title.as_deref(), Some("title.bin"));
}

#[test]
fn a_title_names_a_raw_file_without_a_path() {
    let artifact = one_layer(json!({ "org.opencontainers.image.title": "title.bin" })).unwrap();
    assert_eq!(artifact.layers[0].path.as_ref().unwrap().as_str(), "title.bin");
    assert!(matches!(one_layer(json!({})), Err(ManifestError::NoPath { index: 0 })));
    let archive = descriptor(
        "application/vnd.cncf.model.code.v1.tar",
        json!({ "org.cncf.model.filepath": "./" }),
    );
    assert_eq!(read(&manifest("cncf", vec![archive])).unwrap().layers[0].path, None);
}

#[test]
fn names_what_is_no_modelpack() {
    let mut kit = manifest("cncf", vec![]);
    kit.as_object_mut().unwrap().remove("artifactType");
    kit["config"]["mediaType"] = json!("application/vnd.kitops.modelkit.config.v1+json");
    let error = read(&kit).unwrap_err();
    assert!(
        error.to_string().contains("vnd.kitops.modelkit.config.v1+json"),
        "{error}"
    );

    kit["config"]["mediaType"] = json!("application/vnd.cnai.model.config.v1+json");
    assert!(
        read(&kit).is_ok(),
        "the config's type is enough: some tools drop the artifact type"
    );

    let digest = Digest::of(b"manifest").to_string();
    let index = json!({ "schemaVersion": 2, "manifests": vec![json!({ "digest": digest, "size": 1 }); 10] });
    let error = read(&index).unwrap_err().to_string();
    assert!(error.contains(&digest) && error.contains("and 2 more"), "{error}");

    let layer = descriptor("application/vnd.cncf.model.weight.v1.tar+lz4", json!({}));
    let error = read(&manifest("cncf", vec![layer])).unwrap_err();
    assert!(matches!(error, ManifestError::UnknownLayer { index: 0, ref media_type } if media_type.ends_with("lz4")));
    assert!(matches!(parse(b"<html>"), Err(ManifestError::Json(_))));
}

#[test]
fn refuses_hostile_layers() {
    for (path, want) in [
        ("/etc/passwd", PathError::Absolute),
        ("../x", PathError::Parent),
        ("C:\\x", PathError::Windows),
        (".packswarm/journal", PathError::Reserved),
    ] {
        let error = one_layer(json!({ "org.cncf.model.filepath": path })).unwrap_err();
        assert!(
            matches!(error, ManifestError::Path { reason, .. } if reason == want),
            "{path}"
        );
    }
    let mut sha512 = manifest("cncf", vec![]);
    sha512["config"]["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
    assert!(matches!(read(&sha512), Err(ManifestError::Digest { .. })));
    let mut huge = manifest("cncf", vec![]);
    huge["config"]["size"] = json!(u64::MAX);
    assert!(matches!(read(&huge), Err(ManifestError::TooLarge { .. })));
    let mut negative = manifest("cncf", vec![]);
    negative["config"]["size"] = json!(-1);
    assert!(matches!(read(&negative), Err(ManifestError::Json(_))));
    let error = one_layer(
        json!({ "org.cncf.model.filepath": "x", "org.cncf.model.file.metadata+json": "{\"mtime\":\"now\"}" }),
    );
    assert!(matches!(error, Err(ManifestError::Metadata { index: 0, .. })));
}

#[test]
fn counts_and_lengths_are_bounded() {
    let raw = json!({
        "mediaType": "application/vnd.cncf.model.doc.v1.tar", "digest": Digest::EMPTY.to_string(), "size": 0,
    });
    assert_eq!(
        read(&manifest("cncf", vec![raw.clone(); 65_536])).unwrap().layers.len(),
        65_536
    );
    let error = read(&manifest("cncf", vec![raw; 65_537])).unwrap_err();
    assert!(matches!(error, ManifestError::TooManyLayers { layers: 65_537 }));
    assert!(matches!(
        parse(&vec![b' '; MAX_MANIFEST_LEN + 1]),
        Err(ManifestError::TooLong { .. })
    ));
}
