//! Who may read what.
//!
//! A verdict is bound to registry, repository and digest; knowing a digest grants nothing. What a registry serves to anybody
//! is public, for all. The rest is for whoever has shown this node a credential that the registry has accepted for that very
//! repository and content ([`Accepted`]), and, where the operator says so, for everybody who reaches this node's mirror.
//!
//! A manifest's verdict covers what the manifest names in the same repository: a registry serves a repository's blobs to
//! whoever may read its manifests, and refuses a manifest that names what the repository does not hold. It does not check
//! that for contents that a manifest says are to be had elsewhere (`urls`), and some do not for the manifests that an index
//! names, so those are asked for one by one.

mod accepted;
mod token;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hashlink::LruCache;
use piece::Digest;
use wire::Authorization;
use wire::control::{Access, Failure, Repository};

pub(crate) use accepted::{Accepted, Now};

/// Contents of which it is remembered who may read them; those asked for longest ago go first. About 250 bytes each.
const MAX_CONTENTS: usize = 65_536;
/// Repositories of which it is remembered that they want credentials.
const MAX_REPOSITORIES: usize = 4096;
/// How long a client without credentials is refused without asking the registry again: so long one that has become public
/// goes unnoticed, and so seldom does a client that keeps trying cost the registry a request.
const REFUSAL: Duration = Duration::from_secs(10);

/// Who may have what this node holds of private repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalAccess {
    /// Whoever the registry itself would serve.
    #[default]
    Public,
    /// Whoever can reach this node's mirror may have whatever the nodes' credentials can read.
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

impl Verdict {
    /// Nothing but who may read it.
    pub(crate) const fn bare(access: Access) -> Self {
        Self {
            access,
            size: None,
            media_type: None,
        }
    }
}

/// What can be said of a client's wish without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may have the content.
    Admitted,
    /// It may not, and this is what it is told.
    Refused(Failure),
    /// The registry is to be asked with what the client has shown, or, where that is nothing, for its challenge.
    Ask,
    /// Nobody has asked the registry about the content yet.
    Unknown,
}

/// What this node knows of who may read what.
#[derive(Debug)]
pub(crate) struct Verdicts {
    local: LocalAccess,
    ttl: Duration,
    grace: Duration,
    /// By the registry's answers to anybody, or to nodes.
    contents: Mutex<LruCache<(Repository, Digest), Known>>,
    /// What the registry says to clients without credentials, and since when that is known.
    challenges: Mutex<LruCache<Repository, (Option<String>, Instant)>>,
    /// By its answers to clients.
    pub(crate) clients: Accepted,
}

#[derive(Debug)]
struct Known {
    verdict: Verdict,
    until: Instant,
}

impl Verdicts {
    pub(crate) fn new(local: LocalAccess, ttl: Duration, grace: Duration) -> Self {
        Self {
            local,
            ttl,
            grace,
            contents: Mutex::new(LruCache::new(MAX_CONTENTS)),
            challenges: Mutex::new(LruCache::new(MAX_REPOSITORIES)),
            clients: Accepted::new(ttl, grace),
        }
    }

    /// Remembers a verdict from `now` on. What a client's credential has opened says nothing that is not known better of
    /// what anybody may read.
    pub(crate) fn learn(&self, now: Instant, repository: &Repository, digest: Digest, mut verdict: Verdict) {
        let mut contents = self.contents();
        let key = (repository.clone(), digest);
        let mut until = now + self.ttl;
        if let Some(known) = contents.get(&key).filter(|known| now < known.until) {
            if verdict.access == Access::Personal && known.verdict.access != Access::Personal {
                // That stays known, but no longer for it: the registry may serve it to nobody else by now.
                verdict.access = known.verdict.access;
                until = known.until;
            }
            verdict.size = verdict.size.or(known.verdict.size);
            verdict.media_type = verdict.media_type.or_else(|| known.verdict.media_type.clone());
        }
        contents.insert(key, Known { verdict, until });
    }

    /// The verdict that holds `now`, if one is known.
    pub(crate) fn get(&self, now: Instant, repository: &Repository, digest: &Digest) -> Option<Verdict> {
        let mut contents = self.contents();
        let known = contents.get(&(repository.clone(), *digest))?;
        (now < known.until).then(|| known.verdict.clone())
    }

    /// Whether the content was open to every client of this node, not too long ago for times when the registry cannot be
    /// asked.
    pub(crate) fn was_open(&self, now: Instant, repository: &Repository, digest: &Digest) -> bool {
        let mut contents = self.contents();
        let known = contents.get(&(repository.clone(), *digest));
        known.is_some_and(|known| now < known.until + self.grace && self.is_open(known.verdict.access))
    }

    /// Whether every client of this node may have what has this access.
    pub(crate) const fn is_open(&self, access: Access) -> bool {
        match (access, self.local) {
            (Access::Public, _) | (Access::Private, LocalAccess::Node) => true,
            (Access::Private, LocalAccess::Public) | (Access::Personal, _) => false,
        }
    }

