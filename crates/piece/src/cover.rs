//! The checked runs that are worth keeping: a minimal cover of the boundaries they hold.
//!
//! No run is kept whose boundaries the others hold. So starts and ends ascend together, no boundary is held by more than
//! two runs, and 65,536 boundaries need at most 4 MiB of midstates in runs, whatever the signers send.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::SignedRun;

/// A minimal cover, by first boundary.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cover {
    runs: BTreeMap<u32, SignedRun>,
}

impl Cover {
    /// Adds a run whose bounds and signature were checked, and drops those that it makes needless; it may be needless itself.
    pub(crate) fn add(&mut self, run: SignedRun) {
        let new = extent(&run);
        let before = self.runs.range(..=new.start).next_back().map(|(_, run)| extent(run));
        let after = self
            .runs
            .range(new.start + 1..)
            .map(|(_, run)| extent(run))
            .find(|after| after.end > new.end);
        let needless = before.is_some_and(|before| {
            before.end >= new.end || (before.start < new.start && after.is_some_and(|after| before.end >= after.start))
        });
        if needless {
            return;
        }
        let inside = |run: &SignedRun| extent(run).end <= new.end;
        let replaced: Vec<u32> = self
            .runs
            .range(new.start..)
            .take_while(|(_, run)| inside(run))
            .map(|(first, _)| *first)
            .collect();
        replaced.iter().for_each(|first| {
            self.runs.remove(first);
        });
        // Once on each side is enough: until now, no two runs with another between them touched.
        let below: Vec<_> = self
            .runs
            .range(..new.start)
            .rev()
            .take(2)
            .map(|(_, run)| extent(run))
            .collect();
        if let [next, beyond] = &below[..]
            && beyond.end >= new.start
        {
            self.runs.remove(&next.start);
        }
        let above: Vec<_> = self
            .runs
            .range(new.start..)
            .take(2)
            .map(|(_, run)| extent(run))
            .collect();
        if let [next, beyond] = &above[..]
            && new.end >= beyond.start
        {
            self.runs.remove(&next.start);
        }
        self.runs.insert(new.start, run);
    }

    /// The run that holds a boundary, and of two the one that reaches further: the last to begin by then.
    pub(crate) fn holding(&self, boundary: u32) -> Option<&SignedRun> {
        let (_, run) = self.runs.range(..=boundary).next_back()?;
        extent(run).contains(&boundary).then_some(run)
    }

    /// The runs, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SignedRun> {
        self.runs.values()
    }

    /// All runs, leaving none.
    pub(crate) fn take(&mut self) -> Vec<SignedRun> {
        std::mem::take(&mut self.runs).into_values().collect()
    }
}

/// The boundaries of a run whose bounds were checked.
pub(crate) fn extent(run: &SignedRun) -> Range<u32> {
    let run = run.run();
    run.first..run.first + run.midstates.len() as u32
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::{Blob, Digest, Midstate, MidstateRun, Standing};

    const BOUNDARIES: u32 = 256;

    fn run(first: u32, count: u32) -> SignedRun {
        let blob = Blob {
            digest: Digest::of(b"x"),
            size: 4 << 30,
        };
        let midstates = vec![Midstate::START; count as usize];
        let run = MidstateRun {
            blob,
            first,
            midstates,
            standing: Standing::Closed,
        };
        SignedRun::sign(run, &SigningKey::from_bytes(&[7; 32])).unwrap()
    }

    fn held(extents: &[Range<u32>]) -> Vec<bool> {
        (0..BOUNDARIES + 64)
            .map(|n| extents.iter().any(|extent| extent.contains(&n)))
            .collect()
    }

    #[test]
    fn a_longer_run_replaces_what_it_covers() {
        let mut cover = Cover::default();
        (1..=10).for_each(|first| cover.add(run(first, 1)));
        assert_eq!(cover.iter().count(), 10);
        cover.add(run(1, 10));
        assert_eq!(cover.iter().map(extent).collect::<Vec<_>>(), vec![1..11]);
        cover.add(run(3, 4));
        assert_eq!(cover.iter().count(), 1, "a shorter one adds nothing");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn holds_all_it_was_given_and_nothing_needless(
            given in prop::collection::vec((1..BOUNDARIES, 1u32..=64), 1..40),
        ) {
            let mut cover = Cover::default();
            let mut added = Vec::new();
            for (first, count) in given {
                cover.add(run(first, count));
                added.push(first..first + count);
                let kept: Vec<_> = cover.iter().map(extent).collect();
                prop_assert_eq!(held(&kept), held(&added));
                for skipped in 0..kept.len() {
                    let mut rest = kept.clone();
                    rest.remove(skipped);
                    prop_assert_ne!(held(&rest), held(&kept), "{:?} is needless in {:?}", kept[skipped], kept);
                }
            }
            for boundary in 0..BOUNDARIES + 64 {
                let furthest = cover.iter().map(extent).filter(|extent| extent.contains(&boundary)).map(|e| e.end).max();
                prop_assert_eq!(cover.holding(boundary).map(|run| extent(run).end), furthest);
            }
        }
    }
}
