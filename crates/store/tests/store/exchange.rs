//! Pieces in, pieces out.

use std::sync::atomic::{AtomicU32, Ordering};

use piece::{ChainError, Digest, Midstate, NodeId, Standing};
use store::{AcceptError, Settled, StoreError, Written};

use crate::sample::{Sample, key, open};

#[test]
fn pieces_in_any_order_make_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(1, (5 << 20) + 77);
    let file = sample.write(&store, []);
    let order: Vec<u32> = (0..sample.count()).rev().collect();
    for number in &order {
        let complete = *number == 0;
        assert!(!file.is_complete() && file.path().is_none());
        assert!(matches!(
            file.read(sample.index(*number)),
            Err(StoreError::Missing { .. })
        ));
        assert_eq!(
            file.write(sample.proven(*number)).unwrap(),
            Written { new: true, complete }
        );
        assert_eq!(
            file.write(sample.proven(*number)).unwrap(),
            Written { new: false, complete }
        );
        assert_eq!(&file.read(sample.index(*number)).unwrap()[..], sample.piece(*number));
    }
    assert!(file.bitfield().is_full());
    assert_eq!(std::fs::read(file.path().unwrap()).unwrap(), sample.bytes);
    let held = &store.held()[0];
    assert_eq!(
        (held.blob, held.pieces, held.complete),
        (sample.blob, sample.count(), true)
    );
    assert_eq!(held.media_type.as_deref(), Some("application/test"));
}

#[test]
fn the_empty_blob_is_complete_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let empty = Sample::new(0, 0);
    let file = store.begin(empty.blob, None).unwrap();
    assert!(file.is_complete());
    assert!(file.read_range(0..0).unwrap().is_empty());
    let forged = piece::Blob {
        digest: Digest::of(b"x"),
        size: 0,
    };
    assert!(matches!(
        store.begin(forged, None),
        Err(StoreError::WrongContent { .. })
    ));
    assert!(store.get(&forged.digest).is_none());
}

#[test]
fn ranges_are_read_inside_verified_pieces_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(2, 1_500_000);
    let file = sample.write(&store, [1, 2, 4]);
    let len = sample.geometry().piece_len();
    assert_eq!(
        &file.read_range(len + 5..3 * len).unwrap()[..],
        &sample.bytes[len as usize + 5..3 * len as usize]
    );
    assert!(matches!(
        file.read_range(len..3 * len + 1),
        Err(StoreError::Missing { piece: 3, .. })
    ));
    assert!(matches!(
        file.read_range(len - 1..len),
        Err(StoreError::Missing { piece: 0, .. })
    ));
    assert!(matches!(
        file.read_range(0..sample.blob.size + 1),
        Err(StoreError::OutOfRange { .. })
    ));
    assert!(file.read_range(0..0).unwrap().is_empty());
    let longer = Sample::new(3, 3_000_000);
    assert!(!file.has(longer.index(11)) && file.link(longer.index(11)).is_none());
    assert!(matches!(file.read(longer.index(11)), Err(StoreError::Missing { .. })));
    assert!(matches!(
        file.write(longer.proven(0)),
        Err(StoreError::OtherBlob { .. })
    ));
}

#[test]
fn the_readers_way_learns_every_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(4, 1_500_000);
    let file = store.begin(sample.blob, None).unwrap();
    let last = sample.count() - 1;
    assert!(matches!(
        file.settle(sample.index(0)),
        Err(StoreError::NotStaged { .. })
    ));
    // In chunks that respect no boundary, from two ends.
    for (number, chunk) in sample.bytes.chunks(100_000).enumerate() {
        file.stage(number as u64 * 100_000, chunk).unwrap();
    }
    assert_eq!(file.settle(sample.index(3)).unwrap(), Settled::StartUnknown);
    for number in 0..=last {
        assert!(!file.has(sample.index(number)));
        assert_eq!(
            file.settle(sample.index(number)).unwrap(),
            Settled::Good {
                complete: number == last
            }
        );
        if number < last {
            assert_eq!(file.boundary(number + 1), Some(sample.midstate(number + 1)));
        }
    }
    assert!(file.is_complete());
    assert_eq!(sample.check(&file).len() as u32, sample.count());
}

