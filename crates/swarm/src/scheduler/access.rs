//! Who may read which content, as long as that counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use piece::Digest;
use wire::control::{Access, Repository};

/// What registries said about who may read. The oldest is forgotten first.
#[derive(Debug)]
pub(super) struct AccessCache {
    by_digest: BTreeMap<Digest, Vec<Entry>>,
    /// In the order of their expiry, for all live equally long. An entry that was renewed stands here twice.
    expiries: VecDeque<(Duration, Digest, Repository)>,
    ttl: Duration,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    repository: Repository,
    access: Access,
    expires: Duration,
}

impl AccessCache {
    pub(super) const fn new(ttl: Duration, limit: usize) -> Self {
        Self {
            by_digest: BTreeMap::new(),
            expiries: VecDeque::new(),
            ttl,
            limit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }

    pub(super) fn get(&self, now: Duration, digest: &Digest, repository: &Repository) -> Option<Access> {
        let entries = self.by_digest.get(digest)?;
        let entry = entries
            .iter()
            .find(|entry| entry.repository == *repository && now < entry.expires)?;
        Some(entry.access)
    }

    pub(super) fn put(&mut self, now: Duration, digest: Digest, repository: &Repository, access: Access) {
        let expires = now + self.ttl;
        let entries = self.by_digest.entry(digest).or_default();
        match entries.iter_mut().find(|entry| entry.repository == *repository) {
            Some(entry) if entry.expires == expires => {
                entry.access = access;
                return;
            }
            Some(entry) => (entry.access, entry.expires) = (access, expires),
            None => entries.push(Entry {
                repository: repository.clone(),
                access,
                expires,
            }),
        }
        self.expiries.push_back((expires, digest, repository.clone()));
        while self.expiries.len() > self.limit || self.expiries.front().is_some_and(|(expires, ..)| *expires <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((expires, digest, repository)) = self.expiries.pop_front() else {
            return;
        };
        let Some(entries) = self.by_digest.get_mut(&digest) else {
            return;
        };
        entries.retain(|entry| entry.expires != expires || entry.repository != repository);
        if entries.is_empty() {
            self.by_digest.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        Repository {
            registry: "r".into(),
            name: name.into(),
        }
    }

    #[test]
    fn is_per_repository_and_ends() {
        let mut cache = AccessCache::new(Duration::from_secs(10), 8);
        let at = Duration::from_secs;
        cache.put(at(0), Digest::EMPTY, &repository("a"), Access::Public);
        cache.put(at(5), Digest::EMPTY, &repository("b"), Access::Private);
        assert_eq!(cache.get(at(9), &Digest::EMPTY, &repository("a")), Some(Access::Public));
        assert_eq!(cache.get(at(10), &Digest::EMPTY, &repository("a")), None);
        assert_eq!(
            cache.get(at(10), &Digest::EMPTY, &repository("b")),
            Some(Access::Private)
        );
        assert_eq!(cache.get(at(0), &Digest::of(b"x"), &repository("a")), None);
    }

    #[test]
    fn renewing_outlives_the_old_expiry() {
        let mut cache = AccessCache::new(Duration::from_secs(10), 8);
        let at = Duration::from_secs;
        cache.put(at(0), Digest::EMPTY, &repository("a"), Access::Private);
        cache.put(at(8), Digest::EMPTY, &repository("a"), Access::Public);
        cache.put(at(12), Digest::of(b"x"), &repository("a"), Access::Public);
        assert_eq!(
            cache.get(at(12), &Digest::EMPTY, &repository("a")),
            Some(Access::Public)
        );
    }

    #[test]
    fn is_bounded() {
        let mut cache = AccessCache::new(Duration::from_secs(10), 8);
        for number in 0..100u32 {
            cache.put(
                Duration::ZERO,
                Digest::of(&number.to_be_bytes()),
                &repository("a"),
                Access::Public,
            );
        }
        assert_eq!((cache.len(), cache.by_digest.len()), (8, 8));
        for number in 0..100 {
            cache.put(
                Duration::from_millis(number),
                Digest::EMPTY,
                &repository("a"),
                Access::Public,
            );
        }
        assert_eq!((cache.len(), cache.by_digest.len()), (8, 1));
    }
}
