//! Things under small numbers, and sets of nodes that can be drawn from.
//!
//! A number is used again once its thing is gone. What may outlive a node (the neighbours that another node was named) is
//! only a count that steers whom to name next; a number that by then means another node makes that count a little wrong.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// A node's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeKey(u32);

/// A swarm's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SwarmKey(u32);

/// The number of a label of locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LabelKey(u32);

macro_rules! key {
    ($($name:ident),*) => {
        $(
            impl Key for $name {
                fn new(number: usize) -> Self {
                    Self(u32::try_from(number).expect("limits keep every table far below 2^32 entries"))
                }
                fn index(self) -> usize {
                    self.0 as usize
                }
            }
        )*
    };
}
key!(NodeKey, SwarmKey, LabelKey);

/// A number that names a place in [`Slots`].
pub(super) trait Key: Copy {
    fn new(number: usize) -> Self;
    fn index(self) -> usize;
}

/// Things under numbers. A key that is held must be live: whoever removes a thing first clears every key to it.
#[derive(Debug)]
pub(super) struct Slots<K, T> {
    entries: Vec<Option<T>>,
    free: Vec<K>,
}

impl<K: Key, T> Slots<K, T> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, thing: T) -> K {
        let key = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            K::new(self.entries.len() - 1)
        });
        self.entries[key.index()] = Some(thing);
        key
    }

    pub(super) fn remove(&mut self, key: K) -> T {
        let thing = self.entries[key.index()].take().expect("a key that is held is live");
        self.free.push(key);
        thing
    }
}

impl<K: Key, T> std::ops::Index<K> for Slots<K, T> {
    type Output = T;

    fn index(&self, key: K) -> &T {
        self.entries[key.index()].as_ref().expect("a key that is held is live")
    }
}

impl<K: Key, T> std::ops::IndexMut<K> for Slots<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        self.entries[key.index()].as_mut().expect("a key that is held is live")
    }
}

/// A set of nodes to draw from at random in constant time.
#[derive(Debug)]
pub(super) struct Roster {
    list: Vec<NodeKey>,
    places: BTreeMap<NodeKey, u32>,
}

impl Roster {
    pub(super) const EMPTY: Self = Self {
        list: Vec::new(),
        places: BTreeMap::new(),
    };

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, node: NodeKey) -> bool {
        self.places.contains_key(&node)
    }

    pub(super) fn insert(&mut self, node: NodeKey) {
        let end = self.list.len() as u32;
        if let std::collections::btree_map::Entry::Vacant(place) = self.places.entry(node) {
            place.insert(end);
            self.list.push(node);
        }
    }

    pub(super) fn remove(&mut self, node: NodeKey) {
        let Some(place) = self.places.remove(&node) else { return };
        self.list.swap_remove(place as usize);
        if let Some(moved) = self.list.get(place as usize) {
            self.places.insert(*moved, place);
        }
    }

    /// All of them in order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = NodeKey> {
        self.places.keys().copied()
    }

    /// All of them if they are no more than `most`; else as many draws, among which one may come twice.
    pub(super) fn draw<'a>(&'a self, most: usize, rng: &'a mut ChaCha8Rng) -> impl Iterator<Item = NodeKey> {
        let all = self.list.len() <= most;
        (0..most.min(self.list.len())).map(move |turn| {
            let place = if all {
                turn
            } else {
                rng.random_range(0..self.list.len())
            };
            self.list[place]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    proptest! {
        #[test]
        fn a_roster_is_a_set(steps in prop::collection::vec((any::<bool>(), 0usize..20), 0..200)) {
            let (mut roster, mut model) = (Roster::EMPTY, BTreeSet::new());
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            for (add, number) in steps {
                let node = NodeKey::new(number);
                if add {
                    roster.insert(node);
                    model.insert(node);
                } else {
                    roster.remove(node);
                    model.remove(&node);
                }
                prop_assert_eq!(roster.len(), model.len());
                prop_assert!(roster.iter().eq(model.iter().copied()));
                let drawn: BTreeSet<_> = roster.draw(20, &mut rng).collect();
                prop_assert_eq!(&drawn, &model);
                prop_assert!(roster.draw(3, &mut rng).all(|node| model.contains(&node)));
            }
        }
    }

    #[test]
    fn numbers_are_used_again() {
        let mut slots: Slots<NodeKey, &str> = Slots::new();
        let (a, b) = (slots.insert("a"), slots.insert("b"));
        assert_eq!(slots.remove(a), "a");
        assert_eq!((slots.insert("c"), slots.len()), (a, 2));
        assert_eq!((slots[a], slots[b]), ("c", "b"));
    }
}
