//! What documents say about tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Documents that name the test that holds each promise.
const PROMISES: [&str; 1] = ["docs/security.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all functions below `folder`.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("folders can be listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            let named = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(named.map(str::to_owned));
        }
    }
}

/// Words that can only be tests: no option has so many parts.
fn tests_in(document: &str) -> impl Iterator<Item = &str> {
    let quoted = document.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        word.matches('_').count() >= 3 && word.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    })
}

#[test]
fn tests_that_documents_name_exist() {
    let mut names = BTreeSet::new();
    for folder in ["crates", "tests"] {
        functions(&root().join(folder), &mut names);
    }
    for document in PROMISES {
        let text = fs::read_to_string(root().join(document)).expect("the document is there");
        let named: Vec<_> = tests_in(&text).collect();
        assert!(named.len() > 20, "{document} names tests");
        for test in named {
            assert!(names.contains(test), "{document} names {test}, which is no test");
        }
    }
}
