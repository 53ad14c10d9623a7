//! Which client's credential a registry has accepted for which content.
//!
//! Neither a credential nor what it was for is kept: a verdict is found by a hash over both under a key that this process
//! drew at its start, so that memory, or a dump of it, tells nobody which credentials there were.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use hashlink::LruCache;
use hmac::{Hmac, KeyInit as _, Mac as _};
use piece::Digest;
use sha2::Sha256;
use wire::Authorization;
use wire::control::Repository;
use zeroize::Zeroizing;

use super::token;

/// Verdicts kept at most; those used longest ago go first. About 150 bytes each.
const MAX_VERDICTS: usize = 65_536;

type Key = [u8; 32];

/// One turn of a client that asks the registry, while others with the same question wait.
pub(crate) type Turn = Arc<tokio::sync::Mutex<()>>;

/// The verdicts on clients.
pub(crate) struct Accepted {
    secret: Zeroizing<Key>,
    ttl: Duration,
    grace: Duration,
    verdicts: Mutex<LruCache<Key, Verdict>>,
    asking: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Clone, Copy)]
struct Verdict {
    /// Until when the registry need not be asked again.
    until: Instant,
    /// Until when it counts while the registry cannot be asked.
    grace: Instant,
}

impl Accepted {
    pub(crate) fn new(ttl: Duration, grace: Duration) -> Self {
        Self {
            secret: Zeroizing::new(rand::random()),
            ttl,
            grace,
            verdicts: Mutex::new(LruCache::new(MAX_VERDICTS)),
            asking: Mutex::default(),
        }
    }

    /// The registry has accepted this credential for this content. That counts no longer than the token itself, if it says
    /// when it ends; not even in times of grace.
    pub(crate) fn learn(&self, now: Now, client: &Authorization, repository: &Repository, digest: &Digest) {
        let end = token::life(client, now.wall).map(|life| now.clock + life);
        let bounded = |until: Instant| end.map_or(until, |end| until.min(end));
        let verdict = Verdict {
            until: bounded(now.clock + self.ttl),
            grace: bounded(now.clock + self.ttl + self.grace),
        };
        let key = self.key(client, repository, digest);
        self.verdicts().insert(key, verdict);
    }

    /// What holds for a content holds for another that it names, for as long.
    pub(crate) fn cover(&self, client: &Authorization, repository: &Repository, digest: &Digest, child: &Digest) {
        let (parent, child) = (
            self.key(client, repository, digest),
            self.key(client, repository, child),
        );
        let mut verdicts = self.verdicts();
        let Some(verdict) = verdicts.get(&parent).copied() else {
            return;
        };
        // The child may have been asked about for itself, later.
        if verdicts.get(&child).is_none_or(|known| known.until < verdict.until) {
            verdicts.insert(child, verdict);
        }
    }

    /// Whether the registry has accepted it recently enough.
    pub(crate) fn holds(&self, now: Now, client: &Authorization, repository: &Repository, digest: &Digest) -> bool {
        let key = self.key(client, repository, digest);
        self.verdicts()
            .get(&key)
            .is_some_and(|verdict| now.clock < verdict.until)
    }

    /// The same where the registry cannot be asked.
    pub(crate) fn holds_in_need(
        &self,
        now: Now,
        client: &Authorization,
        repository: &Repository,
        digest: &Digest,
    ) -> bool {
        let key = self.key(client, repository, digest);
        self.verdicts()
            .get(&key)
            .is_some_and(|verdict| now.clock < verdict.grace)
    }

    /// The registry refuses it now.
    pub(crate) fn forget(&self, client: &Authorization, repository: &Repository, digest: &Digest) {
        let key = self.key(client, repository, digest);
        self.verdicts().remove(&key);
    }