    /// Whether clients need no credentials where the nodes have some.
    pub(crate) const fn asks_nobody(&self) -> bool {
        matches!(self.local, LocalAccess::Node)
    }

    /// The registry has refused a client that had nothing to show.
    pub(crate) fn learn_refusal(&self, now: Instant, repository: &Repository, challenge: Option<String>) {
        self.challenges().insert(repository.clone(), (challenge, now));
    }

    /// Whether the repository is known to want credentials.
    pub(crate) fn wants_credentials(&self, now: Instant, repository: &Repository) -> bool {
        let mut challenges = self.challenges();
        let known = challenges.get(repository);
        known.is_some_and(|(_, since)| now < *since + self.ttl)
    }

    /// What a client without credentials is told of a repository that has refused one just now.
    pub(crate) fn refusal(&self, now: Instant, repository: &Repository) -> Option<Failure> {
        self.challenge(now, repository, REFUSAL)
            .map(|challenge| unauthorised(repository, challenge))
    }

    /// What can be said of a client's wish.
    pub(crate) fn standing(
        &self,
        now: Now,
        repository: &Repository,
        digest: &Digest,
        client: Option<&Authorization>,
    ) -> Standing {
        let known = self.get(now.clock, repository, digest).map(|verdict| verdict.access);
        if known.is_some_and(|access| self.is_open(access)) {
            return Standing::Admitted;
        }
        if client.is_some_and(|client| self.clients.holds(now, client, repository, digest)) {
            return Standing::Admitted;
        }
        let remembered = if known.is_some() { self.ttl } else { REFUSAL };
        match (client, self.challenge(now.clock, repository, remembered)) {
            (None, Some(challenge)) => Standing::Refused(unauthorised(repository, challenge)),
            (None, None) if known.is_none() => Standing::Unknown,
            (Some(_), None) if known.is_none() && !self.wants_credentials(now.clock, repository) => Standing::Unknown,
            (None, None) | (Some(_), _) => Standing::Ask,
        }
    }

    /// A challenge that is not older than this.
    fn challenge(&self, now: Instant, repository: &Repository, age: Duration) -> Option<String> {
        let mut challenges = self.challenges();
        let (challenge, since) = challenges.get(repository)?;
        challenge.clone().filter(|_| now < *since + age)
    }

    fn contents(&self) -> MutexGuard<'_, LruCache<(Repository, Digest), Known>> {
        self.contents.lock().expect("no holder of this lock panics")
    }

    fn challenges(&self) -> MutexGuard<'_, LruCache<Repository, (Option<String>, Instant)>> {
        self.challenges.lock().expect("no holder of this lock panics")
    }
}

/// Whether a registry's refusal is about who asks, so that another may fare better. Some say that there is nothing where
/// they mean that it is not for everybody.
pub(crate) const fn depends_on_who_asks(failure: &Failure) -> bool {
    matches!(failure.status, 401 | 403 | 404)
}

/// Whether the registry could not be asked, or not now.
pub(crate) const fn is_unanswered(failure: &Failure) -> bool {
    failure.status >= 500 || matches!(failure.status, 408 | 429)
}

