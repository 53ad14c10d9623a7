//! Models as a registry holds them, made once and kept in `target/e2e-cache` for later runs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::http::Request;
use crate::lab::workspace;
use crate::process::run;
use crate::registry::{Registry, Service};
use crate::{Lab, artifact, tree};

/// Part of every cache entry's name. Count it up when what is below makes something else.
const VERSION: u32 = 1;
/// Generated and written at a time.
const CHUNK: u64 = 4 << 20;
const MIB: u64 = 1 << 20;
/// Of [`Model::weights`]: another one than those of models that are pushed.
const WEIGHTS_SEED: u64 = 77;
/// A mode that is not everybody's default, to see that it arrives.
const SCRIPT_MODE: u32 = 0o755;

/// A model in a registry's storage, with the files that it unpacks to.
#[derive(Debug, Clone)]
pub struct Model {
    dir: PathBuf,
    name: String,
    manifest: Vec<u8>,
    blobs: Vec<Blob>,
}

/// A blob of a model: its config or a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest, as OCI writes it.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// The file that it holds, where it holds one as it is.
    pub path: Option<String>,
}

impl Blob {
    /// The digest without its algorithm's name.
    pub fn hex(&self) -> &str {
        self.digest
            .strip_prefix("sha256:")
            .expect("blobs are named by their SHA-256")
    }
}

impl Model {
    /// The model of the main tests, built by modctl: more than 512 MiB in one large file, three smaller ones and more than
    /// a hundred small ones, in sub-directories, with safetensors headers.
    pub fn large(lab: &Lab) -> Self {
        Self::made(lab, "large", |dir| {
            write_weights(&dir.join("files"), 1, 340 * MIB, 1);
            write_weights(&dir.join("files/experts"), 2, 180 * MIB, 3);
            write_small(&dir.join("files"), 120);
            remove_empty(&dir.join("files"));
            build(lab, dir);
        })
    }

    /// Some 24 MiB in two weight files and a few small ones, built by modctl.
    pub fn small(lab: &Lab) -> Self {
        Self::made(lab, "small", |dir| {
            write_weights(&dir.join("files"), 3, 24 * MIB, 2);
            write_small(&dir.join("files"), 8);
            remove_empty(&dir.join("files"));
            build(lab, dir);
        })
    }

    /// One weight file of about this size and few small ones, an empty one among them, built by modctl.
    pub fn one_file(lab: &Lab, mib: u64) -> Self {
        Self::made(lab, &format!("one-{mib}-mib"), |dir| {
            write_weights(&dir.join("files"), 4, mib * MIB, 1);
            build(lab, dir);
        })
    }

    /// Every media type that a layer may have, put together by hand: modctl does not write most of them.
    pub fn every_layer_type(lab: &Lab) -> Self {
        Self::made(lab, "layer-types", |dir| artifact::push(lab, dir))
    }

    /// Raw weight files of these sizes, given to a registry that runs. Of another seed, all of its contents are others.
    pub fn pushed(lab: &Lab, registry: &Registry, name: &str, seed: u64, sizes: &[usize]) -> Self {
        let dir = lab.dir(format!("pushed-{name}"));
        let repository = format!("models/{name}");
        let manifest = artifact::place_weights(registry, &repository, &dir, seed, sizes);
        let blobs = blobs(&manifest);
        Self {
            dir,
            name: name.to_owned(),
            manifest,
            blobs,
        }
    }

    /// Raw weight files of these sizes, in a registry's storage that lies in the lab.
    pub fn weights(lab: &Lab, name: &str, sizes: &[usize]) -> Self {
        let dir = lab.dir(format!("weights-{name}"));
        let manifest = {
            let registry = pushing(lab, &dir);
            artifact::place_weights(&registry, &format!("models/{name}"), &dir, WEIGHTS_SEED, sizes)
        };
        fs::write(dir.join("manifest.json"), &manifest).expect("the lab is writable");
        share_files(&dir);
        let blobs = blobs(&manifest);
        Self {
            dir,
            name: name.to_owned(),
            manifest,
            blobs,
        }
    }

