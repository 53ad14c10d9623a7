//! Files that changed behind the store's back, and power that went away.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use store::StoreError;

use crate::sample::{Sample, open};

const MIB: usize = 1 << 20;

fn path(dir: &Path, below: &str, sample: &Sample) -> PathBuf {
    dir.join(below).join(sample.blob.digest.hex())
}

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn a_side_file_torn_anywhere_claims_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 600_000);
    let store = open(dir.path());
    sample.write(&store, [0, 2]);
    store.close().unwrap();
    let side = fs::read(path(dir.path(), "side", &sample)).unwrap();
    let data = fs::read(path(dir.path(), "partial", &sample)).unwrap();
    let mut kept = 0;
    for (turn, at) in (0..side.len()).step_by(5).enumerate() {
        let mut damaged = side.clone();
        if turn % 2 == 0 {
            damaged.truncate(at);
        } else {
            damaged[at] ^= 1 << (turn % 8);
        }
        fs::write(path(dir.path(), "side", &sample), damaged).unwrap();
        fs::write(path(dir.path(), "partial", &sample), &data).unwrap();
        let store = open(dir.path());
        if let Some(file) = store.get(&sample.blob.digest) {
            let here = sample.check(&file);
            assert!(here.iter().all(|number| [0, 2].contains(number)), "byte {at}: {here:?}");
            kept += here.len();
        }
        assert_eq!(
            sample.check(&sample.complete(&store)),
            [0, 1, 2],
            "byte {at}: goes on and finishes"
        );
        store.remove(&sample.blob.digest).unwrap();
        store.close().unwrap();
    }
    assert!(kept > 0, "bits behind the damage were found again");
}

#[test]
fn bits_that_outlived_their_data_are_cleared_after_an_unclean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (partial, small) = (Sample::new(1, 2 * MIB), Sample::new(2, MIB));
    {
        let store = open(dir.path());
        partial.write(&store, [1, 2, 3]);
        small.complete(&store);
    }
    // The power went: the side files are there, some of the data is not.
    flip(&path(dir.path(), "partial", &partial), partial.offset(2) + 9);
    flip(&path(dir.path(), "blobs", &small), small.offset(0));
    let store = open(dir.path());
    assert_eq!(partial.check(&store.get(&partial.blob.digest).unwrap()), [1, 3]);
    let file = store.get(&small.blob.digest).unwrap();
    assert_eq!(small.check(&file), [1, 2, 3]);
    assert!(!file.is_complete() && path(dir.path(), "partial", &small).exists());
    file.write(small.proven(0)).unwrap();
    assert!(file.is_complete() && path(dir.path(), "blobs", &small).exists());
}

#[test]
fn doubt_outlasts_a_clean_session_that_did_not_open_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 2 * MIB);
    drop(sample.write(&open(dir.path()), [1, 2]));
    flip(&path(dir.path(), "partial", &sample), sample.offset(2));
    open(dir.path()).close().unwrap();
    let store = open(dir.path());
    assert_eq!(sample.check(&store.get(&sample.blob.digest).unwrap()), [1]);
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(store.held()[0].pieces, 1, "and the proof was written down");
}

#[test]
fn a_piece_written_without_its_bit_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 2 * MIB);
    drop(sample.write(&open(dir.path()), [1]));
    let data = File::options()
        .write(true)
        .open(path(dir.path(), "partial", &sample))
        .unwrap();
    data.write_all_at(sample.piece(5), sample.offset(5)).unwrap();
    data.write_all_at(&sample.piece(6)[..1000], sample.offset(6)).unwrap();
    assert_eq!(
        sample.check(&open(dir.path()).get(&sample.blob.digest).unwrap()),
        [1, 5]
    );
}

#[test]
fn a_full_blob_that_missed_its_rename_finishes_when_opened() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 5 * MIB);
    drop(sample.complete(&open(dir.path())));
    fs::rename(path(dir.path(), "blobs", &sample), path(dir.path(), "partial", &sample)).unwrap();
    let store = open(dir.path());
    assert!(!store.held()[0].complete);
    assert!(store.get(&sample.blob.digest).unwrap().is_complete());
    assert!(store.held()[0].complete);
}

#[test]
fn a_finished_blob_survives_the_loss_of_its_side_file() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (Sample::new(1, 5 * MIB), Sample::new(2, 2 * MIB));
    let store = open(dir.path());
    good.complete(&store);
    bad.complete(&store);
    store.close().unwrap();
    fs::remove_file(path(dir.path(), "side", &good)).unwrap();
    fs::write(path(dir.path(), "side", &bad), "rubbish").unwrap();
    flip(&path(dir.path(), "blobs", &bad), 77);
    let store = open(dir.path());
    let file = store.get(&good.blob.digest).unwrap();
    assert_eq!(good.check(&file).len(), 20);
    assert!(file.is_complete() && file.boundary(7) == Some(good.midstate(7)));
    assert!(store.get(&bad.blob.digest).is_none(), "nothing proves any part of it");
    assert!(!path(dir.path(), "blobs", &bad).exists());
    assert_eq!(store.held().len(), 1);
}

#[test]
fn a_finished_blob_is_proven_again_after_an_unclean_stop_however_large() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 6 * MIB);
    drop(sample.complete(&open(dir.path())));
    flip(&path(dir.path(), "blobs", &sample), sample.offset(5) + 1);
    let store = open(dir.path());
    assert!(store.is_complete(&sample.blob.digest), "as far as is known");
    let file = store.get(&sample.blob.digest).unwrap();
    assert!(!file.is_complete() && !store.is_complete(&sample.blob.digest));
    assert_eq!(sample.check(&file).len() as u32, sample.count() - 1);
    file.write(sample.proven(5)).unwrap();
    assert!(file.is_complete());
}

