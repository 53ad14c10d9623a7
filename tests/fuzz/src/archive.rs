//! Archives on their way into a directory: whatever they say, nothing outside of it is touched.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use modelpack::{Artifact, Fetch, FetchError, Layer, LayerKind, Limits, Options, Packing, TreePath};
use piece::{Blob, Digest};
use tempfile::TempDir;

use crate::Decoder;
use crate::manifest::stays_below;

/// Entries that an archive may have, bytes of their names, and bytes that it may unpack to beyond [`EXPANSION`] times its own.
const ENTRIES: u64 = 200;
const NAMES: u64 = 16 << 10;
const SLACK: u64 = 256 << 10;
const EXPANSION: u64 = 20;
/// A tar archive's block.
const BLOCK: usize = 512;

pub(crate) const DECODER: Decoder = Decoder {
    name: "archive",
    check,
    words: &[
        "../",
        "/etc/passwd",
        ".packswarm",
        "ustar\u{0}00",
        "ustar  \u{0}",
        "././@LongLink",
        "30 mtime=1600000000.123456789\n",
        "18 path=../escape\n",
        "19 linkpath=/etc\n",
        "22 GNU.sparse.major=1\n",
        "00000000010\u{0}",
        "77777777777\u{0}",
        "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}",
        "1",
        "2",
        "3",
        "5",
        "L",
        "x",
        "g",
        "S",
    ],
    max_len: 64 << 10,
    // A MiB of headers is what one entry may have, kept twice by the reader; zstd's own window comes on top.
    memory: 16 << 20,
};

/// The first byte says how the rest is packed: as it is, packed here, or as a stream that may be broken; and whether the
/// checksums of its headers are made right, without which nothing behind a changed header would be read.
fn check(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let sealed = if how & 8 == 0 { sealed(rest) } else { rest.to_vec() };
    let (packing, blob) = match how & 7 {
        0..=2 => (Packing::Tar, sealed),
        3 => (Packing::TarGzip, gzip(&sealed)),
        4 => (Packing::TarZstd, zstd(&sealed)),
        5 => (Packing::TarGzip, rest.to_vec()),
        _ => (Packing::TarZstd, rest.to_vec()),
    };
    let outside = scratch();
    fs::write(outside.path().join("precious"), b"precious").expect("a file can be written");
    let dest = outside.path().join("dest");
    let size = blob.len() as u64;
    let unpacked = unpack(&dest, packing, blob);
    untouched(outside.path());
    let found = Found::below(&dest);
    match unpacked {
        Ok(summary) => {
            assert!(summary.files == found.files && found.entries <= 65 * ENTRIES);
            assert!(found.bytes <= size * EXPANSION + SLACK, "{} bytes", found.bytes);
        }
        Err(_) => assert_eq!(found.entries, 0, "a refused archive puts nothing in place"),
    }
}

/// A directory that is gone afterwards; in memory, where there is such a filesystem.
///
/// # Panics
/// If none can be made.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a directory can be made")
}

fn unpack(dest: &Path, packing: Packing, blob: Vec<u8>) -> Result<modelpack::Summary, modelpack::UnpackError> {
    let config = br#"{"modelfs":{"type":"layers","diffIds":[]}}"#;
    let named = |bytes: &[u8]| Blob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    let artifact = Artifact {
        config: named(config),
        layers: vec![Layer {
            blob: named(&blob),
            media_type: "application/vnd.cncf.model.code.v1.tar".to_owned(),
            kind: LayerKind::Code,
            packing,
            path: None,
            metadata: None,
            title: None,
        }],
    };
    let options = Options {
        limits: Limits {
            entries: ENTRIES,
            names: NAMES,
            expansion: EXPANSION,
            expansion_slack: SLACK,
        },
        ..Options::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let source = Source(Bytes::from(blob));
    runtime.block_on(modelpack::unpack(&artifact, config, dest, options, &source, |_| ()))
}

struct Source(Bytes);

impl Fetch for Source {
    async fn open(&self, _: &Blob, offset: u64) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        std::future::ready(()).await;
        Ok(stream::iter([Ok(self.0.slice(offset as usize..))]).boxed())
    }

    fn local(&self, _: &Blob) -> Option<PathBuf> {
        None
    }
}

/// The directory around the destination is as it was.
fn untouched(outside: &Path) {
    let mut names: Vec<_> = fs::read_dir(outside)
        .expect("a directory can be listed")
        .map(|entry| entry.expect("an entry can be read").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["dest", "precious"]);
    let precious = outside.join("precious");
    assert_eq!(fs::read(&precious).expect("it is still there"), b"precious");
    let metadata = fs::metadata(&precious).expect("it is still there");
    assert_eq!(metadata.nlink(), 1, "nobody linked to it");
}

/// What lies in a destination, ours left aside.
#[derive(Default)]
struct Found {
    entries: u64,
    files: u64,
    /// Bytes of all files, each once, whatever the number of its names.
    bytes: u64,
    inodes: HashSet<u64>,
}

impl Found {
    fn below(dest: &Path) -> Self {
        let mut found = Self::default();
        let real = dest.canonicalize().expect("the destination was made");
        found.visit(dest, dest, &real);
        found
    }

    fn visit(&mut self, dest: &Path, folder: &Path, real: &Path) {
        for entry in fs::read_dir(folder).expect("a directory can be listed") {
            let path = entry.expect("an entry can be read").path();
            let name = path
                .strip_prefix(dest)
                .expect("it is below")
                .to_str()
                .expect("names are UTF-8");
            if name == ".packswarm" {
                let staged = fs::read_dir(path.join("stage")).expect("there is a stage").count();
                assert_eq!(staged, 0, "nothing is left behind");
                continue;
            }
            self.entries += 1;
            stays_below(&TreePath::parse(name).expect("only such names are used"));
            let metadata = path.symlink_metadata().expect("it is there");
            if metadata.is_symlink() {
                // It may dangle or go round in circles, but where it leads somewhere, that is inside.
                if let Ok(target) = path.canonicalize() {
                    assert!(target.starts_with(real), "{name} leads to {}", target.display());
                }
                continue;
            }
            assert_eq!(
                metadata.permissions().mode() & 0o7000,
                0,
                "{name} has more than permission bits"
            );
            if metadata.is_dir() {
                self.visit(dest, &path, real);
            } else {
                assert!(metadata.is_file(), "{name} is {:?}", metadata.file_type());
                self.files += 1;
                if self.inodes.insert(metadata.ino()) {
                    self.bytes += metadata.len();
                }
            }
        }
    }
}

/// A tar archive with the checksum of each header made right, as far as its sizes lead from one to the next.
fn sealed(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        if block.iter().any(|byte| *byte != 0) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().copied().map(u32::from).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let size = std::str::from_utf8(&block[124..135]).ok();
        let size = size
            .and_then(|size| usize::from_str_radix(size.trim(), 8).ok())
            .unwrap_or(0);
        at = at.saturating_add(BLOCK).saturating_add(size.next_multiple_of(BLOCK));
    }
    tar
}

/// Packed by gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// Packed by zstd.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory can be written")
}