    /// Takes a model from the cache, or makes it. The lab has the turn, so that nobody else makes it at the same time.
    fn made(lab: &Lab, name: &str, make: impl FnOnce(&Path)) -> Self {
        let cache = workspace().join("target/e2e-cache");
        let dir = cache.join(format!("{name}-v{VERSION}"));
        if !dir.exists() {
            let new = cache.join("new");
            // What an interrupted test has left.
            let _ = fs::remove_dir_all(&new);
            fs::create_dir_all(new.join("files")).expect("target/ is writable");
            fs::write(new.join("name"), name).expect("target/ is writable");
            make(&new);
            save_manifest(lab, &new, name);
            share_files(&new);
            fs::rename(&new, &dir).expect("target/ is writable");
        }
        let manifest = fs::read(dir.join("manifest.json")).expect("the cache is whole; remove target/e2e-cache");
        let blobs = blobs(&manifest);
        Self {
            dir,
            name: name.to_owned(),
            manifest,
            blobs,
        }
    }

    /// The directory that it was made from, and that it unpacks to.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// The registry storage that holds it.
    pub(crate) fn storage(&self) -> &Path {
        &self.dir
    }

    /// Its repository's name.
    pub fn repository(&self) -> String {
        format!("models/{}", self.name)
    }

    /// Its name in full, at this registry.
    pub fn reference(&self, registry: impl std::fmt::Display) -> String {
        format!("{registry}/{}:v1", self.repository())
    }

    /// Its manifest's bytes.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Its manifest's digest.
    pub fn digest(&self) -> String {
        tree::digest(self.manifest.as_slice())
    }

    /// Its config and layers, each content once.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// The largest of its blobs.
    pub fn largest(&self) -> &Blob {
        self.blobs
            .iter()
            .max_by_key(|blob| blob.size)
            .expect("a model has layers")
    }

    /// Panics unless each blob is, at the path that `at` names, what was pushed.
    pub fn assert_blobs(&self, at: impl Fn(&Blob) -> PathBuf) {
        for blob in &self.blobs {
            match &blob.path {
                Some(path) => tree::assert_same_bytes(&self.files().join(path), &at(blob)),
                None => assert_eq!(tree::digest_of(&at(blob)), blob.digest),
            }
        }
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }
}

/// Writes a generated model's files: weights with true safetensors headers, and a dozen small files.
fn write_weights(dir: &Path, seed: u64, size: u64, shards: u32) {
    for file in testbed::Artifact::generate_sharded(seed, size, shards).files() {
        let path = dir.join(&file.path);
        fs::create_dir_all(path.parent().expect("it is below the directory")).expect("target/ is writable");
        let mut to = File::create(&path).expect("target/ is writable");
        let mut offset = 0;
        while offset < file.content.size() {
            let length = CHUNK.min(file.content.size() - offset);
            let mut chunk = vec![0; usize::try_from(length).expect("a chunk fits memory")];
            file.content
                .read_at(offset, &mut chunk)
                .expect("generated content can be read");
            to.write_all(&chunk).expect("there is room on the disk");
            offset += length;
        }
    }
}

/// Writes small files of several kinds and sizes into sub-directories.
fn write_small(dir: &Path, count: usize) {
    for number in 0..count {
        let (folder, extension) = match number % 4 {
            0 => ("configs", "json"),
            1 => ("docs/pages", "md"),
            2 => ("code/deep/er", "py"),
            _ => ("tokenizer", "json"),
        };
        let path = dir.join(folder).join(format!("file-{number:03}.{extension}"));
        fs::create_dir_all(path.parent().expect("it is below the directory")).expect("target/ is writable");
        let line = format!("# line of file {number}\n");
        fs::write(&path, line.repeat(1 + number * 37 % 4000)).expect("target/ is writable");
        if extension == "py" {
            fs::set_permissions(&path, fs::Permissions::from_mode(SCRIPT_MODE)).expect("it is ours");
        }
    }
}

/// containerd does not fetch empty blobs from anybody. Other models have them.
fn remove_empty(dir: &Path) {
    for (path, _) in tree::files(dir).iter().filter(|(_, size)| **size == 0) {
        fs::remove_file(dir.join(path)).expect("it is ours");
    }
}

