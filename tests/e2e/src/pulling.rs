//! Pulls by several nodes at once, and what must be so after them, whatever happened meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clients::pull_through;
use crate::{Lab, Model, Node, Process, tree};

/// No pull of a test takes so long, even when the registry fails and fails again.
const LIMIT: Duration = Duration::from_secs(180);

/// A `packswarm pull` through a node's mirror, under way.
#[derive(Debug)]
pub struct Pulling {
    process: Process,
    to: PathBuf,
}

impl Pulling {
    /// Begins one, into a directory that is named after the pull and the node.
    pub fn begin(lab: &Lab, name: &str, node: &Node, reference: &str) -> Self {
        let name = format!("{name}-{}", node.name());
        let to = lab.path(&name);
        let mut command = node.beside(pull_through(lab, node.mirror(), reference, &to));
        Self {
            process: Process::start(&name, &mut command, &lab.log(&name)),
            to,
        }
    }

    /// Begins one at each of these nodes.
    pub fn begin_all<'a>(
        lab: &Lab,
        name: &str,
        nodes: impl IntoIterator<Item = &'a Node>,
        reference: &str,
    ) -> Vec<Self> {
        let begin = |node| Self::begin(lab, name, node, reference);
        nodes.into_iter().map(begin).collect()
    }

    /// Whether it has given up.
    pub fn has_failed(&mut self) -> bool {
        self.process.ended().is_some_and(|status| !status.success())
    }

    /// Where it puts the files.
    pub fn to(&self) -> &Path {
        &self.to
    }

    /// Waits for its end. Panics unless all files are there, as they were pushed. They are removed.
    pub fn succeeds(mut self, model: &Model) {
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{}: {}", self.process.name(), self.process.log());
        tree::assert_same(&model.files(), &self.to);
        fs::remove_dir_all(&self.to).expect("it is ours");
    }

    /// Waits for its end. Panics unless it says why it failed, and has given no file its name that is not as it was pushed.
    pub fn fails(mut self, model: &Model) -> String {
        let status = self.process.wait(LIMIT);
        let said = self.process.log();
        assert!(!status.success(), "{} succeeds: {said}", self.process.name());
        if self.to.exists() {
            for path in tree::files(&self.to).keys() {
                tree::assert_same_bytes(&model.files().join(path), &self.to.join(path));
            }
        }
        said
    }
}

/// Panics unless the node runs, and every blob that its store calls whole is what it is called.
pub fn assert_sound(node: &Node) {
    assert_eq!(node.get("/healthz").status, 200, "{}", node.name());
    assert_store_sound(&node.setup().data);
}

/// Panics unless every blob that the store in this data directory calls whole is what it is called. Returns their bytes.
pub fn assert_store_sound(data: &Path) -> u64 {
    let dir = data.join("blobs");
    let mut bytes = 0;
    for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("directories can be listed").path();
        let name = path.file_name().expect("it was listed").to_string_lossy().into_owned();
        // It may be evicted, or moved for a repair, just now.
        let Ok(file) = fs::File::open(&path) else { continue };
        bytes += file.metadata().map_or(0, |metadata| metadata.len());
        assert_eq!(tree::digest(file), format!("sha256:{name}"), "{}", path.display());
    }
    bytes
}