fn unauthorised(repository: &Repository, challenge: String) -> Failure {
    Failure {
        status: 401,
        message: format!(
            "{}/{} is served by its registry to those only whose credentials it accepts",
            repository.registry, repository.name
        ),
        retry_after: None,
        challenge: Some(challenge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const CHALLENGE: &str = "Basic realm=\"r\"";

    fn verdicts(local: LocalAccess) -> Verdicts {
        Verdicts::new(local, TTL, Duration::from_secs(100))
    }

    fn repository(name: &str) -> Repository {
        Repository {
            registry: "r".into(),
            name: name.into(),
        }
    }

    fn client() -> Authorization {
        Authorization::from_header("Basic dTpw").unwrap().unwrap()
    }

    fn at(now: Now, seconds: u64) -> Now {
        let past = Duration::from_secs(seconds);
        Now {
            clock: now.clock + past,
            wall: now.wall + past,
        }
    }

    #[test]
    fn a_verdict_is_bound_to_its_repository_and_expires() {
        let verdicts = verdicts(LocalAccess::Public);
        let now = Instant::now();
        verdicts.learn(now, &repository("a"), Digest::EMPTY, Verdict::bare(Access::Public));
        assert_eq!(
            verdicts.get(now, &repository("a"), &Digest::EMPTY),
            Some(Verdict::bare(Access::Public))
        );
        assert_eq!(verdicts.get(now, &repository("b"), &Digest::EMPTY), None);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(verdicts.get(later(300), &repository("a"), &Digest::EMPTY), None);
        assert!(verdicts.was_open(later(399), &repository("a"), &Digest::EMPTY));
        assert!(!verdicts.was_open(later(400), &repository("a"), &Digest::EMPTY));
    }

    #[test]
    fn verdicts_on_contents_are_bounded() {
        let (verdicts, now) = (verdicts(LocalAccess::Public), Instant::now());
        let content = |n: usize| Digest::of(&n.to_be_bytes());
        for n in 0..=MAX_CONTENTS {
            verdicts.learn(now, &repository("a"), content(n), Verdict::bare(Access::Public));
        }
        assert_eq!(verdicts.contents().len(), MAX_CONTENTS);
        assert_eq!(
            verdicts.get(now, &repository("a"), &content(0)),
            None,
            "asked for longest ago"
        );
    }

    #[test]
    fn private_content_is_for_accepted_clients_or_by_the_operators_word() {
        for (access, local, open) in [
            (Access::Public, LocalAccess::Public, true),
            (Access::Public, LocalAccess::Node, true),
            (Access::Private, LocalAccess::Public, false),
            (Access::Private, LocalAccess::Node, true),
            (Access::Personal, LocalAccess::Public, false),
            (Access::Personal, LocalAccess::Node, false),
        ] {
            let (verdicts, now, home) = (verdicts(local), Now::read(), repository("a"));
            let alice = client();
            verdicts.learn(now.clock, &home, Digest::EMPTY, Verdict::bare(access));
            let standing = |client| verdicts.standing(now, &home, &Digest::EMPTY, client);
            if open {
                assert_eq!(
                    (standing(None), standing(Some(&alice))),
                    (Standing::Admitted, Standing::Admitted)
                );
                continue;
            }
            assert_eq!((standing(None), standing(Some(&alice))), (Standing::Ask, Standing::Ask));
            verdicts.clients.learn(now, &alice, &home, &Digest::EMPTY);
            assert_eq!(
                (standing(None), standing(Some(&alice))),
                (Standing::Ask, Standing::Admitted)
            );
            verdicts.learn_refusal(now.clock, &home, Some(CHALLENGE.to_owned()));
            let Standing::Refused(failure) = standing(None) else {
                panic!("{access:?} {local:?}")
            };
            assert_eq!((failure.status, failure.challenge.as_deref()), (401, Some(CHALLENGE)));
            assert_eq!(standing(Some(&alice)), Standing::Admitted);
        }
    }

    #[test]
    fn what_is_unknown_is_asked_as_anybody_unless_the_repository_is_known_to_refuse() {
        let (verdicts, now, home) = (verdicts(LocalAccess::Public), Now::read(), repository("a"));
        let alice = client();
        let standing = |seconds, client| verdicts.standing(at(now, seconds), &home, &Digest::EMPTY, client);
        assert_eq!(standing(0, None), Standing::Unknown);
        assert_eq!(standing(0, Some(&alice)), Standing::Unknown);
        verdicts.learn_refusal(now.clock, &home, Some(CHALLENGE.to_owned()));
        assert!(matches!(standing(9, None), Standing::Refused(_)));
        assert_eq!(standing(10, None), Standing::Unknown, "it may have become public");
        assert_eq!(standing(299, Some(&alice)), Standing::Ask);
        assert_eq!(standing(300, Some(&alice)), Standing::Unknown);
        assert!(
            verdicts.refusal(now.clock, &home).is_some() && verdicts.refusal(now.clock, &repository("b")).is_none()
        );
    }

    #[test]
    fn what_was_public_stays_so_no_longer_because_clients_show_credentials() {
        let (verdicts, now) = (verdicts(LocalAccess::Public), Now::read());
        let home = repository("a");
        verdicts.learn(now.clock, &home, Digest::EMPTY, Verdict::bare(Access::Public));
        let standing = |seconds| verdicts.standing(at(now, seconds), &home, &Digest::EMPTY, None);
        for seconds in [100, 200, 299] {
            verdicts.learn(
                at(now, seconds).clock,
                &home,
                Digest::EMPTY,
                Verdict::bare(Access::Personal),
            );
        }
        assert_eq!((standing(299), standing(300)), (Standing::Admitted, Standing::Unknown));
    }

    #[test]
    fn a_clients_credential_does_not_blur_what_is_known_of_others() {
        let (verdicts, now) = (verdicts(LocalAccess::Public), Instant::now());
        let told = Verdict {
            size: Some(7),
            ..Verdict::bare(Access::Public)
        };
        verdicts.learn(now, &repository("a"), Digest::EMPTY, told.clone());
        verdicts.learn(now, &repository("a"), Digest::EMPTY, Verdict::bare(Access::Personal));
        assert_eq!(verdicts.get(now, &repository("a"), &Digest::EMPTY), Some(told));
        verdicts.learn(now, &repository("a"), Digest::EMPTY, Verdict::bare(Access::Private));
        let known = verdicts.get(now, &repository("a"), &Digest::EMPTY).unwrap();
        assert_eq!((known.access, known.size), (Access::Private, Some(7)));
    }
}