#[test]
fn staging_skips_what_is_here_and_needs_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(5, 1_500_000);
    let file = sample.write(&store, [1]);
    let garbage = vec![0xee; 3 * sample.piece(0).len()];
    file.stage(0, &garbage).unwrap();
    assert_eq!(sample.check(&file), [1], "the verified piece was left alone");
    // A verified piece settles without staging: the reader learns its end as its own.
    file.stage(0, sample.piece(0)).unwrap();
    assert_eq!(file.settle(sample.index(0)).unwrap(), Settled::Good { complete: false });
    assert_eq!(file.settle(sample.index(1)).unwrap(), Settled::Good { complete: false });
    file.stage(sample.offset(3) + 1, &sample.piece(3)[1..]).unwrap();
    assert!(
        matches!(file.settle(sample.index(3)), Err(StoreError::NotStaged { .. })),
        "its first byte is missing"
    );
    file.stage(sample.offset(3), &sample.piece(3)[..1]).unwrap();
    assert_eq!(file.settle(sample.index(3)).unwrap(), Settled::Good { complete: false });
    assert!(matches!(
        file.stage(sample.blob.size, b"x"),
        Err(StoreError::OutOfRange { .. })
    ));
    // Staged garbage gives way to the proven piece.
    file.write(sample.proven(2)).unwrap();
    assert_eq!(sample.check(&file), [0, 1, 2, 3]);
}

#[test]
fn a_lying_registry_is_told_from_a_lying_voucher_by_nobody_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(6, 600_000);
    let file = sample.write(&store, []);
    let mut altered = sample.bytes.clone();
    altered[1000] ^= 1;
    file.stage(0, &altered).unwrap();
    let voucher = Some(NodeId::from_bytes(key(1).verifying_key().to_bytes()));
    assert_eq!(
        file.settle(sample.index(0)).unwrap(),
        Settled::Contradiction { boundary: 1, voucher }
    );
    assert!(
        matches!(file.settle(sample.index(0)), Err(StoreError::NotStaged { .. })),
        "the bytes were given up"
    );
    let unvouched = Sample::new(7, 600_000);
    let file = store.begin(unvouched.blob, None).unwrap();
    file.stage(0, &altered).unwrap();
    assert_eq!(
        file.settle(sample.index(0)).unwrap(),
        Settled::Good { complete: false },
        "nothing speaks against it yet"
    );
    file.settle(sample.index(1)).unwrap();
    assert_eq!(file.settle(sample.index(2)).unwrap(), Settled::WrongDigest);
    assert!(!file.is_complete() && !file.has(sample.index(2)));
}

#[test]
fn midstates_are_kept_and_contradictions_named() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(8, 1_500_000);
    let store = open(dir.path());
    let file = store.begin(sample.blob, None).unwrap();
    assert!(file.link(sample.index(1)).is_none());
    assert!(file.accept(sample.run(1)).unwrap());
    assert!(!file.accept(sample.run(1)).unwrap());
    let lie = sample.run_of(2, vec![sample.midstate(1), Midstate::START]);
    let refused = file.accept(lie.clone()).unwrap_err();
    assert!(
        matches!(
            refused,
            AcceptError::Chain(ChainError::Contradiction { boundary: 2, .. })
        ),
        "{refused}"
    );
    assert_eq!(file.refutes(&lie), Some(2));
    assert!(file.learn(2, Midstate::START).is_err());
    assert!(!file.learn(2, sample.midstate(2)).unwrap());
    drop((file, store));
    let store = open(dir.path());
    let file = store.get(&sample.blob.digest).unwrap();
    assert_eq!(file.known_prefix(), sample.count() - 1);
    let ours = file.runs_for(sample.index(1), &key(9), Some(3));
    assert!(
        ours.iter()
            .any(|run| run.run().first == 2 && run.run().standing == Standing::Reader { epoch: 3 })
    );
}

