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

/// Every `FILE::TEST` of the page of guarantees is a test in that file.
#[test]
fn every_guarantee_is_held_by_a_test_that_exists() {
    let text = fs::read_to_string(root().join("docs/guarantees.md")).expect("the document is there");
    let held = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|word| word.split_once("::"));
    let mut count = 0;
    for (file, test) in held.filter(|(file, _)| file.ends_with(".rs")) {
        let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (before, _) = source
            .split_once(&format!("fn {test}("))
            .unwrap_or_else(|| panic!("docs/guarantees.md names {file}::{test}, which does not exist"));
        let attribute = before.trim_end().trim_end_matches("async").trim_end();
        assert!(
            attribute.ends_with(']') || attribute.ends_with("proptest!"),
            "{file}::{test} is no test"
        );
        count += 1;
    }
    assert!(count > 40, "only {count} tests hold the guarantees");
}
