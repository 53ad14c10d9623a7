//! Blobs made from seeds, with everything that proves them.

use std::path::Path;

use ed25519_dalek::SigningKey;
use piece::{
    Blob, Chain, Digest, Geometry, Midstate, MidstateRun, PieceIndex, PrefixHasher, Proven, SignedRun, Standing, prove,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use store::{BlobFile, Config, Store};

/// A blob and all of its midstates.
pub(crate) struct Sample {
    pub(crate) blob: Blob,
    pub(crate) bytes: Vec<u8>,
    /// The midstate at boundary *n* at index *n*.
    midstates: Vec<Midstate>,
}

impl Sample {
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let mut bytes = vec![0; size];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        let blob = Blob {
            digest: Digest::of(&bytes),
            size: size as u64,
        };
        let geometry = blob.geometry();
        let (mut hasher, mut midstates) = (PrefixHasher::new(), vec![Midstate::START]);
        for piece in geometry.pieces().filter(|piece| !geometry.is_last(*piece)) {
            let range = geometry.range(piece);
            midstates.push(hasher.piece(&bytes[range.start as usize..range.end as usize]));
        }
        Self { blob, bytes, midstates }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.blob.geometry()
    }

    pub(crate) fn count(&self) -> u32 {
        self.geometry().count()
    }

    pub(crate) fn index(&self, number: u32) -> PieceIndex {
        self.geometry().piece(number).unwrap()
    }

    pub(crate) fn piece(&self, number: u32) -> &[u8] {
        let range = self.geometry().range(self.index(number));
        &self.bytes[range.start as usize..range.end as usize]
    }

    pub(crate) fn offset(&self, number: u32) -> u64 {
        self.geometry().range(self.index(number)).start
    }

    pub(crate) fn midstate(&self, boundary: u32) -> Midstate {
        self.midstates[boundary as usize]
    }

    pub(crate) fn proven(&self, number: u32) -> Proven<&[u8]> {
        let mut chain = Chain::new(self.blob);
        for boundary in [number, number + 1] {
            if let Some(midstate) = self.midstates.get(boundary as usize) {
                chain.learn(boundary, *midstate).unwrap();
            }
        }
        prove(&chain.link(self.index(number)).unwrap(), vec![self.piece(number)]).unwrap()
    }

    /// All midstates, signed by a reader of the registry.
    pub(crate) fn run(&self, signer: u8) -> SignedRun {
        self.run_of(signer, self.midstates[1..].to_vec())
    }

    /// These midstates from boundary 1 on, true or not.
    pub(crate) fn run_of(&self, signer: u8, midstates: Vec<Midstate>) -> SignedRun {
        let run = MidstateRun {
            blob: self.blob,
            first: 1,
            midstates,
            standing: Standing::Reader { epoch: 1 },
        };
        SignedRun::sign(run, &key(signer)).unwrap()
    }

    /// Whether all that the handle claims is right. Returns the pieces it has.
    pub(crate) fn check(&self, file: &BlobFile) -> Vec<u32> {
        let here: Vec<_> = (0..self.count())
            .filter(|number| file.has(self.index(*number)))
            .collect();
        for number in &here {
            assert_eq!(
                &file.read(self.index(*number)).unwrap()[..],
                self.piece(*number),
                "piece {number}"
            );
        }
        assert!(!file.is_complete() || here.len() as u32 == self.count());
        here
    }

    /// Begins the blob, with all midstates, and stores these pieces.
    pub(crate) fn write(&self, store: &Store, pieces: impl IntoIterator<Item = u32>) -> BlobFile {
        let file = store.begin(self.blob, Some("application/test")).unwrap();
        if self.count() > 1 {
            file.accept(self.run(1)).unwrap();
        }
        for number in pieces {
            file.write(self.proven(number)).unwrap();
        }
        file
    }

    /// Stores all of it.
    pub(crate) fn complete(&self, store: &Store) -> BlobFile {
        let file = self.write(store, 0..self.count());
        assert!(file.is_complete());
        file
    }
}

pub(crate) fn key(signer: u8) -> SigningKey {
    SigningKey::from_bytes(&[signer; 32])
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(Config::at(dir)).unwrap()
}

/// A store with this quota, whose water marks are 0.9 and 0.8 of it.
pub(crate) fn open_small(dir: &Path, capacity: u64) -> Store {
    Store::open(Config {
        capacity,
        ..Config::at(dir)
    })
    .unwrap()
}
