//! Artifacts made in memory, and a source of their blobs that counts what it is asked for and fails on demand.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use modelpack::{Artifact, Event, Fetch, FetchError, Options, Patience, Summary, UnpackError};
use piece::{Blob, Digest};
use serde_json::{Value, json};

/// An artifact in the making.
#[derive(Default)]
pub(crate) struct Model {
    layers: Vec<Value>,
    diff_ids: Vec<String>,
    pub(crate) blobs: HashMap<Digest, Bytes>,
}

impl Model {
    /// A file as it is.
    pub(crate) fn raw(self, path: &str, content: &[u8]) -> Self {
        self.layer(
            "weight.v1.raw",
            json!({ "org.cncf.model.filepath": path }),
            content,
            Digest::of(content),
        )
    }

    /// A file with mode and time.
    pub(crate) fn raw_with(self, path: &str, content: &[u8], mode: u32, mtime: &str) -> Self {
        let metadata = json!({ "name": path, "mode": mode, "uid": 4242, "gid": 4242, "mtime": mtime, "typeflag": 0 });
        let annotations = json!({
            "org.cncf.model.filepath": path,
            "org.cncf.model.file.metadata+json": metadata.to_string(),
        });
        self.layer("weight.v1.raw", annotations, content, Digest::of(content))
    }

    /// An archive, packed as `kind` (`code.v1.tar+gzip`) says.
    pub(crate) fn packed(self, kind: &str, path: &str, tar: &[u8]) -> Self {
        let annotations = if path.is_empty() {
            json!({})
        } else {
            json!({ "org.cncf.model.filepath": path })
        };
        self.layer(kind, annotations, &compress(kind, tar), Digest::of(tar))
    }

    pub(crate) fn layer(mut self, kind: &str, annotations: Value, content: &[u8], diff_id: Digest) -> Self {
        let digest = Digest::of(content);
        self.layers.push(json!({
            "mediaType": format!("application/vnd.cncf.model.{kind}"),
            "digest": digest.to_string(),
            "size": content.len(),
            "annotations": annotations,
        }));
        self.diff_ids.push(diff_id.to_string());
        self.blobs.insert(digest, Bytes::copy_from_slice(content));
        self
    }

    /// What a peer has: artifact, config, and a source of the blobs.
    pub(crate) fn build(self) -> (Artifact, Vec<u8>, Source) {
        let config = json!({ "modelfs": { "type": "layers", "diffIds": self.diff_ids } })
            .to_string()
            .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.cncf.model.config.v1+json",
                "digest": Digest::of(&config).to_string(),
                "size": config.len(),
            },
            "layers": self.layers,
        });
        let artifact = modelpack::manifest::parse(manifest.to_string().as_bytes()).unwrap();
        (artifact, config, Source::new(self.blobs))
    }
}

pub(crate) fn compress(kind: &str, data: &[u8]) -> Vec<u8> {
    if kind.ends_with("+gzip") {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    } else if kind.ends_with("+zstd") {
        zstd::encode_all(data, 3).unwrap()
    } else {
        data.to_vec()
    }
}

/// A source of blobs.
pub(crate) struct Source {
    pub(crate) blobs: HashMap<Digest, Bytes>,
    pub(crate) local: HashMap<Digest, PathBuf>,
    /// Bytes per chunk.
    pub(crate) chunk: usize,
    /// Each stream of a blob ends with a failure after so many bytes.
    pub(crate) cut_after: Option<usize>,
    /// So many of the first streams have a wrong byte.
    pub(crate) lies: AtomicU64,
    /// Failures are of the kind that is not worth another attempt.
    pub(crate) fatal: bool,
    /// Every blob and offset that was asked for.
    pub(crate) asked: Mutex<Vec<(Digest, u64)>>,
    /// Bytes handed out.
    pub(crate) sent: std::sync::Arc<AtomicU64>,
}

