//! Credentials that clients of other nodes, or of this one, have lent for a reading of the registry.
//!
//! They stay in memory only, each for one content of one repository, and for little longer than somebody renews them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use piece::Digest;
use tokio::sync::Notify;
use wire::Authorization;
use wire::control::Source;

/// How long a credential is kept unless it is lent again: three renewals by who waits for the blob ([`crate::lending`]).
const KEPT: Duration = Duration::from_secs(60);
/// Contents with credentials, at most: 32 MiB if all credentials are as long as they may be, and a few hundred KiB as they are.
const MAX_CONTENTS: usize = 512;
/// Credentials for one content: several nodes' clients may wait for it, and one is enough.
const MAX_EACH: usize = 4;
/// How long a reader that the registry has refused waits for a credential. Whoever waits for the blob lends it along with
/// its wish to the seed that ranks first, and to another that was made reader a round trip after it hears of that; who has
/// none to lend loses this much once, for the repository is then known to want one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Those for one content, latest first, each with the time when it is forgotten.
type OfContent = Vec<(Authorization, Instant)>;

/// The credentials lent to this node.
#[derive(Default)]
pub(crate) struct Lent {
    by_content: Mutex<HashMap<(Digest, Source), OfContent>>,
    arrived: Notify,
}

impl Lent {
    /// Keeps a credential for a while. One too many is dropped: its lender will hear the registry's refusal.
    pub(crate) fn keep(&self, now: Instant, digest: Digest, source: Source, authorization: Authorization) {
        let mut contents = self.by_content.lock().expect("no holder of this lock panics");
        contents.retain(|_, lent| {
            lent.retain(|(_, until)| now < *until);
            !lent.is_empty()
        });
        if contents.len() >= MAX_CONTENTS && !contents.contains_key(&(digest, source.clone())) {
            tracing::debug!(%digest, "too many credentials are lent; this one is dropped");
            return;
        }
        let lent = contents.entry((digest, source)).or_default();
        lent.retain(|(other, _)| *other != authorization);
        // The latest is tried first: of a client that has renewed its token, it is the one that counts.
        lent.insert(0, (authorization, now + KEPT));
        lent.truncate(MAX_EACH);
        drop(contents);
        self.arrived.notify_waiters();
    }

    /// The credentials for a content, latest first; waits for one if there is none and `patient`.
    pub(crate) async fn get(&self, digest: &Digest, source: &Source, patient: bool) -> Vec<Authorization> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let arrived = self.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            arrived.as_mut().enable();
            let lent = self.now(Instant::now(), digest, source);
            if !lent.is_empty() || !patient || tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return lent;
            }
        }
    }

    /// The blob is here: nobody will need them.
    pub(crate) fn forget(&self, digest: &Digest) {
        let mut contents = self.by_content.lock().expect("no holder of this lock panics");
        contents.retain(|(other, _), _| other != digest);
    }

    fn now(&self, now: Instant, digest: &Digest, source: &Source) -> Vec<Authorization> {
        let contents = self.by_content.lock().expect("no holder of this lock panics");
        let lent = contents.get(&(*digest, source.clone())).into_iter().flatten();
        lent.filter(|(_, until)| now < *until)
            .map(|(authorization, _)| authorization.clone())
            .collect()
    }
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use wire::control::{Kind, Repository};

    use super::*;

    fn source(name: &str, kind: Kind) -> Source {
        let repository = Repository {
            registry: "r".into(),
            name: name.into(),
        };
        Source { repository, kind }
    }

    fn token(text: &str) -> Authorization {
        Authorization::from_header(&format!("Bearer {text}")).unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_is_lent_is_for_one_content_of_one_repository() {
        let (lent, home) = (Lent::default(), source("a", Kind::Blob));
        lent.keep(Instant::now(), Digest::EMPTY, home.clone(), token("1"));
        assert_eq!(lent.get(&Digest::EMPTY, &home, true).await, [token("1")]);
        for (digest, source) in [
            (Digest::of(b"x"), home.clone()),
            (Digest::EMPTY, source("b", Kind::Blob)),
            (Digest::EMPTY, source("a", Kind::Manifest)),
        ] {
            assert!(lent.get(&digest, &source, false).await.is_empty(), "{source:?}");
        }
        lent.forget(&Digest::EMPTY);
        assert!(lent.get(&Digest::EMPTY, &home, false).await.is_empty());
    }

    #[tokio::test]
    async fn a_reader_waits_for_one_that_is_on_its_way() {
        let (lent, home) = (Lent::default(), source("a", Kind::Blob));
        let (got, ()) = tokio::join!(lent.get(&Digest::EMPTY, &home, true), async {
            lent.keep(Instant::now(), Digest::of(b"other"), home.clone(), token("0"));
            lent.keep(Instant::now(), Digest::EMPTY, home.clone(), token("1"));
        });
        assert_eq!(got, [token("1")]);
    }

    #[test]
    fn bounded_in_number_and_time_the_latest_first() {
        let (lent, home, now) = (Lent::default(), source("a", Kind::Blob), Instant::now());
        for text in ["1", "2", "3", "4", "5", "4"] {
            lent.keep(now, Digest::EMPTY, home.clone(), token(text));
        }
        let got = lent.now(now, &Digest::EMPTY, &home);
        assert_eq!(got, ["4", "5", "3", "2"].map(token));
        for n in 0..2 * MAX_CONTENTS as u32 {
            lent.keep(now, Digest::of(&n.to_be_bytes()), home.clone(), token("x"));
        }
        assert_eq!(lent.by_content.lock().unwrap().len(), MAX_CONTENTS);
        assert!(lent.now(now + KEPT, &Digest::EMPTY, &home).is_empty(), "expired");
        lent.keep(now + KEPT, Digest::of(b"new"), home, token("x"));
        assert_eq!(lent.by_content.lock().unwrap().len(), 1, "expired ones make room");
        assert!(!format!("{lent:?}").contains('x'));
    }
}
