//! ModelPack artifacts: files as layers, a config, and a manifest (model-spec, `docs/spec.md` and `docs/config.md`).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use piece::{Blob, Digest};
use serde_json::{Value, json};

use crate::content::Content;

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.cncf.model.config.v1+json";

/// A model in a registry.
#[derive(Debug, Clone)]
pub struct Artifact {
    manifest: Content,
    body: Bytes,
    config: Content,
    files: Vec<File>,
}

/// One file of a model, as the layer that holds it.
#[derive(Debug, Clone)]
pub struct File {
    /// Where it is unpacked, with `/` between components.
    pub path: String,
    /// The layer's media type.
    pub media_type: String,
    /// Permission bits.
    pub mode: u32,
    /// Modification time in seconds since 1970.
    pub mtime: u64,
    /// The layer's bytes.
    pub content: Content,
}

/// Why a directory is no model.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Something cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A name that JSON cannot hold.
    #[error("the name of {} is not UTF-8, which ModelPack paths must be", .0.display())]
    Name(PathBuf),
    /// Nothing to serve.
    #[error("there is no file in {}", .0.display())]
    Empty(PathBuf),
}

impl Artifact {
    /// The regular files below `root`, each an uncompressed layer. Reads all of them once, for their digests; they must
    /// not change from now on. Links are skipped.
    ///
    /// # Errors
    /// If the directory or a file cannot be read, or there is none.
    pub fn from_dir(root: &Path) -> Result<Self, ArtifactError> {
        let paths = regular_files(root)?;
        if paths.is_empty() {
            return Err(ArtifactError::Empty(root.to_path_buf()));
        }
        let files = in_parallel(&paths, |path| file(root, path))
            .into_iter()
            .collect::<Result<_, _>>()?;
        let name = root.file_name().and_then(|name| name.to_str()).unwrap_or("model");
        Ok(Self::from_files(name, files))
    }

    /// These files, whose layers may be of any media type.
    pub fn from_files(name: &str, files: Vec<File>) -> Self {
        let diff_ids: Vec<_> = files.iter().map(|file| file.content.digest().to_string()).collect();
        let size: u64 = files.iter().map(|file| file.content.size()).sum();
        let config = Content::bytes(pretty(&json!({
            "descriptor": { "createdAt": "2026-01-01T00:00:00Z", "name": name, "family": "packswarm" },
            "config": {
                "architecture": "transformer",
                "format": "safetensors",
                "paramSize": size.div_ceil(2).to_string(),
                "precision": "bfloat16"
            },
            "modelfs": { "type": "layers", "diffIds": diff_ids }
        })));
        let body = Bytes::from(pretty(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": files.iter().map(layer).collect::<Vec<_>>()
        })));
        Self {
            manifest: Content::bytes(body.clone()),
            body,
            config,
            files,
        }
    }

    /// The manifest's bytes.
    pub const fn manifest(&self) -> &Bytes {
        &self.body
    }

    /// The manifest's digest.
    pub const fn digest(&self) -> Digest {
        self.manifest.digest()
    }

    /// Its files, in the manifest's order.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.content.size()).sum()
    }

    /// Every blob that a cold pull takes from the registry, once each: manifest, config, layers.
    pub fn blobs(&self) -> Vec<Blob> {
        let contents = self.contents().chain([&self.manifest]);
        let mut blobs: Vec<_> = contents
            .map(|content| Blob {
                digest: content.digest(),
                size: content.size(),
            })
            .collect();
        blobs.sort_unstable();
        blobs.dedup();
        blobs
    }

    /// What is served from `blobs/`.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &Content> {
        self.files.iter().map(|file| &file.content).chain([&self.config])
    }
}

/// `work` on every item, on all cores, results in order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(items.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    done.lock().expect("no thread panics with the lock").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics with the lock");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The layer type for a file of this name.
pub(crate) fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "safetensors" | "bin" | "gguf" | "pt" | "pth" | "onnx" => "application/vnd.cncf.model.weight.v1.raw",
        "md" | "pdf" | "rst" | "html" | "png" | "jpg" => "application/vnd.cncf.model.doc.v1.raw",
        "py" | "sh" | "ipynb" | "cpp" | "cu" => "application/vnd.cncf.model.code.v1.raw",
        "parquet" | "jsonl" | "csv" | "arrow" => "application/vnd.cncf.model.dataset.v1.raw",
        _ if matches!(name, "LICENSE" | "README" | "NOTICE") => "application/vnd.cncf.model.doc.v1.raw",
        _ => "application/vnd.cncf.model.weight.config.v1.raw",
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("a JSON value can be written")
}