/// Builds the files in `dir` with modctl and pushes them to a registry whose storage is `dir`.
fn build(lab: &Lab, dir: &Path) {
    let name = fs::read_to_string(dir.join("name")).expect("it was just written");
    let files = dir.join("files");
    let mut modelfile =
        format!("NAME {name}\nARCH transformer\nFAMILY e2e\nFORMAT safetensors\nPARAMSIZE 1\nPRECISION bf16\n");
    for path in tree::files(&files).keys() {
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => "MODEL",
            Some("py") => "CODE",
            Some("md") => "DOC",
            _ => "CONFIG",
        };
        modelfile += &format!("{kind} {}\n", path.display());
    }
    let modelfile = lab.file(format!("Modelfile-{name}"), &modelfile);
    let registry = pushing(lab, dir);
    let reference = format!("{}/models/{name}:v1", registry.address());
    let storage = lab.dir("modctl");
    let modctl = |arguments: &[&str]| {
        let mut command = Command::new(workspace().join("target/tools/modctl"));
        command
            .arg("--storage-dir")
            .arg(&storage)
            .arg("--log-dir")
            .arg(lab.path("modctl-log"))
            .arg("--no-progress");
        command.args(arguments);
        command
    };
    let mut command = modctl(&["build", "--no-creation-time", "-t", &reference]);
    run(command.arg("-f").arg(modelfile).arg(files));
    run(&mut modctl(&["push", "--plain-http", &reference]));
    fs::remove_dir_all(storage).expect("it is ours");
}

/// A registry to push to, whose storage is `dir`.
pub(crate) fn pushing(lab: &Lab, dir: &Path) -> Registry {
    Registry::on(
        &lab.dir("pushing"),
        "pushing",
        dir,
        &lab.log("pushing"),
        Service::Open,
        None,
    )
}

/// Notes what the registry serves under the tag.
fn save_manifest(lab: &Lab, dir: &Path, name: &str) {
    let registry = pushing(lab, dir);
    let path = format!("/v2/models/{name}/manifests/v1");
    let accept = "application/vnd.oci.image.manifest.v1+json";
    let answer = Request::get(registry.address(), &path).header("Accept", accept).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    fs::write(dir.join("manifest.json"), &answer.body).expect("target/ is writable");
}

/// Has the registry's storage and the model's directory share what is large and the same.
fn share_files(dir: &Path) {
    let manifest = fs::read(dir.join("manifest.json")).expect("it was just written");
    for blob in blobs(&manifest).iter().filter(|blob| blob.size > MIB) {
        let Some(path) = &blob.path else { continue };
        let file = dir.join("files").join(path);
        assert_eq!(tree::digest_of(&file), blob.digest, "{path} was pushed as it is");
        let data = format!(
            "docker/registry/v2/blobs/sha256/{}/{}/data",
            &blob.hex()[..2],
            blob.hex()
        );
        let shared = fs::remove_file(dir.join(&data)).and_then(|()| fs::hard_link(&file, dir.join(&data)));
        shared.expect("the registry keeps a blob in a file");
    }
}

fn blobs(manifest: &[u8]) -> Vec<Blob> {
    let manifest: Value = serde_json::from_slice(manifest).expect("a manifest is JSON");
    let layers = manifest["layers"].as_array().expect("a model has layers");
    let mut blobs = Vec::new();
    for descriptor in std::iter::once(&manifest["config"]).chain(layers) {
        let text = |value: &Value| value.as_str().expect("descriptors are whole").to_owned();
        let annotations = &descriptor["annotations"];
        let path = ["org.cnai.model.filepath", "org.cncf.model.filepath"]
            .iter()
            .find_map(|key| annotations[key].as_str());
        let media_type = text(&descriptor["mediaType"]);
        let blob = Blob {
            digest: text(&descriptor["digest"]),
            size: descriptor["size"].as_u64().expect("descriptors are whole"),
            path: path.filter(|_| media_type.ends_with(".raw")).map(str::to_owned),
            media_type,
        };
        if blobs.iter().all(|known: &Blob| known.digest != blob.digest) {
            blobs.push(blob);
        }
    }
    blobs
}
