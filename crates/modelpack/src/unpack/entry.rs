//! One entry of a tar archive: what it asks for, or why it is refused.

use std::io::Read;
use std::sync::Arc;

use tar::{Entry, EntryType};

use super::error::Refusal;
use super::tree::Attributes;
use crate::path::check_link_target;
use crate::{Mtime, PathError, TreePath};

/// What an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    File {
        path: TreePath,
        attributes: Attributes,
    },
    Directory {
        path: TreePath,
        attributes: Attributes,
    },
    Symlink {
        path: TreePath,
        target: Arc<str>,
    },
    HardLink {
        path: TreePath,
        to: TreePath,
    },
    /// Says nothing about the tree: the top directory itself, global headers.
    Nothing,
}

/// Reads an entry's headers. Its contents are left to the caller.
pub(super) fn wanted<R: Read>(entry: &mut Entry<'_, R>) -> Result<Wanted, Refusal> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(Wanted::Nothing);
    }
    let extended = extended(entry)?;
    let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| Refusal::NotUtf8)?;
    // Archives from before POSIX say "directory" with a trailing slash.
    let directory = kind == EntryType::Directory || (kind == EntryType::Regular && name.ends_with('/'));
    if directory && matches!(name.trim_end_matches('/'), "." | "") && !name.starts_with('/') {
        return Ok(Wanted::Nothing);
    }
    let path = TreePath::parse(&name).map_err(Refusal::Path)?;
    let mode = entry.header().mode().unwrap_or(0);
    let mtime = extended.or_else(|| {
        let seconds = i64::try_from(entry.header().mtime().ok()?).ok()?;
        Some(Mtime { seconds, nanos: 0 })
    });
    if directory {
        return Ok(Wanted::Directory {
            path,
            attributes: Attributes::directory(mode, mtime),
        });
    }
    if kind.is_file() || kind.is_contiguous() {
        return Ok(Wanted::File {
            path,
            attributes: Attributes::file(mode, mtime),
        });
    }
    if kind.is_symlink() {
        let target = link_name(entry)?;
        check_link_target(&path, &target).map_err(Refusal::Target)?;
        return Ok(Wanted::Symlink {
            path,
            target: target.into(),
        });
    }
    if kind.is_hard_link() {
        let to = TreePath::parse(&link_name(entry)?).map_err(Refusal::Target)?;
        return Ok(Wanted::HardLink { path, to });
    }
    Err(if kind.is_gnu_sparse() {
        Refusal::Sparse
    } else {
        Refusal::Kind
    })
}

/// The entry's name as it may be shown, whatever it is.
pub(super) fn shown_name<R: Read>(entry: &Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).chars().take(200).collect()
}

/// The modification time among the PAX records; sparse files in PAX clothing are refused.
fn extended<R: Read>(entry: &mut Entry<'_, R>) -> Result<Option<Mtime>, Refusal> {
    let Ok(Some(records)) = entry.pax_extensions() else {
        return Ok(None);
    };
    let mut mtime = None;
    for record in records.flatten() {
        match (record.key(), record.value()) {
            (Ok(key), _) if key.starts_with("GNU.sparse.") => return Err(Refusal::Sparse),
            (Ok("mtime"), Ok(value)) => mtime = Mtime::from_decimal(value),
            _ => {}
        }
    }
    Ok(mtime)
}

fn link_name<R: Read>(entry: &Entry<'_, R>) -> Result<String, Refusal> {
    let name = entry.link_name_bytes().ok_or(Refusal::Target(PathError::Empty))?;
    String::from_utf8(name.into_owned()).map_err(|_| Refusal::NotUtf8)
}
