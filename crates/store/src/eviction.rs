//! Which blobs go when room is needed: a pure decision.

use piece::Digest;

/// A blob that may have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which blob.
    pub digest: Digest,
    /// Bytes it counts.
    pub bytes: u64,
    /// When it was used last; only the order matters.
    pub last_used: u64,
    /// Whether somebody holds it open.
    pub in_use: bool,
    /// Whether the operator keeps it.
    pub pinned: bool,
}

impl Candidate {
    /// Whether it may go at all.
    pub const fn evictable(&self) -> bool {
        !self.in_use && !self.pinned
    }
}

/// The blobs to evict, least recently used first, until at most `low` of the `used` bytes remain or nothing more may go.
/// Never one in use or pinned. Equal times are ordered by digest, so that the plan depends on nothing else.
pub fn eviction_plan(candidates: &[Candidate], used: u64, low: u64) -> Vec<Digest> {
    let mut evictable: Vec<_> = candidates.iter().filter(|candidate| candidate.evictable()).collect();
    evictable.sort_unstable_by_key(|candidate| (candidate.last_used, candidate.digest));
    let mut left = used;
    let mut plan = Vec::new();
    for candidate in evictable {
        if left <= low {
            break;
        }
        left = left.saturating_sub(candidate.bytes);
        plan.push(candidate.digest);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(name: u8, bytes: u64, last_used: u64) -> Candidate {
        Candidate {
            digest: Digest::from_bytes([name; 32]),
            bytes,
            last_used,
            in_use: false,
            pinned: false,
        }
    }

    fn names(plan: &[Digest]) -> Vec<u8> {
        plan.iter().map(|digest| digest.as_bytes()[0]).collect()
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let all = [
            candidate(1, 10, 30),
            candidate(2, 10, 10),
            candidate(3, 10, 20),
            candidate(4, 10, 10),
        ];
        assert_eq!(names(&eviction_plan(&all, 40, 40)), []);
        assert_eq!(names(&eviction_plan(&all, 40, 39)), [2]);
        assert_eq!(names(&eviction_plan(&all, 40, 15)), [2, 4, 3]);
        assert_eq!(names(&eviction_plan(&all, 40, 0)), [2, 4, 3, 1]);
    }

    #[test]
    fn what_is_in_use_or_pinned_stays() {
        let busy = Candidate {
            in_use: true,
            ..candidate(1, 10, 1)
        };
        let pinned = Candidate {
            pinned: true,
            ..candidate(2, 10, 2)
        };
        assert_eq!(names(&eviction_plan(&[busy, pinned, candidate(3, 10, 3)], 30, 0)), [3]);
    }

    proptest! {
        #[test]
        fn a_plan_suffices_or_takes_all_and_is_minimal(
            parts in prop::collection::vec((1u64..100, 0u64..10, any::<bool>(), any::<bool>()), 0..40),
            low in 0u64..2000,
        ) {
            let all: Vec<_> = parts.iter().enumerate().map(|(name, &(bytes, last_used, in_use, pinned))| {
                Candidate { in_use, pinned, ..candidate(name as u8, bytes, last_used) }
            }).collect();
            let used: u64 = all.iter().map(|candidate| candidate.bytes).sum();
            let plan = eviction_plan(&all, used, low);
            let find = |digest: &Digest| *all.iter().find(|candidate| candidate.digest == *digest).unwrap();
            let gone: Vec<_> = plan.iter().map(find).collect();
            let freed: u64 = gone.iter().map(|candidate| candidate.bytes).sum();
            prop_assert!(gone.iter().all(Candidate::evictable));
            prop_assert!(used - freed <= low || gone.len() == all.iter().filter(|c| c.evictable()).count());
            if let Some(last) = gone.last() {
                prop_assert!(used - freed + last.bytes > low, "the last one was not needed");
            }
            let newest = gone.iter().map(|candidate| candidate.last_used).max();
            prop_assert!(all.iter().filter(|c| c.evictable() && !plan.contains(&c.digest)).all(|c| Some(c.last_used) >= newest));
        }
    }
}
