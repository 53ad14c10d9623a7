//! Signed runs of midstates: none holds but those that were signed.

use ed25519_dalek::SigningKey;
use piece::{Blob, Chain, Digest, MAX_RUN, Midstate, MidstateRun, SignedRun, Standing};

use crate::Decoder;
use crate::exchange::round_trip;

pub(crate) const DECODER: Decoder = Decoder {
    name: "signed_run",
    check,
    words: &["\u{0}", "\u{18}@", "\u{1}"],
    max_len: 4 << 10,
    // A chain of the most pieces that a blob has, at 44 bytes each.
    memory: 8 << 20,
};

fn check(bytes: &[u8]) {
    let Some(run) = round_trip::<SignedRun>(bytes) else {
        return;
    };
    let Ok(told) = run.check() else { return };
    assert!((1..=MAX_RUN).contains(&told.midstates.len()));
    let last = u64::from(told.first) + told.midstates.len() as u64 - 1;
    assert!(told.first >= 1 && last < u64::from(told.blob.geometry().count()));
    assert!(samples().contains(&run), "nobody signed {told:?}");
    let mut chain = Chain::new(told.blob);
    assert_eq!(chain.accept(run.clone()), Ok(true));
    assert_eq!(chain.boundary(told.first), Some(told.midstates[0]));
    assert_eq!(chain.accept(run), Ok(false), "the same again is nothing new");
}

/// Everything that was ever signed with the key of these samples.
pub fn samples() -> Vec<SignedRun> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let sign = |size, first, count: usize, standing| {
        let blob = Blob {
            digest: Digest::from_bytes([9; 32]),
            size,
        };
        let midstates = (0..count).map(|at| Midstate::from_bytes([at as u8; 32])).collect();
        let run = MidstateRun {
            blob,
            first,
            midstates,
            standing,
        };
        SignedRun::sign(run, &key).expect("the sample lies inside its blob")
    };
    vec![
        sign(1 << 20, 1, 3, Standing::Closed),
        sign(10 << 20, 4, 1, Standing::Reader { epoch: 7 }),
        sign(u64::MAX, 65_472, MAX_RUN, Standing::Reader { epoch: u64::MAX }),
    ]
}
