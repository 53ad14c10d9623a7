//! Random operations against a reference that remembers which pieces were stored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use piece::Digest;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use store::{BlobFile, Settled, Store, StoreError};

use crate::sample::{Sample, open_small};

/// Room for about three of the five blobs.
const CAPACITY: u64 = 7 << 20;
const SIZES: [usize; 5] = [700, 300_000, 1_300_001, 3 << 20, (4 << 20) + 9];

#[derive(Default)]
struct Expected {
    pieces: BTreeSet<u32>,
    pinned: bool,
}

struct World<'a> {
    dir: &'a Path,
    samples: &'a [Sample],
    store: Option<Store>,
    open: BTreeMap<Digest, BlobFile>,
    expected: BTreeMap<Digest, Expected>,
    refused: usize,
}

impl World<'_> {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, rng: &mut ChaCha8Rng) {
        let samples = self.samples;
        let sample = &samples[rng.random_range(0..samples.len())];
        let digest = sample.blob.digest;
        match rng.random_range(0..100) {
            0..50 => self.store_piece(sample, rng),
            50..60 => drop(self.open.remove(&digest)),
            60..65 => {
                let had = self.expected.remove(&digest).is_some();
                self.open.remove(&digest);
                assert_eq!(self.store().remove(&digest).unwrap(), had);
            }
            65..75 => {
                let pin = rng.random_bool(0.4);
                let done = if pin {
                    self.store().pin(&digest)
                } else {
                    self.store().unpin(&digest)
                };
                match self.expected.get_mut(&digest) {
                    Some(expected) => {
                        done.unwrap();
                        expected.pinned = pin;
                    }
                    None => assert!(matches!(done, Err(StoreError::NotHeld { .. }))),
                }
            }
            75..80 => drop(self.store().evict()),
            80..88 => {
                if let Some(file) = self.open.get(&digest) {
                    assert_eq!(file.verify_all(|_, good| assert!(good)).unwrap(), []);
                }
            }
            88..92 => self.rot(sample, rng),
            _ => {
                self.open.clear();
                let store = self.store.take().unwrap();
                if rng.random_bool(0.5) {
                    store.close().unwrap();
                } else {
                    drop(store);
                }
                self.store = Some(open_small(self.dir, CAPACITY));
            }
        }
    }

    fn store_piece(&mut self, sample: &Sample, rng: &mut ChaCha8Rng) {
        let digest = sample.blob.digest;
        let file = match self.store().begin(sample.blob, None) {
            Ok(file) => file,
            Err(StoreError::Full { .. }) => {
                self.refused += 1;
                return;
            }
            Err(other) => panic!("{other}"),
        };
        if sample.count() > 1 {
            file.accept(sample.run(1)).unwrap();
        }
        let number = rng.random_range(0..sample.count());
        let expected = self.expected.entry(digest).or_default();
        let new = expected.pieces.insert(number);
        let full = expected.pieces.len() as u32 == sample.count();
        if rng.random_bool(0.7) {
            let written = file.write(sample.proven(number)).unwrap();
            assert_eq!((written.new, written.complete), (new, full));
        } else {
            file.stage(sample.offset(number), sample.piece(number)).unwrap();
            assert_eq!(
                file.settle(sample.index(number)).unwrap(),
                Settled::Good { complete: full }
            );
        }
        self.open.insert(digest, file);
    }

    /// Flips a bit of a piece on disk and has it found.
    fn rot(&mut self, sample: &Sample, rng: &mut ChaCha8Rng) {
        use std::os::unix::fs::FileExt as _;
        let digest = sample.blob.digest;
        let (Some(file), Some(expected)) = (self.open.get(&digest), self.expected.get_mut(&digest)) else {
            return;
        };
        let Some(number) = expected.pieces.iter().copied().nth(rng.random_range(0..8)) else {
            return;
        };
        let below = if file.is_complete() { "blobs" } else { "partial" };
        let data = std::fs::File::options()
            .write(true)
            .open(self.dir.join(below).join(digest.hex()))
            .unwrap();
        data.write_all_at(&[!sample.piece(number)[0]], sample.offset(number))
            .unwrap();
        assert_eq!(file.verify_all(|_, _| ()).unwrap(), [sample.index(number)]);
        expected.pieces.remove(&number);
    }

    fn check(&mut self) {
        let usage = self.store().usage();
        assert!(usage.used <= usage.capacity, "{usage:?}");
        let held: BTreeMap<_, _> = self
            .store()
            .held()
            .into_iter()
            .map(|held| (held.blob.digest, held))
            .collect();
        let open = &self.open;
        self.expected.retain(|digest, expected| {
            let here = held.contains_key(digest);
            assert!(
                here || !expected.pinned && !open.contains_key(digest),
                "{digest} must not be evicted"
            );
            here
        });
        assert_eq!(held.len(), self.expected.len());
        for sample in self.samples {
            let digest = &sample.blob.digest;
            let Some(expected) = self.expected.get(digest) else {
                continue;
            };
            let held = &held[digest];
            assert_eq!(
                (held.pieces as usize, held.pinned),
                (expected.pieces.len(), expected.pinned),
                "{held:?}"
            );
            assert_eq!(held.complete, held.pieces == sample.count());
            if let Some(file) = open.get(digest) {
                assert_eq!(sample.check(file), expected.pieces.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn agrees_with_the_reference() {
    let samples: Vec<_> = SIZES
        .iter()
        .enumerate()
        .map(|(seed, size)| Sample::new(seed as u64, *size))
        .collect();
    let mut refused = 0;
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World {
            dir: dir.path(),
            samples: &samples,
            store: Some(open_small(dir.path(), CAPACITY)),
            open: BTreeMap::new(),
            expected: BTreeMap::new(),
            refused: 0,
        };
        for step in 0..150 {
            println!("seed {seed}, step {step}");
            world.step(&mut rng);
            world.check();
        }
        refused += world.refused;
    }
    assert!(refused > 0, "the quota was never felt");
}
