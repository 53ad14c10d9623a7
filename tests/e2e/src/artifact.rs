//! An artifact with a layer of each of ModelPack's twenty media types, pushed through the registry's API.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::http::Request;
use crate::{Lab, Registry, model, tree};

const KINDS: [&str; 5] = ["weight", "weight.config", "doc", "code", "dataset"];
const PACKINGS: [&str; 4] = ["raw", "tar", "tar+gzip", "tar+zstd"];
const REPOSITORY: &str = "models/layer-types";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Several pieces, and not a round number of them.
const RAW_BYTES: usize = 700_001;

/// Makes the artifact in a registry whose storage is `dir`, and what it should unpack to in `dir/files`.
pub(crate) fn push(lab: &Lab, dir: &Path) {
    let files = dir.join("files");
    let registry = model::pushing(lab, dir);
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (number, (kind, packing)) in KINDS
        .iter()
        .flat_map(|kind| PACKINGS.map(|packing| (kind, packing)))
        .enumerate()
    {
        let media_type = format!("application/vnd.cncf.model.{kind}.v1.{packing}");
        let (path, unpacked) = match packing {
            "raw" => raw_file(&files, kind, number),
            _ => directory(&files, kind, packing, number),
        };
        let layer = pack(packing, &unpacked);
        layers.push(json!({
            "mediaType": media_type,
            "digest": upload(registry.address(), REPOSITORY, &layer),
            "size": layer.len(),
            "annotations": { "org.cncf.model.filepath": path }
        }));
        diff_ids.push(Value::from(tree::digest(unpacked.as_slice())));
    }
    let manifest = manifest(registry.address(), REPOSITORY, &layers, &diff_ids);
    put_manifest(registry.address(), REPOSITORY, &manifest);
}

/// Pushes a config, and returns the manifest of it and these layers.
fn manifest(registry: SocketAddr, repository: &str, layers: &[Value], diff_ids: &[Value]) -> Value {
    let config = json!({
        "descriptor": { "name": repository, "family": "e2e" },
        "config": { "architecture": "transformer", "format": "safetensors", "paramSize": "1" },
        "modelfs": { "type": "layers", "diffIds": diff_ids }
    });
    let config = config.to_string().into_bytes();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.model.config.v1+json",
            "digest": upload(registry, repository, &config),
            "size": config.len()
        },
        "layers": layers
    })
}

/// Gives a model of raw weight files with these sizes to a registry that runs, and writes what it should unpack to into
/// `dir/files`. Returns its manifest.
pub(crate) fn place_weights(registry: &Registry, repository: &str, dir: &Path, seed: u64, sizes: &[usize]) -> Vec<u8> {
    let layer = |(number, size): (usize, &usize)| {
        let path = format!("weights-{number:05}.bin");
        // Contents of different seeds and numbers have nothing in common.
        let content = random(seed as usize * 1_000_000 + number, *size);
        write(&dir.join("files").join(&path), &content, 0o644);
        json!({
            "mediaType": "application/vnd.cncf.model.weight.v1.raw",
            "digest": registry.place(repository, &content),
            "size": content.len(),
            "annotations": { "org.cncf.model.filepath": path }
        })
    };
    let layers: Vec<Value> = sizes.iter().enumerate().map(layer).collect();
    let diff_ids: Vec<Value> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let manifest = manifest(registry.address(), repository, &layers, &diff_ids);
    put_manifest(registry.address(), repository, &manifest)
}

/// A file, and its path.
fn raw_file(files: &Path, kind: &str, number: usize) -> (String, Vec<u8>) {
    let path = format!("raw/{kind}/file.bin");
    let content = random(number, RAW_BYTES + number);
    write(&files.join(&path), &content, 0o644);
    (path, content)
}

/// A directory's archive, and its path.
fn directory(files: &Path, kind: &str, packing: &str, number: usize) -> (String, Vec<u8>) {
    let path = format!("packed/{kind}/{}", packing.replace('+', "-"));
    let dir = files.join(&path);
    write(&dir.join("first.bin"), &random(number, 300_000 + number), 0o644);
    write(&dir.join("deep/er/run.sh"), b"#!/bin/sh\necho packed\n", 0o755);
    write(&dir.join("empty"), b"", 0o600);
    let mut archive = tar::Builder::new(Vec::new());
    archive.mode(tar::HeaderMode::Complete);
    archive.append_dir_all(&path, &dir).expect("it was just written");
    (path, archive.into_inner().expect("memory takes everything"))
}

fn pack(packing: &str, unpacked: &[u8]) -> Vec<u8> {
    let packed: io::Result<_> = match packing {
        "tar+gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(unpacked).and_then(|()| encoder.finish())
        }
        "tar+zstd" => zstd::encode_all(unpacked, 1),
        _ => Ok(unpacked.to_vec()),
    };
    packed.expect("memory takes everything")
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().expect("it is below the directory")).expect("target/ is writable");
    let mut file = File::create(path).expect("target/ is writable");
    file.write_all(content).expect("there is room on the disk");
    file.set_permissions(fs::Permissions::from_mode(mode))
        .expect("it is ours");
}

fn random(seed: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed as u64).fill_bytes(&mut bytes);
    bytes
}

/// Pushes a blob, and returns its digest.
fn upload(registry: SocketAddr, repository: &str, content: &[u8]) -> String {
    let digest = tree::digest(content);
    let path = format!("/v2/{repository}/blobs/uploads/");
    let begun = Request::new("POST", registry, &path).send();
    assert_eq!(begun.status, 202, "{}", begun.text());
    let location = begun.header("location").expect("an upload has a location");
    let (_, path) = location
        .split_once(&registry.to_string())
        .expect("it is at the same registry");
    let path = format!("{path}&digest={digest}");
    let request = Request::new("PUT", registry, &path).header("Content-Type", "application/octet-stream");
    let answer = request.body(content).send();
    assert_eq!(answer.status, 201, "{}", answer.text());
    digest
}

fn put_manifest(registry: SocketAddr, repository: &str, manifest: &Value) -> Vec<u8> {
    let manifest = manifest.to_string().into_bytes();
    let path = format!("/v2/{repository}/manifests/v1");
    let request = Request::new("PUT", registry, &path).header("Content-Type", MANIFEST);
    let answer = request.body(&manifest).send();
    assert_eq!(answer.status, 201, "{}", answer.text());
    manifest
}