impl Source {
    fn new(blobs: HashMap<Digest, Bytes>) -> Self {
        Self {
            blobs,
            local: HashMap::new(),
            chunk: 10_000,
            cut_after: None,
            lies: AtomicU64::new(0),
            fatal: false,
            asked: Mutex::default(),
            sent: std::sync::Arc::default(),
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().drain(..).map(|(_, offset)| offset).collect()
    }
}

impl Fetch for Source {
    async fn open(
        &self,
        blob: &Blob,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        assert!(offset < blob.size, "nothing is asked for beyond the end");
        self.asked.lock().unwrap().push((blob.digest, offset));
        let mut content = self.blobs[&blob.digest].slice(usize::try_from(offset).unwrap()..);
        let lies = |left: u64| left.checked_sub(1);
        if self.lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lies).is_ok() {
            let mut altered = content.to_vec();
            altered[0] ^= 1;
            content = altered.into();
        }
        let given = self.cut_after.map_or(content.len(), |cut| cut.min(content.len()));
        let broken = given < content.len();
        let content = content.slice(..given);
        let mut chunks: Vec<_> = (0..given)
            .step_by(self.chunk)
            .map(|at| Ok(content.slice(at..given.min(at + self.chunk))))
            .collect();
        if broken {
            let reason = Box::new(io::Error::from(io::ErrorKind::ConnectionReset));
            chunks.push(Err(if self.fatal {
                FetchError::Final(reason)
            } else {
                FetchError::Passing(reason)
            }));
        }
        let sent = self.sent.clone();
        let count = move |chunk: &Result<Bytes, FetchError>| {
            if let Ok(chunk) = chunk {
                sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            }
        };
        Ok(stream::iter(chunks).inspect(count).boxed())
    }

    fn local(&self, blob: &Blob) -> Option<PathBuf> {
        self.local.get(&blob.digest).cloned()
    }
}

/// Options whose retries cost no time.
pub(crate) fn options() -> Options {
    let patience = Patience {
        pause: Duration::from_millis(1),
        ..Patience::default()
    };
    Options {
        patience,
        ..Options::default()
    }
}

/// Unpacks, and says what was reported.
pub(crate) async fn unpack_with(
    built: &(Artifact, Vec<u8>, Source),
    dest: &Path,
    options: Options,
) -> (Result<Summary, UnpackError>, Vec<Event>) {
    let events = Mutex::new(Vec::new());
    let (artifact, config, source) = built;
    let report = |event| events.lock().unwrap().push(event);
    let result = modelpack::unpack(artifact, config, dest, options, source, report).await;
    (result, events.into_inner().unwrap())
}

pub(crate) async fn unpack(built: &(Artifact, Vec<u8>, Source), dest: &Path) -> Result<Summary, UnpackError> {
    unpack_with(built, dest, options()).await.0
}

/// What a directory has, less our own: path to contents, `-> target` or `/`.
pub(crate) fn tree(dest: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, at: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let metadata = path.symlink_metadata().unwrap();
            if name == ".packswarm" {
                continue;
            }
            if metadata.is_symlink() {
                into.insert(name, format!("-> {}", path.read_link().unwrap().display()).into_bytes());
            } else if metadata.is_dir() {
                into.insert(name, b"/".to_vec());
                walk(root, &path, into);
            } else {
                into.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    if dest.exists() {
        walk(dest, dest, &mut found);
    }
    found
}

/// Permission bits, set-user-ID and the like included.
pub(crate) fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

pub(crate) fn mtime(path: &Path) -> (i64, i64) {
    let metadata = path.symlink_metadata().unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// An archive in the making; nothing is checked, so hostile ones can be made.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, "", content)
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, "", b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, target, b"")
    }

    /// With a name that need not be text.
    pub(crate) fn raw_file(self, path: &[u8], content: &[u8]) -> Self {
        self.raw_entry(plain(), tar::EntryType::Regular, path, b"", content)
    }

    /// With a target that need not be text.
    pub(crate) fn raw_symlink(self, path: &str, target: &[u8]) -> Self {
        self.raw_entry(plain(), tar::EntryType::Symlink, path.as_bytes(), target, b"")
    }

    pub(crate) fn entry(self, kind: tar::EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        self.entry_with(plain(), kind, path, link, content)
    }

    pub(crate) fn entry_with(
        self,
        header: tar::Header,
        kind: tar::EntryType,
        path: &str,
        link: &str,
        content: &[u8],
    ) -> Self {
        self.raw_entry(header, kind, path.as_bytes(), link.as_bytes(), content)
    }

    fn raw_entry(
        mut self,
        mut header: tar::Header,
        kind: tar::EntryType,
        path: &[u8],
        link: &[u8],
        content: &[u8],
    ) -> Self {
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    /// PAX records for the entry that follows.
    pub(crate) fn pax(mut self, records: &[(&str, &str)]) -> Self {
        self.0
            .append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes())))
            .unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A header as archives of models have it.
fn plain() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_mtime(1_600_000_000);
    header
}
