//! Which nodes hold which blob, as far as this node was told: the Kademlia provider records in its keeping.
//!
//! libp2p's own store forgets an expired record only when somebody asks for it, and so fills up for good. This one makes
//! room, and keeps its own records apart from those of others, so that neither crowds the other out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

/// The most blobs for which records of others are kept.
const MAX_KEYS: usize = 16_384;
/// The most other nodes that are kept for one blob. Whoever needs more neighbours learns them from these.
const MAX_PROVIDERS: usize = 16;
/// The most addresses kept with a record.
const MAX_ADDRESSES: usize = 4;
/// The most blobs that this node says it holds.
pub(crate) const MAX_PROVIDED: usize = 65_536;

/// The records in this node's keeping.
#[derive(Debug)]
pub(crate) struct ProviderStore {
    local: PeerId,
    provided: HashMap<RecordKey, ProviderRecord>,
    others: HashMap<RecordKey, Vec<ProviderRecord>>,
    max_keys: usize,
}

impl ProviderStore {
    pub(crate) fn new(local: PeerId) -> Self {
        Self {
            local,
            provided: HashMap::new(),
            others: HashMap::new(),
            max_keys: MAX_KEYS,
        }
    }

    fn add_other(&mut self, mut record: ProviderRecord) -> Result<()> {
        if !self.others.contains_key(&record.key) && self.others.len() >= self.max_keys {
            self.forget_expired(Instant::now());
            if self.others.len() >= self.max_keys {
                return Err(Error::MaxProvidedKeys);
            }
        }
        record.addresses.truncate(MAX_ADDRESSES);
        let providers = self.others.entry(record.key.clone()).or_default();
        if let Some(known) = providers.iter_mut().find(|known| known.provider == record.provider) {
            *known = record;
        } else if providers.len() < MAX_PROVIDERS {
            providers.push(record);
        } else if let Some(expired) = providers.iter_mut().find(|known| known.is_expired(Instant::now())) {
            *expired = record;
        }
        Ok(())
    }

    fn forget_expired(&mut self, now: Instant) {
        self.others.retain(|_, providers| {
            providers.retain(|record| !record.is_expired(now));
            !providers.is_empty()
        });
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Map<
        std::collections::hash_map::Values<'a, RecordKey, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    /// Values are not for this network.
    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.provider != self.local {
            return self.add_other(record);
        }
        if !self.provided.contains_key(&record.key) && self.provided.len() >= MAX_PROVIDED {
            return Err(Error::MaxProvidedKeys);
        }
        self.provided.insert(record.key.clone(), record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let others = self.others.get(key).into_iter().flatten();
        self.provided.get(key).into_iter().chain(others).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.provided.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.local {
            self.provided.remove(key);
        } else if let Some(providers) = self.others.get_mut(key) {
            providers.retain(|record| record.provider != *provider);
            if providers.is_empty() {
                self.others.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(n: u8) -> RecordKey {
        RecordKey::new(&[n; 32])
    }

    fn record(n: u8, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(key(n), provider, vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap(); 9])
    }

    fn expired(n: u8, provider: PeerId) -> ProviderRecord {
        ProviderRecord {
            expires: Some(Instant::now() - Duration::from_secs(1)),
            ..record(n, provider)
        }
    }

    #[test]
    fn own_and_foreign_records_are_kept_updated_and_removed() {
        let (me, other) = (PeerId::random(), PeerId::random());
        let mut store = ProviderStore::new(me);
        for provider in [me, other, me, other] {
            store.add_provider(record(1, provider)).unwrap();
        }
        assert_eq!(store.providers(&key(1)).len(), 2);
        assert_eq!(store.providers(&key(1))[1].addresses.len(), MAX_ADDRESSES);
        assert_eq!(store.provided().count(), 1);
        store.remove_provider(&key(1), &me);
        store.remove_provider(&key(1), &other);
        assert_eq!(store.providers(&key(1)), []);
        assert!(store.others.is_empty() && store.provided.is_empty());
    }

    #[test]
    fn a_full_store_makes_room_for_what_is_still_valid() {
        let me = PeerId::random();
        let mut store = ProviderStore {
            max_keys: 2,
            ..ProviderStore::new(me)
        };
        store.add_provider(expired(1, PeerId::random())).unwrap();
        store.add_provider(record(2, PeerId::random())).unwrap();
        store
            .add_provider(record(3, PeerId::random()))
            .expect("the expired record gives way");
        assert!(
            store.add_provider(record(4, PeerId::random())).is_err(),
            "nothing more to forget"
        );
        store
            .add_provider(record(4, me))
            .expect("its own records have room of their own");
    }

    #[test]
    fn providers_of_one_blob_are_bounded() {
        let mut store = ProviderStore::new(PeerId::random());
        store.add_provider(expired(1, PeerId::random())).unwrap();
        for _ in 0..2 * MAX_PROVIDERS {
            store.add_provider(record(1, PeerId::random())).unwrap();
        }
        let kept = store.providers(&key(1));
        assert_eq!(kept.len(), MAX_PROVIDERS);
        assert!(kept.iter().all(|record| !record.is_expired(Instant::now())));
    }
}
