//! What comes, stays and goes.

use std::os::unix::fs::MetadataExt as _;

use piece::Blob;
use store::{Config, OpenError, Store, StoreError};

use crate::sample::{Sample, open, open_small};

const MIB: usize = 1 << 20;

#[test]
fn one_store_per_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = Store::open(Config::at(dir.path())).unwrap_err();
    assert!(
        matches!(&refused, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id()),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains(&std::process::id().to_string()) && text.contains(dir.path().to_str().unwrap()),
        "{text}"
    );
    let clone = store.clone();
    drop(store);
    assert!(Store::open(Config::at(dir.path())).is_err(), "a clone still holds it");
    drop(clone);
    open(dir.path());
}

#[test]
fn everything_is_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, part, small) = (Sample::new(1, 5 * MIB), Sample::new(2, 2 * MIB), Sample::new(3, 1000));
    for clean in [true, false, true] {
        let store = open(dir.path());
        whole.complete(&store);
        let file = part.write(&store, [0, 3, 7]);
        file.add_source("registry.example/org/model").unwrap();
        assert!(!file.add_source("registry.example/org/model").unwrap(), "known already");
        drop(file);
        store
            .insert(
                small.blob,
                Some("application/vnd.oci.image.manifest.v1+json"),
                &small.bytes,
            )
            .unwrap();
        store.pin(&whole.blob.digest).unwrap();
        if clean {
            store.close().unwrap();
        } else {
            drop(store);
        }
        let store = open(dir.path());
        let mut held = store.held();
        held.sort_by_key(|held| held.blob.size);
        let [small_held, part_held, whole_held] = &held[..] else {
            panic!("{held:?}")
        };
        assert!(small_held.complete && !small_held.pinned && !small_held.in_use);
        assert_eq!(
            small_held.media_type.as_deref(),
            Some("application/vnd.oci.image.manifest.v1+json")
        );
        assert_eq!((part_held.pieces, part_held.complete), (3, false));
        assert_eq!(part_held.sources, ["registry.example/org/model"]);
        assert!(whole_held.complete && whole_held.pinned && whole_held.last_used > 1_700_000_000);
        assert_eq!(whole.check(&store.get(&whole.blob.digest).unwrap()).len(), 20);
        assert_eq!(part.check(&store.get(&part.blob.digest).unwrap()), [0, 3, 7]);
        assert_eq!(small.check(&store.get(&small.blob.digest).unwrap()), [0]);
    }
}

#[test]
fn a_closed_store_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 2 * MIB);
    let file = sample.write(&store, [0]);
    store.clone().close().unwrap();
    assert!(matches!(file.write(sample.proven(1)), Err(StoreError::Closed)));
    assert!(matches!(store.begin(sample.blob, None), Err(StoreError::Closed)));
    assert!(matches!(store.clone().close(), Err(StoreError::Closed)));
    assert!(store.get(&sample.blob.digest).is_none());
    assert_eq!(sample.check(&file), [0], "what was read before may still be served");
}

#[test]
fn space_is_reserved_when_a_blob_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 3 * MIB);
    store.begin(sample.blob, None).unwrap();
    let path = dir.path().join("partial").join(sample.blob.digest.hex());
    let metadata = std::fs::metadata(path).unwrap();
    assert_eq!(metadata.len(), sample.blob.size);
    assert!(
        metadata.blocks() * 512 >= sample.blob.size,
        "reserved (this needs a filesystem with fallocate)"
    );
    assert!(store.usage().used >= sample.blob.size);
}

#[test]
fn room_is_made_by_evicting_the_least_recently_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path(), 10 * MIB as u64 + MIB as u64 / 2);
    let samples: Vec<_> = (0..5).map(|seed| Sample::new(seed, 2 * MIB)).collect();
    for sample in &samples[..4] {
        sample.complete(&store);
    }
    drop(store.get(&samples[0].blob.digest).unwrap());
    let pinned = samples[1].blob.digest;
    store.pin(&pinned).unwrap();
    let in_use = store.get(&samples[2].blob.digest).unwrap();
    // 10 MiB would be past the high mark of 9.45, so it goes down to 8.4: one must go, and only 3 and 0 may.
    samples[4].complete(&store);
    let here = |sample: &Sample| store.get(&sample.blob.digest).is_some();
    assert_eq!(
        samples.iter().map(here).collect::<Vec<_>>(),
        [true, true, true, false, true]
    );
    assert!(samples[2].check(&in_use).len() == 8 && store.usage().used <= store.usage().high);
    // A blob that fits only without what is held: refused, and nothing is evicted in vain.
    let big = Blob {
        digest: samples[3].blob.digest,
        size: 7 * MIB as u64,
    };
    let full = store.begin(big, None).unwrap_err();
    assert!(
        matches!(full, StoreError::Full { held, .. } if held > 4 * MIB as u64 && held < 5 * MIB as u64),
        "{full}"
    );
    assert_eq!(store.usage().blobs, 4);
    store.unpin(&pinned).unwrap();
    drop(in_use);
    store.begin(big, None).unwrap();
    assert!(store.usage().used <= store.usage().capacity);
    let too_big = Blob {
        size: 11 * MIB as u64,
        ..samples[0].blob
    };
    assert!(matches!(store.begin(too_big, None), Err(StoreError::Full { .. })));
}