#[test]
fn runs_follow_the_standing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(9, 1_500_000);
    let (ours, signer) = (key(9), |number| {
        NodeId::from_bytes(key(number).verifying_key().to_bytes())
    });
    let file = store.begin(sample.blob, None).unwrap();
    assert!(
        file.runs_for(sample.index(2), &ours, Some(5)).is_empty(),
        "nothing is known"
    );
    file.stage(0, sample.piece(0)).unwrap();
    file.settle(sample.index(0)).unwrap();
    let learnt = file.runs_for(sample.index(0), &ours, Some(5));
    assert_eq!((learnt.len(), learnt[0].signer()), (1, signer(9)));
    assert_eq!(learnt[0].run().midstates, [sample.midstate(1)]);
    assert_eq!(
        file.runs_for(sample.index(0), &ours, None),
        learnt,
        "what was signed under the lease stays true after it"
    );
    file.accept(sample.run(1)).unwrap();
    let mixed = file.runs_for(sample.index(1), &ours, Some(5));
    assert_eq!(
        mixed.iter().map(|run| run.signer()).collect::<Vec<_>>(),
        [signer(9), signer(1)]
    );
    let relayed = file.runs_for(sample.index(1), &ours, None);
    assert_eq!(relayed.iter().map(|run| run.signer()).collect::<Vec<_>>(), [signer(1)]);
    for number in 0..sample.count() {
        file.write(sample.proven(number)).unwrap();
    }
    let closed = file.runs_for(sample.index(1), &ours, Some(5));
    assert_eq!(
        (closed[0].signer(), closed[0].run().standing),
        (signer(9), Standing::Closed)
    );
    closed[0].check().unwrap();
}

#[test]
fn many_threads_store_a_blob_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(10, (6 << 20) + 1);
    let file = sample.write(&store, []);
    let new = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (file, sample, new) = (file.clone(), &sample, &new);
            scope.spawn(move || {
                for turn in 0..sample.count() {
                    let number = (turn * 7 + thread * 5) % sample.count();
                    if thread == 0 {
                        file.stage(sample.offset(number), sample.piece(number)).unwrap();
                    }
                    let written = file.write(sample.proven(number)).unwrap();
                    new.fetch_add(u32::from(written.new), Ordering::Relaxed);
                    assert_eq!(&file.read(sample.index(number)).unwrap()[..], sample.piece(number));
                }
                assert!(file.is_complete() || !file.bitfield().is_full() || thread > 0);
            });
        }
    });
    assert_eq!(new.into_inner(), sample.count());
    assert!(file.is_complete());
    assert_eq!(std::fs::read(file.path().unwrap()).unwrap(), sample.bytes);
}

#[test]
fn whole_contents_are_checked_and_override_forged_midstates() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(11, 600_000);
    let wrong = store.insert(sample.blob, None, &sample.bytes[1..]).unwrap_err();
    assert!(matches!(wrong, StoreError::WrongContent { .. }));
    assert!(store.held().is_empty());
    let forged = store.begin(sample.blob, None).unwrap();
    forged
        .accept(sample.run_of(2, vec![Midstate::START, Midstate::START]))
        .unwrap();
    let file = store.insert(sample.blob, Some("application/x"), &sample.bytes).unwrap();
    assert_eq!(sample.check(&file), [0, 1, 2]);
    assert!(file.is_complete() && file.media_type().as_deref() == Some("application/x"));
    assert!(matches!(forged.write(sample.proven(0)), Err(StoreError::Gone { .. })));
    assert!(store.insert(sample.blob, None, &sample.bytes).unwrap().is_complete());
}
