//! The store's side files: whatever one says, a store that did not write it hands out proven bytes or none.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use piece::{Blob, Digest, Midstate, PrefixHasher};
use store::{BlobFile, Config, Store};

use crate::Decoder;

/// Opens a side file.
const MAGIC: &[u8] = b"packswarm side 1\n";
/// Three pieces, the last of them short.
const SIZE: usize = (2 << 18) + 1000;

pub(crate) const DECODER: Decoder = Decoder {
    name: "side_file",
    check,
    words: &["\u{0}", "\u{7}", "\u{18}@", "registry/org/model"],
    max_len: 16 << 10,
    memory: 8 << 20,
};

/// The first byte says where the blob lies and how its bytes are; each record that follows is `[u16 length][payload]`, and
/// gets the checksum that a file has, for without it none would be read.
fn check(bytes: &[u8]) {
    let Some((how, records)) = bytes.split_first() else {
        return;
    };
    let sample = sample();
    let (finished, damaged, raw) = (how & 1 != 0, how & 2 != 0, how & 4 != 0);
    let dir = crate::archive::scratch();
    let place = |folder: &str| dir.path().join(folder).join(sample.blob.digest.hex());
    for folder in ["blobs", "partial", "side"] {
        fs::create_dir(dir.path().join(folder)).expect("a folder can be made");
    }
    let mut content = sample.bytes.clone();
    if damaged {
        content[300_000] ^= 1;
    }
    fs::write(place(if finished { "blobs" } else { "partial" }), &content).expect("a file can be written");
    let side = if raw {
        records.to_vec()
    } else {
        sealed(&sample.blob.digest, records)
    };
    fs::write(place("side"), side).expect("a file can be written");
    let held = held(dir.path(), sample);
    if finished && !damaged {
        // Whole without a side file too; gone if that one says it should have another size.
        assert!(matches!(held, None | Some(3)), "{held:?} pieces");
    }
    // The store has written its own by now: what was proven stays, and what was not is no surprise twice.
    assert_eq!(self::held(dir.path(), sample), held, "what was proven stays");
}

/// Opens the store and the blob, if it is there, and reads all pieces that it says it has; their number.
fn held(dir: &Path, sample: &Sample) -> Option<u32> {
    let store = Store::open(Config::at(dir)).expect("no side file keeps a store from opening");
    assert!(store.held().iter().all(|held| held.blob.digest == sample.blob.digest));
    let file = store.get(&sample.blob.digest)?;
    assert_eq!(file.blob(), sample.blob, "no other size can be proven");
    let pieces = proven(&file, sample);
    assert_eq!(file.is_complete(), pieces == 3);
    Some(pieces)
}

fn proven(file: &BlobFile, sample: &Sample) -> u32 {
    let geometry = file.geometry();
    let mut count = 0;
    for piece in geometry.pieces().filter(|piece| file.has(*piece)) {
        let range = geometry.range(piece);
        let bytes = file.read(piece).expect("a piece that is held can be read");
        assert_eq!(bytes, sample.bytes[range.start as usize..range.end as usize]);
        count += 1;
    }
    count
}

/// Records with their checksums, as a side file has them.
fn sealed(digest: &Digest, mut records: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    while let Some((length, rest)) = records.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (payload, after) = rest.split_at(length);
        let sum = Digest::of(&[digest.as_bytes(), payload].concat());
        file.extend_from_slice(&(length as u16).to_be_bytes());
        file.extend_from_slice(payload);
        file.extend_from_slice(&sum.as_bytes()[..8]);
        records = after;
    }
    file
}

/// A blob.
#[derive(Debug)]
pub struct Sample {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its name.
    pub blob: Blob,
    /// The midstates between its pieces.
    pub midstates: [Midstate; 2],
}

/// The one that all side files here are about.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let bytes: Vec<u8> = (0..SIZE as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let blob = Blob {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        let mut hasher = PrefixHasher::new();
        let midstates = [0, 1 << 18].map(|at| hasher.piece(&bytes[at..at + (1 << 18)]));
        Sample { bytes, blob, midstates }
    })
}
