//! What earlier runs finished: one JSON line per layer, appended when its files are in place.
//!
//! A torn last line (power cut) is skipped, so the layer counts as not finished: its raw file is recognised by hashing
//! it, an archive is fetched again. The files themselves were synced before they were renamed, hence before their line.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use piece::Digest;
use rustix::fs::{Mode, OFlags, openat, renameat};
use serde::{Deserialize, Serialize};

use super::tree::{Tree, file_size, mtime_of};
use crate::{Mtime, TreePath};

const NAME: &str = "journal";
const NEW_NAME: &str = "journal.new";
/// A journal longer than this is ignored past it: more than a million entries with long paths need.
const MAX_LEN: u64 = 1 << 30;

/// Names what was finished: packing, digest and what else decides the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    digest: String,
    as_what: String,
}

impl Key {
    pub(super) fn raw(digest: &Digest, path: &TreePath) -> Self {
        Self {
            digest: digest.hex(),
            as_what: format!("raw {path}"),
        }
    }

    pub(super) fn packed(digest: &Digest, packing: &str, filter: &str) -> Self {
        Self {
            digest: digest.hex(),
            as_what: format!("{packing} {filter}"),
        }
    }
}

/// Something in the destination, as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Output {
    File { path: TreePath, size: u64, mtime: Mtime },
    Link { path: TreePath, target: String },
    Directory { path: TreePath, mtime: Option<Mtime> },
}

impl Output {
    /// Whether it is still there, as far as one can tell without reading.
    pub(super) fn is_intact(&self, tree: &Tree) -> bool {
        match self {
            Self::File { path, size, mtime } => tree
                .stat(path)
                .is_some_and(|stat| file_size(&stat) == Some(*size) && mtime_of(&stat) == *mtime),
            Self::Link { path, target } => tree.read_link(path).as_ref() == Some(target),
            Self::Directory { path, .. } => tree
                .stat(path)
                .is_some_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()),
        }
    }
}

#[derive(Serialize)]
struct LineOf<'a> {
    key: &'a Key,
    outputs: &'a [Output],
}

#[derive(Deserialize)]
struct Line {
    key: Key,
    outputs: Vec<Output>,
}

/// The journal of one destination.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    records: HashMap<Key, Arc<[Output]>>,
    /// Whether the file has lines that `records` has not.
    stale: bool,
}

impl Journal {
    /// Reads what concerns the layers with these digests.
    pub(super) fn open(tree: &Tree, digests: &HashSet<String>) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(tree.work(), NAME, flags, Mode::RUSR | Mode::WUSR)?);
        let mut records = HashMap::new();
        let mut stale = false;
        let mut reader = BufReader::new((&file).take(MAX_LEN));
        let mut text = Vec::new();
        while {
            text.clear();
            reader.read_until(b'\n', &mut text)?
        } > 0
        {
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) if digests.contains(&line.key.digest) => {
                    stale |= records.insert(line.key, line.outputs.into()).is_some();
                }
                Ok(_) | Err(_) => stale = true,
            }
        }
        if text_is_torn(&file)? {
            // Or the next line would be appended to the torn one, and be lost with it.
            (&file).write_all(b"\n")?;
        }
        Ok(Self { file, records, stale })
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<[Output]>> {
        self.records.get(key).cloned()
    }

    pub(super) fn append(&mut self, key: Key, outputs: Vec<Output>) -> io::Result<()> {
        let mut text = serde_json::to_vec(&LineOf {
            key: &key,
            outputs: &outputs,
        })?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.stale |= self.records.insert(key, outputs.into()).is_some();
        Ok(())
    }

    /// Puts the journal on disk, without the lines that say nothing any more.
    pub(super) fn compact(&mut self, tree: &Tree) -> io::Result<()> {
        if !self.stale {
            return self.file.sync_all();
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(tree.work(), NEW_NAME, flags, Mode::RUSR | Mode::WUSR)?);
        let mut writer = BufWriter::new(&file);
        for (key, outputs) in &self.records {
            serde_json::to_writer(&mut writer, &LineOf { key, outputs })?;
            writer.write_all(b"\n")?;
        }
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        renameat(tree.work(), NEW_NAME, tree.work(), NAME)?;
        (self.file, self.stale) = (file, false);
        Ok(())
    }
}

fn text_is_torn(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let len = file.metadata()?.len();
    let mut last = [0];
    if len == 0 {
        return Ok(false);
    }
    file.read_exact_at(&mut last, len - 1)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &str) -> Output {
        Output::File {
            path: TreePath::parse(path).unwrap(),
            size: 1,
            mtime: Mtime { seconds: 1, nanos: 2 },
        }
    }

    fn key(of: &[u8]) -> Key {
        Key::raw(&Digest::of(of), &TreePath::parse("x").unwrap())
    }

    #[test]
    fn keeps_what_was_appended_and_survives_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let digests: HashSet<_> = [b"a", b"b"].iter().map(|of| Digest::of(*of).hex()).collect();
        let mut journal = Journal::open(&tree, &digests).unwrap();
        journal.append(key(b"a"), vec![output("a")]).unwrap();
        journal.append(key(b"other"), vec![output("o")]).unwrap();
        journal.append(key(b"b"), vec![output("b")]).unwrap();
        let path = dir.path().join(".packswarm/journal");
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len - 5)
            .unwrap();

        let mut journal = Journal::open(&tree, &digests).unwrap();
        assert_eq!(journal.get(&key(b"a")).as_deref(), Some(&[output("a")][..]));
        assert_eq!(journal.get(&key(b"b")), None, "its line was torn");
        assert_eq!(journal.get(&key(b"other")), None, "another artifact's");
        journal.append(key(b"b"), vec![output("b2")]).unwrap();
        drop(journal);

        let mut journal = Journal::open(&tree, &digests).unwrap();
        assert_eq!(journal.get(&key(b"b")).as_deref(), Some(&[output("b2")][..]));
        journal.compact(&tree).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        journal.append(key(b"b"), vec![output("b3")]).unwrap();
        let journal = Journal::open(&tree, &digests).unwrap();
        assert_eq!(
            journal.get(&key(b"b")).as_deref(),
            Some(&[output("b3")][..]),
            "appended to the new file"
        );
    }
}
