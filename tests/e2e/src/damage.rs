//! Changing blobs behind a node's back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Every piece is longer, so that each gets its wrong byte.
const STEP: usize = 64 << 10;

/// Flips a bit of the file.
pub fn flip_bit(path: &Path, at: u64) {
    change(&open(path), at, 1);
}

/// Changes a byte in every piece of the blob in the file.
pub fn alter_every_piece(path: &Path) {
    let file = open(path);
    let size = file.metadata().expect("it is open").len();
    for at in (0..size).step_by(STEP) {
        change(&file, at, 0xff);
    }
}

fn open(path: &Path) -> File {
    let open = OpenOptions::new().read(true).write(true).open(path);
    open.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn change(file: &File, at: u64, bits: u8) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ bits], at).expect("it is ours");
}
