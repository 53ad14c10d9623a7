//! Comparing directories and digests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Read and compared at a time.
const CHUNK: usize = 1 << 20;

/// Every regular file below `root`, by its path there. What pulls keep for themselves (`.packswarm`) does not count.
pub fn files(root: &Path) -> BTreeMap<PathBuf, u64> {
    fn visit(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, u64>) {
        let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("directories can be listed").path();
            let below = path.strip_prefix(root).expect("found below the root").to_owned();
            let metadata = fs::symlink_metadata(&path).expect("it was just listed");
            if metadata.is_dir() && below != Path::new(".packswarm") {
                visit(root, &path, found);
            } else if metadata.is_file() {
                found.insert(below, metadata.len());
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(root, root, &mut found);
    found
}

/// Panics unless both hold the same files with the same bytes and permissions.
pub fn assert_same(source: &Path, copy: &Path) {
    let (wanted, found) = (files(source), files(copy));
    assert_eq!(found, wanted, "{} beside {}", copy.display(), source.display());
    for path in wanted.keys() {
        assert_same_bytes(&source.join(path), &copy.join(path));
        let mode = |root: &Path| {
            fs::metadata(root.join(path))
                .expect("it was listed")
                .permissions()
                .mode()
        };
        assert_eq!(mode(copy), mode(source), "permissions of {}", path.display());
    }
}

/// Panics unless both files have the same bytes.
pub fn assert_same_bytes(source: &Path, copy: &Path) {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut a, mut b) = (open(source), open(copy));
    let (mut of_a, mut of_b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut offset = 0;
    loop {
        let (read, other) = (fill(&mut a, &mut of_a), fill(&mut b, &mut of_b));
        let same = of_a[..read] == of_b[..other];
        assert!(
            same,
            "{} differs from {} in the MiB at {offset}",
            copy.display(),
            source.display()
        );
        if read == 0 {
            return;
        }
        offset += read;
    }
}

/// The digest of a file, as OCI writes it.
pub fn digest_of(path: &Path) -> String {
    digest(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The digest of everything there is to read.
pub fn digest(mut from: impl Read) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = fill(&mut from, &mut buffer);
        if read == 0 {
            return named(&hash.finalize());
        }
        hash.update(&buffer[..read]);
    }
}

fn named(hash: &[u8]) -> String {
    hash.iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]).expect("it can be read to its end") {
            0 => break,
            read => filled += read,
        }
    }
    filled
}