    /// The turn to ask about this: many requests of one client become one question.
    pub(crate) fn turn(&self, client: &Authorization, repository: &Repository, digest: &Digest) -> Turn {
        let key = self.key(client, repository, digest);
        let mut asking = self.asking.lock().expect("no holder of this lock panics");
        if let Some(turn) = asking.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        if asking.len().is_power_of_two() {
            asking.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Turn::default();
        asking.insert(key, Arc::downgrade(&turn));
        turn
    }

    /// Fields are preceded by their lengths, so that no two questions have the same bytes.
    fn key(&self, client: &Authorization, repository: &Repository, digest: &Digest) -> Key {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.secret).expect("HMAC takes keys of any length");
        for field in [client.expose(), &repository.registry, &repository.name] {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field.as_bytes());
        }
        mac.update(digest.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn verdicts(&self) -> std::sync::MutexGuard<'_, LruCache<Key, Verdict>> {
        self.verdicts.lock().expect("no holder of this lock panics")
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("ttl", &self.ttl)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// The time by both clocks: verdicts live by the one that only goes forward, tokens end by the wall's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) clock: Instant,
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self {
            clock: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const GRACE: Duration = Duration::from_secs(600);

    fn client(value: &str) -> Authorization {
        Authorization::from_header(value).unwrap().unwrap()
    }

    fn repository(registry: &str, name: &str) -> Repository {
        Repository {
            registry: registry.into(),
            name: name.into(),
        }
    }

    fn later(now: Now, seconds: u64) -> Now {
        let past = Duration::from_secs(seconds);
        Now {
            clock: now.clock + past,
            wall: now.wall + past,
        }
    }

    #[test]
    fn a_verdict_is_for_one_client_one_repository_and_one_content() {
        let (accepted, now) = (Accepted::new(TTL, Duration::ZERO), Now::read());
        let (alice, home) = (client("Basic YTpi"), repository("r", "a/b"));
        accepted.learn(now, &alice, &home, &Digest::EMPTY);
        assert!(accepted.holds(now, &alice, &home, &Digest::EMPTY));
        let others = [
            (&client("Basic YTpj"), &home, Digest::EMPTY),
            (&client("Bearer YTpi"), &home, Digest::EMPTY),
            (&alice, &repository("r2", "a/b"), Digest::EMPTY),
            (&alice, &repository("r", "a/c"), Digest::EMPTY),
            (&alice, &repository("ra", "/b"), Digest::EMPTY),
            (&alice, &home, Digest::of(b"guessed")),
        ];
        for (client, repository, digest) in others {
            assert!(
                !accepted.holds(now, client, repository, &digest),
                "{repository:?} {digest}"
            );
            assert!(!accepted.holds_in_need(now, client, repository, &digest));
        }
        accepted.forget(&alice, &home, &Digest::EMPTY);
        assert!(!accepted.holds(now, &alice, &home, &Digest::EMPTY));
    }

    #[test]
    fn what_covers_another_ends_with_it() {
        let (accepted, now) = (Accepted::new(TTL, Duration::ZERO), Now::read());
        let (alice, home, child) = (client("Basic YTpi"), repository("r", "a"), Digest::of(b"child"));
        accepted.cover(&alice, &home, &Digest::EMPTY, &child);
        assert!(!accepted.holds(now, &alice, &home, &child), "nothing covers nothing");
        accepted.learn(now, &alice, &home, &Digest::EMPTY);
        accepted.cover(&alice, &home, &Digest::EMPTY, &child);
        assert!(accepted.holds(later(now, 299), &alice, &home, &child));
        assert!(!accepted.holds(later(now, 300), &alice, &home, &child));
        accepted.learn(later(now, 100), &alice, &home, &child);
        accepted.cover(&alice, &home, &Digest::EMPTY, &child);
        assert!(accepted.holds(later(now, 399), &alice, &home, &child));
    }

    #[test]
    fn it_ends_and_in_need_a_little_later() {
        let (accepted, now) = (Accepted::new(TTL, GRACE), Now::read());
        let (alice, home) = (client("Basic YTpi"), repository("r", "a"));
        accepted.learn(now, &alice, &home, &Digest::EMPTY);
        let (holds, in_need) = (
            |at| accepted.holds(later(now, at), &alice, &home, &Digest::EMPTY),
            |at| accepted.holds_in_need(later(now, at), &alice, &home, &Digest::EMPTY),
        );
        assert!(holds(299) && !holds(300));
        assert!(in_need(899) && !in_need(900));
    }

    #[test]
    fn no_verdict_outlives_its_token_not_even_in_need() {
        let (accepted, now) = (Accepted::new(TTL, GRACE), Now::read());
        let home = repository("r", "a");
        let end = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 61;
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{end}}}"#));
        let token = client(&format!("Bearer e30.{claims}.c2ln"));
        accepted.learn(now, &token, &home, &Digest::EMPTY);
        assert!(accepted.holds(later(now, 59), &token, &home, &Digest::EMPTY));
        assert!(!accepted.holds(later(now, 62), &token, &home, &Digest::EMPTY));
        assert!(!accepted.holds_in_need(later(now, 62), &token, &home, &Digest::EMPTY));
    }

    #[test]
    fn verdicts_on_clients_are_bounded_and_those_in_use_kept() {
        let (accepted, now) = (Accepted::new(TTL, GRACE), Now::read());
        let (alice, home) = (client("Basic YTpi"), repository("r", "a"));
        let content = |n: usize| Digest::of(&n.to_be_bytes());
        for n in 0..=MAX_VERDICTS {
            accepted.learn(now, &alice, &home, &content(n));
            assert!(
                accepted.holds(now, &alice, &home, &content(0)),
                "asked for again and again: {n}"
            );
        }
        assert_eq!(accepted.verdicts().len(), MAX_VERDICTS);
        assert!(
            !accepted.holds(now, &alice, &home, &content(1)),
            "asked for longest ago"
        );
    }

    #[test]
    fn processes_keep_different_keys_and_no_credential() {
        let (one, other) = (Accepted::new(TTL, GRACE), Accepted::new(TTL, GRACE));
        let (alice, home) = (client("Basic aGlkZGVu"), repository("r", "hidden"));
        assert_ne!(
            one.key(&alice, &home, &Digest::EMPTY),
            other.key(&alice, &home, &Digest::EMPTY)
        );
        one.learn(Now::read(), &alice, &home, &Digest::EMPTY);
        assert!(!format!("{one:?}").contains("secret"), "{one:?}");
    }

    #[tokio::test]
    async fn many_requests_of_one_client_take_turns_and_leave_nothing_behind() {
        let accepted = Accepted::new(TTL, GRACE);
        let (alice, home) = (client("Basic YTpi"), repository("r", "a"));
        let first = accepted.turn(&alice, &home, &Digest::EMPTY);
        let _held = first.lock().await;
        assert!(accepted.turn(&alice, &home, &Digest::EMPTY).try_lock().is_err());
        assert!(accepted.turn(&alice, &home, &Digest::of(b"x")).try_lock().is_ok());
        for n in 0..64u8 {
            accepted.turn(&alice, &home, &Digest::of(&[n]));
        }
        assert!(accepted.asking.lock().unwrap().len() <= 33, "dead turns are swept");
    }
}
