//! Files of a system's configuration: read if there, replaced whole, removed with the directories made for them.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
pub(super) struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A file below a system's root.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// The file's text; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes this the file's text, and says whether it was another.
pub(super) fn write(path: &Path, text: &str) -> Result<bool, FileError> {
    if read(path)?.as_deref() == Some(text) {
        return Ok(false);
    }
    replace(path, text).map_err(|source| FileError {
        doing: "write",
        path: path.to_owned(),
        source,
    })?;
    Ok(true)
}

/// Removes the file, and its directory if nothing else is in it.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    fs::remove_file(path).map_err(|source| FileError {
        doing: "remove",
        path: path.to_owned(),
        source,
    })?;
    if let Some(parent) = path.parent() {
        // Fails, as it should, where something else is in it.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Through a draft beside it, so that a runtime never reads half of it; it keeps its mode.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".packswarm-new");
    let written = fs::File::create(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        if let Ok(metadata) = fs::metadata(path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
        // Best effort: the error is what matters.
        let _ = fs::remove_file(&draft);
    })
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; run this as root"
    } else {
        ""
    }
}
