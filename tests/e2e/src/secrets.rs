//! Looking for secrets where none may be.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::Node;
use crate::process::output;

/// Panics if any of these words is in a file below one of these places, or on a page of one of these nodes.
pub fn assert_none<'a>(words: &[String], places: &[&Path], nodes: impl IntoIterator<Item = &'a Node>) {
    assert!(words.iter().all(|word| word.len() >= 8), "too short to be looked for");
    let mut patterns = tempfile::NamedTempFile::new().expect("there is room on the disk");
    patterns
        .write_all(words.join("\n").as_bytes())
        .expect("there is room on the disk");
    let mut grep = Command::new("grep");
    grep.args([
        "--recursive",
        "--text",
        "--fixed-strings",
        "--files-with-matches",
        "--file",
    ]);
    let found = output(grep.arg(patterns.path()).arg("--").args(places));
    let files = String::from_utf8_lossy(&found.stdout);
    assert_eq!(
        found.status.code(),
        Some(1),
        "secrets are in these files, or grep has failed:\n{files}"
    );
    for node in nodes {
        for page in ["/metrics", "/api/v1/status", "/api/v1/blobs", "/healthz", "/readyz"] {
            let text = node.get(page).text();
            let found = words.iter().any(|word| text.contains(word.as_str()));
            assert!(!found, "a secret is on {page} of {}", node.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn below(text: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), text).unwrap();
        dir
    }

    #[test]
    fn passes_where_there_is_none() {
        let dir = below(b"\0\x01hidden-word\xff");
        assert_none(&["another-word".to_owned()], &[dir.path()], []);
    }

    #[test]
    #[should_panic(expected = "below/file")]
    fn finds_what_is_there() {
        let dir = below(b"\0\x01hidden-word\xff");
        assert_none(
            &["another-word".to_owned(), "hidden-word".to_owned()],
            &[dir.path()],
            [],
        );
    }
}