#[test]
fn evicting_goes_from_mark_to_mark() {
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<_> = (0..5).map(|seed| Sample::new(seed, MIB)).collect();
    {
        let store = open(dir.path());
        samples.iter().for_each(|sample| drop(sample.complete(&store)));
    }
    let store = open_small(dir.path(), 6 * MIB as u64);
    assert_eq!(store.evict(), [], "below the high mark");
    drop(store);
    let store = open_small(dir.path(), 5 * MIB as u64);
    let gone = store.evict();
    assert_eq!(
        gone,
        [samples[0].blob.digest, samples[1].blob.digest],
        "the oldest, down to 4 MiB"
    );
    assert!(store.usage().used <= store.usage().low);
    assert_eq!(store.evict(), []);
}

#[test]
fn a_removed_blob_is_gone_for_every_handle_but_not_for_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 2 * MIB);
    let file = sample.complete(&store);
    let bytes = file.read(sample.index(3)).unwrap();
    assert!(store.remove(&sample.blob.digest).unwrap());
    assert!(!store.remove(&sample.blob.digest).unwrap());
    assert!(matches!(file.read(sample.index(3)), Err(StoreError::Gone { .. })));
    assert_eq!(&bytes[..], sample.piece(3), "unlinked, but mapped");
    assert_eq!(store.usage().used, 0);
    assert!(store.get(&sample.blob.digest).is_none());
    let left = |name: &str| std::fs::read_dir(dir.path().join(name)).unwrap().count();
    assert_eq!((left("blobs"), left("partial"), left("side")), (0, 0, 0));
    assert_eq!(sample.check(&sample.write(&store, [5])), [5], "and can begin again");
    drop(file);
    assert_eq!(&bytes[..], sample.piece(3));
}

#[test]
fn discarding_returns_who_vouched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 2 * MIB);
    let file = sample.write(&store, [0]);
    let other = file.clone();
    assert_eq!(file.discard().unwrap(), [sample.run(1)]);
    assert!(matches!(other.write(sample.proven(1)), Err(StoreError::Gone { .. })));
    assert!(store.held().is_empty());
}

#[test]
fn a_wrong_size_yields_to_a_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 2 * MIB);
    let wrong = Blob {
        size: 5 * MIB as u64,
        ..sample.blob
    };
    let file = store.begin(wrong, None).unwrap();
    assert!(
        matches!(store.begin(sample.blob, None), Err(StoreError::OtherSize { .. })),
        "somebody works with it"
    );
    drop(file);
    sample.complete(&store);
    assert!(
        matches!(store.begin(wrong, None), Err(StoreError::OtherSize { .. })),
        "this one is proven"
    );
    assert_eq!(store.usage().blobs, 1);
}

#[test]
fn a_disk_that_refuses_harms_no_other_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (good, bad) = (Sample::new(1, 2 * MIB), Sample::new(2, 2 * MIB));
    let file = good.write(&store, [0]);
    // A directory in the way stands for any refusal; permissions would not stop root.
    std::fs::create_dir(dir.path().join("partial").join(bad.blob.digest.hex())).unwrap();
    let error = store.begin(bad.blob, None).unwrap_err();
    assert!(
        matches!(error, StoreError::Io { .. }) && error.to_string().contains(&bad.blob.digest.hex()),
        "{error}"
    );
    assert_eq!(good.check(&file), [0]);
    file.write(good.proven(1)).unwrap();
    assert_eq!(store.held().len(), 1, "what could not begin does not count");
    std::fs::remove_dir(dir.path().join("partial").join(bad.blob.digest.hex())).unwrap();
    bad.complete(&store);
}

#[test]
fn a_filesystem_fuller_than_the_quota_evicts_and_then_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_small(dir.path(), u64::MAX / 2);
    let (idle, used) = (Sample::new(1, 2 * MIB), Sample::new(2, 2 * MIB));
    idle.complete(&store);
    let file = used.complete(&store);
    let eight_tib = Blob {
        size: 1 << 43,
        ..Sample::new(3, 1).blob
    };
    let error = store.begin(eight_tib, None).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(store.get(&idle.blob.digest).is_none(), "it had to go for the attempt");
    assert!(
        !dir.path().join("partial").join(eight_tib.digest.hex()).exists(),
        "nothing half-made is left"
    );
    assert_eq!(used.check(&file).len(), 8);
    assert!(store.get(&eight_tib.digest).is_none());
}

#[test]
fn a_side_file_that_grows_is_rewritten_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, 2 * MIB);
    let file = sample.write(&store, [2, 4]);
    let side = dir.path().join("side").join(sample.blob.digest.hex());
    let mut longest = 0;
    for turn in 0..20_000 {
        let digest = &sample.blob.digest;
        if turn % 2 == 0 {
            store.pin(digest)
        } else {
            store.unpin(digest)
        }
        .unwrap();
        let length = std::fs::metadata(&side).unwrap().len();
        if length < longest {
            break;
        }
        longest = length;
    }
    assert!(
        longest < 300 << 10 && std::fs::metadata(&side).unwrap().len() < 4096,
        "{longest}"
    );
    file.write(sample.proven(6)).unwrap();
    drop((file, store));
    let store = open(dir.path());
    let file = store.get(&sample.blob.digest).unwrap();
    assert_eq!(sample.check(&file), [2, 4, 6]);
    assert_eq!(
        (file.media_type().as_deref(), file.known_prefix()),
        (Some("application/test"), sample.count() - 1)
    );
}
