//! The file in which a process remembers who was expelled, so that a restart lets nobody back in.
//!
//! One line a node: its peer id, and after a space the operator's reason, if one was given. Lines that begin with `#` are
//! comments. It is read at start only and replaced whole at each change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use piece::NodeId;

use crate::{key_file, parse_node, peer_id};

/// Bytes of the file at most: a thousand nodes, each with a long reason.
const MAX_FILE: u64 = 1 << 20;
const HEADER: &str = "# Nodes that the operator has expelled: written by packswarm, read when it starts.\n";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExpelledFileError {
    /// It cannot be read.
    #[error("cannot read who was expelled from {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot remember who is expelled in {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is none.
    #[error("{}, line {line}: `{text}` does not begin with a peer id: mend or remove the line", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// How it begins.
        text: String,
    },
}

/// Such a file.
#[derive(Debug, Clone)]
pub struct ExpelledFile {
    path: PathBuf,
}

impl ExpelledFile {
    /// The one in a data directory.
    pub fn within(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join("expelled"),
        }
    }

    /// Who is out, and why; none if there is no file.
    ///
    /// # Errors
    /// If it cannot be read or understood: a process that cannot know who is out must not let everybody in.
    pub fn load(&self) -> Result<Option<BTreeMap<NodeId, String>>, ExpelledFileError> {
        let failed = |source| ExpelledFileError::Read {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        let lines = text.lines().map(str::trim).enumerate();
        let named = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let read = named.map(|(number, line)| {
            let (id, reason) = line.split_once(' ').unwrap_or((line, ""));
            let node = parse_node(id).ok_or_else(|| ExpelledFileError::Line {
                path: self.path.clone(),
                line: number + 1,
                text: id.chars().take(64).collect(),
            })?;
            Ok((node, reason.trim().to_owned()))
        });
        read.collect::<Result<_, _>>().map(Some)
    }

    /// Replaces it, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, nodes: &BTreeMap<NodeId, String>) -> Result<(), ExpelledFileError> {
        let mut text = HEADER.to_owned();
        for (node, reason) in nodes {
            let line = format!("{} {reason}", peer_id(*node));
            writeln!(text, "{}", line.trim_end()).expect("a string takes any text");
        }
        let draft = self.path.with_extension("new");
        let written = key_file::write_draft(&draft, &text, key_file::Draft::Replaced);
        written
            .and_then(|()| fs::rename(&draft, &self.path))
            .map_err(|source| ExpelledFileError::Write {
                path: self.path.clone(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = ExpelledFile::within(dir.path());
        assert_eq!(file.load().unwrap(), None);
        let node = |byte| NodeId::from_bytes([byte; 32]);
        let mut nodes = BTreeMap::from([(node(1), "stolen in May".to_owned()), (node(2), String::new())]);
        for _ in 0..2 {
            file.save(&nodes).unwrap();
            assert_eq!(file.load().unwrap().as_ref(), Some(&nodes));
            nodes.pop_first();
        }
        let mode = fs::metadata(dir.path().join("expelled")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_names_nobody_is_an_error_that_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let good = peer_id(NodeId::from_bytes([7; 32]));
        fs::write(
            dir.path().join("expelled"),
            format!("# ours\n\n{good}\nnobody at all\n"),
        )
        .unwrap();
        let said = ExpelledFile::within(dir.path()).load().unwrap_err().to_string();
        assert!(said.contains("line 4") && said.contains("`nobody`"), "{said}");
    }
}
