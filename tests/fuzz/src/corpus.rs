//! The inputs that are kept: seeds of every kind, and whatever once broke something.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the inputs of a decoder lie.
pub fn folder(decoder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(decoder)
}

/// Its inputs, in the order of their names.
///
/// # Panics
/// If the folder cannot be read.
pub fn inputs(decoder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(decoder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(&path).expect("an input can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}