fn descriptor(media_type: &str, content: &Content) -> Value {
    json!({ "mediaType": media_type, "digest": content.digest().to_string(), "size": content.size() })
}

fn layer(file: &File) -> Value {
    let metadata = json!({
        "name": file.path.rsplit('/').next().unwrap_or(&file.path),
        "mode": file.mode,
        "uid": 0,
        "gid": 0,
        "size": file.content.size(),
        "mtime": rfc3339(file.mtime),
        // A regular file, as tar numbers them: the character 0.
        "typeflag": b'0'
    });
    let mut layer = descriptor(&file.media_type, &file.content);
    layer["annotations"] = json!({
        "org.cncf.model.filepath": file.path,
        "org.cncf.model.file.metadata+json": metadata.to_string(),
        "org.cncf.model.file.mediatype.untested": "false"
    });
    layer
}

fn file(root: &Path, path: &Path) -> Result<File, ArtifactError> {
    let read = |error| ArtifactError::Read {
        path: path.to_path_buf(),
        error,
    };
    let relative = path.strip_prefix(root).unwrap_or(path);
    let name = relative
        .to_str()
        .ok_or_else(|| ArtifactError::Name(path.to_path_buf()))?;
    let metadata = std::fs::metadata(path).map_err(read)?;
    let content = Content::file(path).map_err(read)?;
    Ok(File {
        path: name.to_owned(),
        media_type: media_type(name).to_owned(),
        mode: metadata.mode() & 0o777,
        mtime: metadata.mtime().try_into().unwrap_or(0),
        content,
    })
}

fn regular_files(root: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let read = |error| ArtifactError::Read {
            path: directory.clone(),
            error,
        };
        for entry in std::fs::read_dir(&directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let kind = entry.file_type().map_err(read)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// UTC, to the second.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`: years that begin in March, in eras of 400.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn a_directory_becomes_a_modelpack() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/model.safetensors"), b"weights").unwrap();
        std::fs::write(dir.path().join("config.json"), b"{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let artifact = Artifact::from_dir(dir.path()).unwrap();
        let manifest: Value = serde_json::from_slice(artifact.manifest()).unwrap();
        assert_eq!(manifest["mediaType"], MANIFEST_TYPE);
        assert_eq!(manifest["artifactType"], ARTIFACT_TYPE);
        assert_eq!(manifest["config"]["mediaType"], CONFIG_TYPE);
        let layers = manifest["layers"].as_array().unwrap();
        let paths: Vec<_> = layers
            .iter()
            .map(|l| l["annotations"]["org.cncf.model.filepath"].clone())
            .collect();
        assert_eq!(paths, ["config.json", "sub/model.safetensors"]);
        assert_eq!(layers[1]["mediaType"], "application/vnd.cncf.model.weight.v1.raw");
        assert_eq!(layers[1]["digest"], Digest::of(b"weights").to_string());
        let metadata = layers[1]["annotations"]["org.cncf.model.file.metadata+json"]
            .as_str()
            .unwrap();
        let metadata: Value = serde_json::from_str(metadata).unwrap();
        assert_eq!(
            (&metadata["name"], &metadata["size"]),
            (&json!("model.safetensors"), &json!(7))
        );
        let mut config = vec![0; artifact.config.size() as usize];
        artifact.config.read_at(0, &mut config).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["modelfs"]["diffIds"][1], layers[1]["digest"]);
        assert_eq!((artifact.size(), artifact.blobs().len()), (9, 4));
    }

    #[test]
    fn an_empty_directory_is_no_model() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Artifact::from_dir(dir.path()), Err(ArtifactError::Empty(_))));
        assert!(matches!(
            Artifact::from_dir(&dir.path().join("none")),
            Err(ArtifactError::Read { .. })
        ));
    }
}
