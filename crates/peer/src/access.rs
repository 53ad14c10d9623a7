//! Who may read what: which contents a registry serves to anybody.
//!
//! A verdict is bound to registry, repository and digest; knowing a digest grants nothing. A manifest's verdict covers what
//! the manifest names in the same repository, because a registry serves those blobs under the same conditions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use piece::Digest;
use wire::control::{Access, Failure, Repository};

/// Verdicts kept at most; the oldest go first. About 200 bytes each.
const MAX_VERDICTS: usize = 65_536;

/// Who may have what this node holds of private repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalAccess {
    /// Only contents that the registry serves without credentials.
    #[default]
    Public,
    /// Whoever can reach this node's mirror may have whatever the node's credentials can read.
    Node,
}

/// What is known of one content at one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) access: Access,
    /// Size, where a manifest or the registry told.
    pub(crate) size: Option<u64>,
    pub(crate) media_type: Option<String>,
}

/// The verdicts that this node knows.
#[derive(Debug)]
pub(crate) struct Verdicts {
    local: LocalAccess,
    ttl: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_content: HashMap<(Repository, Digest), (Verdict, u64, Instant)>,
    by_age: BTreeMap<u64, (Repository, Digest)>,
    next: u64,
}

impl Verdicts {
    pub(crate) fn new(local: LocalAccess, ttl: Duration) -> Self {
        Self {
            local,
            ttl,
            inner: Mutex::default(),
        }
    }

    /// Remembers a verdict from `now` on.
    pub(crate) fn learn(&self, now: Instant, repository: &Repository, digest: Digest, verdict: Verdict) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let inner = &mut *inner;
        let key = (repository.clone(), digest);
        let age = inner.next;
        inner.next += 1;
        if let Some((_, old, _)) = inner.by_content.insert(key.clone(), (verdict, age, now + self.ttl)) {
            inner.by_age.remove(&old);
        }
        inner.by_age.insert(age, key);
        while inner.by_content.len() > MAX_VERDICTS {
            if let Some((_, oldest)) = inner.by_age.pop_first() {
                inner.by_content.remove(&oldest);
            }
        }
    }

    /// The verdict that holds `now`, if one is known.
    pub(crate) fn get(&self, now: Instant, repository: &Repository, digest: &Digest) -> Option<Verdict> {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        let (verdict, _, until) = inner.by_content.get(&(repository.clone(), *digest))?;
        (*until > now).then(|| verdict.clone())
    }

    /// Whether a client of this node's mirror may have it.
    ///
    /// # Errors
    /// What the client is told if not.
    pub(crate) fn admit(&self, access: Access, repository: &Repository) -> Result<(), Failure> {
        match (access, self.local) {
            (Access::Public, _) | (_, LocalAccess::Node) => Ok(()),
            (Access::Private, LocalAccess::Public) => Err(Failure {
                status: 403,
                message: format!(
                    "{}/{} is not served anonymously by its registry, and this node does not hand out private content \
                     (access.local = \"node\" would)",
                    repository.registry, repository.name
                ),
                retry_after: None,
                challenge: None,
            }),
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

    fn verdict(access: Access) -> Verdict {
        Verdict {
            access,
            size: None,
            media_type: None,
        }
    }

    #[test]
    fn a_verdict_is_bound_to_its_repository_and_expires() {
        let verdicts = Verdicts::new(LocalAccess::Public, Duration::from_secs(300));
        let now = Instant::now();
        verdicts.learn(now, &repository("a"), Digest::EMPTY, verdict(Access::Public));
        assert_eq!(
            verdicts.get(now, &repository("a"), &Digest::EMPTY),
            Some(verdict(Access::Public))
        );
        assert_eq!(verdicts.get(now, &repository("b"), &Digest::EMPTY), None);
        assert_eq!(
            verdicts.get(now + Duration::from_secs(300), &repository("a"), &Digest::EMPTY),
            None
        );
    }

    #[test]
    fn private_content_needs_the_operators_word() {
        let ttl = Duration::from_secs(1);
        let strict = Verdicts::new(LocalAccess::Public, ttl);
        assert!(strict.admit(Access::Public, &repository("a")).is_ok());
        assert_eq!(strict.admit(Access::Private, &repository("a")).unwrap_err().status, 403);
        assert!(
            Verdicts::new(LocalAccess::Node, ttl)
                .admit(Access::Private, &repository("a"))
                .is_ok()
        );
    }

    #[test]
    fn the_oldest_verdicts_go_first() {
        let verdicts = Verdicts::new(LocalAccess::Public, Duration::from_secs(300));
        let now = Instant::now();
        for n in 0..=MAX_VERDICTS as u32 {
            verdicts.learn(
                now,
                &repository("a"),
                Digest::of(&n.to_be_bytes()),
                verdict(Access::Public),
            );
        }
        assert!(
            verdicts
                .get(now, &repository("a"), &Digest::of(&0u32.to_be_bytes()))
                .is_none()
        );
        assert!(
            verdicts
                .get(now, &repository("a"), &Digest::of(&1u32.to_be_bytes()))
                .is_some()
        );
    }
}
