//! Reads a tar archive into numbered files, before anything of it is proven: no name of it reaches the file system yet.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use tar::{Archive, Entry};

use super::entry::{Wanted, shown_name, wanted};
use super::error::{Refusal, UnpackError};
use super::gauge::Valve;
use super::local;
use super::plan::PackedJob;
use super::shared::Shared;
use super::tree::{Attributes, Staged, set_attributes};
use crate::TreePath;

/// Bytes copied at a time.
const BUFFER: usize = 128 << 10;
/// Up to this many files are synced one by one; beyond, one sync of the file system is cheaper.
pub(super) const SYNCED_SINGLY: usize = 64;

/// What an archive's entry became.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: TreePath,
    pub(super) kind: ItemKind,
}

#[derive(Debug)]
pub(super) enum ItemKind {
    File { staged: Staged, size: u64 },
    Directory(Attributes),
    Link { target: Arc<str> },
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The archive could not be read on; the streams know whether it was cut, too large or broken.
    Unreadable(io::Error),
    Failed(UnpackError),
}

impl From<UnpackError> for Stop {
    fn from(error: UnpackError) -> Self {
        Self::Failed(error)
    }
}

/// Reads a whole archive.
pub(super) fn read(
    shared: &Arc<Shared>,
    job: &PackedJob,
    archive: impl Read,
    valve: &Valve,
) -> Result<Vec<Item>, Stop> {
    let mut archive = Archive::new(archive);
    let mut entries = archive.entries().map_err(Stop::Unreadable)?;
    let mut reader = Reader {
        shared,
        job,
        items: Vec::new(),
        by_path: HashMap::new(),
        files: 0,
        buffer: vec![0; BUFFER],
    };
    loop {
        valve.headers();
        let Some(entry) = entries.next() else { break };
        valve.contents();
        let mut entry = entry.map_err(Stop::Unreadable)?;
        reader.entry(&mut entry)?;
        // What is left of it, or the next header would not be where it is looked for within its budget.
        io::copy(&mut entry, &mut io::sink()).map_err(Stop::Unreadable)?;
    }
    Ok(reader.items)
}

struct Reader<'a> {
    shared: &'a Arc<Shared>,
    job: &'a PackedJob,
    items: Vec<Item>,
    by_path: HashMap<TreePath, usize>,
    files: usize,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Stop> {
        let target = entry.link_name_bytes().map_or(0, |name| name.len());
        let counted = self.shared.count_entry(entry.path_bytes().len() + target);
        counted.map_err(|limit| UnpackError::Limit {
            layer: self.job.name(),
            limit,
        })?;
        let refused = |reason, entry: &Entry<'_, R>| {
            Stop::Failed(UnpackError::Refused {
                layer: self.job.name(),
                entry: shown_name(entry),
                reason,
            })
        };
        let wanted = wanted(entry).map_err(|reason| refused(reason, entry))?;
        let item = match wanted {
            Wanted::Nothing => return Ok(()),
            Wanted::File { path, .. }
            | Wanted::Directory { path, .. }
            | Wanted::Symlink { path, .. }
            | Wanted::HardLink { path, .. }
                if self.is_left_out(&path) =>
            {
                return Ok(());
            }
            Wanted::File { path, attributes } => {
                let kind = self.file(entry, &path, attributes)?;
                Item { path, kind }
            }
            Wanted::Directory { path, attributes } => Item {
                path,
                kind: ItemKind::Directory(attributes),
            },
            Wanted::Symlink { path, target } => Item {
                path,
                kind: ItemKind::Link { target },
            },
            Wanted::HardLink { path, to } => match self.hard_link(&to)? {
                Some(kind) => Item { path, kind },
                None => return Err(refused(Refusal::HardLink, entry)),
            },
        };
        if self.keep(item)? {
            Ok(())
        } else {
            Err(refused(Refusal::Duplicate, entry))
        }
    }

    fn is_left_out(&self, path: &TreePath) -> bool {
        self.job.filtered && !self.shared.options.include.matches(path.as_str())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &TreePath,
        attributes: Attributes,
    ) -> Result<ItemKind, Stop> {
        let size = entry.size();
        let (staged, file) = self.shared.tree.stage().map_err(self.failed(path))?;
        let mut done = 0;
        loop {
            let read = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Unreadable(error)),
            };
            (&file).write_all(&self.buffer[..read]).map_err(self.failed(path))?;
            done += read as u64;
        }
        if done != size {
            return Err(Stop::Unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        self.finish(&file, attributes).map_err(self.failed(path))?;
        Ok(ItemKind::File { staged, size })
    }

    fn finish(&mut self, file: &File, attributes: Attributes) -> io::Result<()> {
        set_attributes(file, attributes)?;
        self.files += 1;
        if self.files <= SYNCED_SINGLY {
            file.sync_all()
        } else {
            Ok(())
        }
    }

    /// A further name for a file of this archive; `None` when there is no such file.
    fn hard_link(&self, to: &TreePath) -> Result<Option<ItemKind>, UnpackError> {
        match self.by_path.get(to).map(|at| &self.items[*at].kind) {
            Some(ItemKind::File { staged, size }) => {
                let staged = self.shared.tree.stage_again(*staged).map_err(self.failed(to))?;
                Ok(Some(ItemKind::File { staged, size: *size }))
            }
            Some(ItemKind::Directory(_) | ItemKind::Link { .. }) | None => Ok(None),
        }
    }

    /// Keeps an item, unless the archive had another of that name: the same again is no harm, anything else is refused.
    fn keep(&mut self, item: Item) -> Result<bool, UnpackError> {
        let Some(at) = self.by_path.get(&item.path).copied() else {
            self.by_path.insert(item.path.clone(), self.items.len());
            self.items.push(item);
            return Ok(true);
        };
        match (&mut self.items[at].kind, item.kind) {
            (ItemKind::Directory(before), ItemKind::Directory(now)) => {
                *before = now;
                Ok(true)
            }
            (ItemKind::Link { target: before }, ItemKind::Link { target: now }) => Ok(*before == now),
            (
                ItemKind::File { staged: before, size },
                ItemKind::File {
                    staged: now,
                    size: again,
                },
            ) => {
                let (before, same_size) = (*before, *size == again);
                let same = same_size && self.same_content(before, now).map_err(self.failed(&item.path))?;
                self.shared.tree.unstage(now);
                Ok(same)
            }
            (ItemKind::File { .. } | ItemKind::Directory(_) | ItemKind::Link { .. }, _) => Ok(false),
        }
    }

    fn same_content(&self, one: Staged, other: Staged) -> io::Result<bool> {
        let tree = &self.shared.tree;
        let (one, other) = (tree.open_staged(one)?, tree.open_staged(other)?);
        Ok(local::hash(&one)? == local::hash(&other)?)
    }

    fn failed(&self, path: &TreePath) -> impl FnOnce(io::Error) -> UnpackError + use<> {
        self.shared.tree.failed("unpack", path.as_str())
    }
}