#[test]
fn checking_a_blob_is_no_use_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 2 * MIB);
    drop(sample.complete(&store));
    let side = path(dir.path(), "side", &sample);
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    File::open(&side).unwrap().set_modified(past).unwrap();
    store.close().unwrap();
    let store = open(dir.path());
    let used = || store.held()[0].last_used;
    assert_eq!(used(), 1000);
    let file = store.look(&sample.blob.digest).unwrap();
    assert_eq!(file.verify(2..4, |_, good| assert!(good)).unwrap(), []);
    drop(file);
    assert_eq!(used(), 1000);
    drop(store.get(&sample.blob.digest));
    assert!(used() > 1000);
}

#[test]
fn verifying_finds_a_flipped_bit_and_the_piece_can_be_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 5 * MIB + 3);
    let file = sample.complete(&store);
    let (early, link) = (file.read(sample.index(4)).unwrap(), dir.path().join("link"));
    file.link_to(&link).unwrap();
    let mut told = Vec::new();
    assert_eq!(
        file.verify_all(|piece, good| told.push((piece.get(), good))).unwrap(),
        []
    );
    assert_eq!(told.len() as u32, sample.count());
    assert!(told.iter().all(|(_, good)| *good));

    flip(&file.path().unwrap(), sample.offset(4) + 1234);
    let flipped = early.to_vec();
    assert_eq!(file.verify_all(|_, _| ()).unwrap(), [sample.index(4)]);
    assert!(!file.is_complete() && !file.has(sample.index(4)) && file.path().is_none());
    assert!(!path(dir.path(), "blobs", &sample).exists());
    assert_eq!(sample.check(&file).len() as u32, sample.count() - 1);
    assert!(file.write(sample.proven(4)).unwrap().complete);
    assert_eq!(fs::read(file.path().unwrap()).unwrap(), sample.bytes);
    assert_eq!(early, flipped, "what was handed out before does not change");
    assert_ne!(fs::read(link).unwrap(), sample.bytes, "nor does the user's hard link");
    assert_eq!(file.verify_all(|_, _| ()).unwrap(), []);
}

#[test]
fn a_bad_blob_that_cannot_be_moved_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (sample, other) = (Sample::new(1, 2 * MIB), Sample::new(2, 2 * MIB));
    let (file, good) = (sample.complete(&store), other.complete(&store));
    let early = file.read(sample.index(3)).unwrap();
    flip(&file.path().unwrap(), sample.offset(4));
    // A directory in the way stands for a full disk.
    fs::create_dir(path(dir.path(), "partial", &sample).with_extension("new")).unwrap();
    assert!(file.verify_all(|_, _| ()).is_err());
    assert!(!file.has(sample.index(3)) && matches!(file.read(sample.index(3)), Err(StoreError::Gone { .. })));
    assert_eq!(&early[..], sample.piece(3));
    assert!(store.get(&sample.blob.digest).is_none() && !path(dir.path(), "blobs", &sample).exists());
    assert_eq!(other.check(&good).len(), 8);
}

#[test]
fn a_move_that_was_interrupted_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, 5 * MIB);
    let store = open(dir.path());
    let file = sample.complete(&store);
    let finished = fs::read(file.path().unwrap()).unwrap();
    flip(&file.path().unwrap(), sample.offset(4));
    file.verify_all(|_, _| ()).unwrap();
    drop((file, store));
    // Killed before the rename: the finished file still has its name, and an unfinished one lies about.
    let (blobs, partial) = (path(dir.path(), "blobs", &sample), path(dir.path(), "partial", &sample));
    fs::rename(&partial, &blobs).unwrap();
    flip(&blobs, sample.offset(4) + 5);
    fs::write(partial.with_extension("new"), "half").unwrap();
    let store = open(dir.path());
    assert!(!partial.with_extension("new").exists() && !store.held()[0].complete);
    assert_eq!(sample.check(&store.get(&sample.blob.digest).unwrap()).len(), 19);
    drop(store);
    // Killed before the old file was unlinked: both have a name.
    fs::write(&blobs, finished).unwrap();
    let store = open(dir.path());
    assert!(!blobs.exists());
    assert_eq!(sample.check(&store.get(&sample.blob.digest).unwrap()).len(), 19);
}

#[test]
fn what_belongs_to_nothing_is_swept_up() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, lost, short) = (Sample::new(1, MIB), Sample::new(2, MIB), Sample::new(3, MIB));
    {
        let store = open(dir.path());
        kept.write(&store, [0]);
        lost.write(&store, [0]);
        short.write(&store, [0]);
    }
    fs::remove_file(path(dir.path(), "side", &lost)).unwrap();
    File::options()
        .write(true)
        .open(path(dir.path(), "partial", &short))
        .unwrap()
        .set_len(1000)
        .unwrap();
    fs::write(path(dir.path(), "side", &Sample::new(4, 1)), "x").unwrap();
    fs::write(dir.path().join("partial/notes"), "the operator's").unwrap();
    let store = open(dir.path());
    assert_eq!(
        store.held().iter().map(|held| held.blob).collect::<Vec<_>>(),
        [kept.blob]
    );
    let names = |below: &str| fs::read_dir(dir.path().join(below)).unwrap().count();
    assert_eq!((names("partial"), names("side")), (2, 1));
}
