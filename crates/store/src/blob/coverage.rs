//! Which bytes of a piece were staged.

use std::ops::Range;

/// Disjoint ranges, ascending, that touch nowhere. A few readers fill a piece, each in order, so there are few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage(Vec<Range<u64>>);

impl Coverage {
    /// Adds a range.
    pub(super) fn add(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let first = self.0.partition_point(|range| range.end < new.start);
        let last = self.0.partition_point(|range| range.start <= new.end);
        let merged = self.0[first..last]
            .iter()
            .fold(new, |all, range| all.start.min(range.start)..all.end.max(range.end));
        self.0.splice(first..last, [merged]);
    }

    /// Whether all of a range was added.
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        self.0
            .iter()
            .any(|held| held.start <= range.start && range.end <= held.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn holds_exactly_what_was_added(
            added in prop::collection::vec((0u64..64, 0u64..16), 0..20),
            (start, len) in (0u64..64, 1u64..16),
        ) {
            let mut coverage = Coverage::default();
            let mut bytes = [false; 128];
            for (start, len) in added {
                coverage.add(start..start + len);
                bytes[start as usize..(start + len) as usize].fill(true);
            }
            let all = bytes[start as usize..(start + len) as usize].iter().all(|byte| *byte);
            prop_assert_eq!(coverage.holds(&(start..start + len)), all);
            let runs = bytes.chunk_by(|a, b| a == b).filter(|run| run[0]).count();
            prop_assert_eq!(coverage.0.len(), runs);
        }
    }
}
