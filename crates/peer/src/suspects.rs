//! Midstates of blobs whose chain did not close, kept until the true chain shows whose signature was on a false one.

use std::collections::HashMap;
use std::sync::Mutex;

use piece::{Digest, NodeId, SignedRun};
use store::BlobFile;

/// Blobs with evidence at most.
const MAX_BLOBS: usize = 64;
/// Runs kept per blob; an honest voucher's 64 runs already cover 4,096 pieces.
const MAX_RUNS: usize = 256;

/// The evidence.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    runs: Mutex<HashMap<Digest, Vec<SignedRun>>>,
}

impl Suspects {
    /// Keeps what was vouched for a blob that had to be discarded.
    pub(crate) fn keep(&self, digest: Digest, runs: Vec<SignedRun>) {
        let mut all = self.runs.lock().expect("no holder of this lock panics");
        if all.len() < MAX_BLOBS || all.contains_key(&digest) {
            let kept = all.entry(digest).or_default();
            kept.extend(runs.into_iter().take(MAX_RUNS.saturating_sub(kept.len())));
        }
    }

    /// The blob is proven now: who had signed what is false? Of several, the one refuted at the lowest boundary lied; the
    /// others may have hashed on from there in good faith.
    pub(crate) fn judge(&self, file: &BlobFile) -> Option<NodeId> {
        let runs = self
            .runs
            .lock()
            .expect("no holder of this lock panics")
            .remove(&file.blob().digest)?;
        let refuted = runs.iter().filter_map(|run| Some((file.refutes(run)?, run.signer())));
        refuted.min_by_key(|(boundary, _)| *boundary).map(|(_, signer)| signer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piece::{Blob, Midstate, MidstateRun, Standing};

    #[test]
    fn the_true_chain_shows_who_lied() {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::open(store::Config::at(dir.path())).unwrap();
        let bytes = vec![7; 600 << 10];
        let blob = Blob {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        let key = identity::NodeKey::from_seed([9; 32]);
        let run = MidstateRun {
            blob,
            first: 1,
            midstates: vec![Midstate::START],
            standing: Standing::Closed,
        };
        let forged = SignedRun::sign(run, key.signing_key()).unwrap();
        let suspects = Suspects::default();
        suspects.keep(blob.digest, vec![forged]);
        let file = store.insert(blob, None, &bytes).unwrap();
        assert_eq!(suspects.judge(&file), Some(key.node_id()));
        assert_eq!(suspects.judge(&file), None, "judged once");
    }

    #[test]
    fn evidence_is_bounded_in_blobs_and_runs() {
        let blob = Blob {
            digest: Digest::EMPTY,
            size: 600 << 10,
        };
        let run = MidstateRun {
            blob,
            first: 1,
            midstates: vec![Midstate::START],
            standing: Standing::Closed,
        };
        let run = SignedRun::sign(run, identity::NodeKey::from_seed([9; 32]).signing_key()).unwrap();
        let suspects = Suspects::default();
        for n in 0..2 * MAX_BLOBS {
            suspects.keep(Digest::of(&[n as u8]), vec![run.clone(); MAX_RUNS - 1]);
        }
        suspects.keep(Digest::of(&[0]), vec![run; 100]);
        let kept = suspects.runs.lock().unwrap();
        assert_eq!((kept.len(), kept[&Digest::of(&[0])].len()), (MAX_BLOBS, MAX_RUNS));
    }
}
