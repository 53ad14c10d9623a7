//! A map that forgets what has not been used for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most so many entries.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    by_use: BTreeMap<u64, K>,
    next: u64,
    limit: usize,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            next: 0,
            limit,
        }
    }

    /// Puts an entry, in place of an older one under its key.
    pub(super) fn put(&mut self, key: K, value: V) {
        self.remove(&key);
        let used = self.tick(&key);
        self.entries.insert(key, (value, used));
        while self.entries.len() > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }

    /// The entry under a key, which is used hereby.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let before = self.entries.get(key)?.1;
        self.by_use.remove(&before);
        let used = self.tick(key);
        let (value, last) = self.entries.get_mut(key)?;
        *last = used;
        Some(value)
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some((_, used)) = self.entries.remove(key) {
            self.by_use.remove(&used);
        }
    }

    fn tick(&mut self, key: &K) -> u64 {
        let used = self.next;
        self.next += 1;
        self.by_use.insert(used, key.clone());
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes_in_order() {
        let mut recent = Recent::new(3);
        (0..3).for_each(|key| recent.put(key, key));
        assert_eq!(recent.get(&0), Some(&0));
        recent.put(3, 3);
        assert_eq!(recent.get(&1), None, "used longest ago");
        recent.put(2, 20);
        recent.put(4, 4);
        assert_eq!(recent.get(&0), None);
        assert_eq!(recent.get(&2), Some(&20));
        recent.remove(&2);
        assert_eq!(recent.get(&2), None);
        assert!(recent.entries.len() == 2 && recent.by_use.len() == 2);
    }
}
