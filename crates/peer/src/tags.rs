//! Which manifest a tag names now, for all who need no credential of their own: one request for all who ask at once, and none
//! for a while after.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use piece::{Bitfield, Blob};
use store::StoreError;
use swarm::node::Input;
use tokio::task::spawn_blocking;
use wire::control::{Access, Failure, Kind, Repository, Source, Upstream, UpstreamAnswer};

use crate::parts::{Parts, remember_source, storage_failure};
use crate::upstream::failed;

/// Tags whose answers are kept or under way.
const MAX_TAGS: usize = 4096;

/// The tags that this node has asked registries about.
#[derive(Debug)]
pub(crate) struct Tags {
    /// How long an answer counts.
    ttl: Duration,
    /// One entry per tag: its lock makes all who ask at once wait for one request.
    entries: Mutex<HashMap<Upstream, Arc<Entry>>>,
}

type Entry = tokio::sync::Mutex<Option<Known>>;

/// What a tag named when it was last asked about.
#[derive(Debug)]
struct Known {
    named: Named,
    access: Access,
    /// How long that counts.
    until: Instant,
}

#[derive(Debug, Clone)]
struct Named {
    blob: Blob,
    media_type: String,
}

impl Tags {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            entries: Mutex::default(),
        }
    }

    fn entry(&self, upstream: &Upstream) -> Arc<Entry> {
        let mut entries = self.entries.lock().expect("no holder of this lock panics");
        if entries.len() >= MAX_TAGS {
            entries.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        Arc::clone(entries.entry(upstream.clone()).or_default())
    }
}

impl Known {
    fn answer(&self) -> UpstreamAnswer {
        UpstreamAnswer::Content {
            blob: self.named.blob,
            media_type: self.named.media_type.clone(),
            access: self.access,
        }
    }
}

/// Answers which manifest the tag names.
pub(crate) async fn answer(parts: &Arc<Parts>, upstream: &Upstream, tag: &str) -> UpstreamAnswer {
    let repository = &upstream.repository;
    let entry = parts.tags.entry(upstream);
    let mut known = entry.lock().await;
    if let Some(known) = known.as_ref().filter(|known| Instant::now() < known.until) {
        return known.answer();
    }
    let held = known.as_ref().map(|known| known.named.clone());
    let asked = match held.filter(|named| is_here(parts, &named.blob)) {
        Some(held) => revalidate(parts, repository, tag, held).await,
        None => fetch(parts, repository, tag).await,
    };
    match asked {
        Ok((named, access)) => {
            let until = Instant::now() + parts.tags.ttl;
            known.insert(Known { named, access, until }).answer()
        }
        // It is not remembered: whoever asks next, asks the registry.
        Err(failure) => failed(failure),
    }
}

fn is_here(parts: &Parts, blob: &Blob) -> bool {
    parts.file(&blob.digest).is_some_and(|file| file.is_complete())
}

/// Asks by HEAD whether a tag still names what we hold: no manifest travels, and registries do not count it against quotas.
async fn revalidate(
    parts: &Arc<Parts>,
    repository: &Repository,
    tag: &str,
    held: Named,
) -> Result<(Named, Access), Failure> {
    let source = Source {
        repository: repository.clone(),
        kind: Kind::Manifest,
    };
    match parts.registry.head(&source, tag).await {
        Ok(head) if head.blob.digest == held.blob.digest => Ok((held, head.access)),
        Ok(_) => fetch(parts, repository, tag).await,
        Err(error) => Err(error.to_failure()),
    }
}

/// One request both resolves the tag and brings the manifest, which goes into the store.
async fn fetch(parts: &Arc<Parts>, repository: &Repository, tag: &str) -> Result<(Named, Access), Failure> {
    let manifest = parts.registry.manifest(repository, tag).await;
    let manifest = manifest.map_err(|error| error.to_failure())?;
    let blob = Blob {
        digest: manifest.digest,
        size: manifest.body.len() as u64,
    };
    let (media_type, access) = (manifest.media_type, manifest.access);
    let stored = {
        let (parts, media_type) = (Arc::clone(parts), media_type.clone());
        let source = Source {
            repository: repository.clone(),
            kind: Kind::Manifest,
        };
        spawn_blocking(move || {
            let file = parts.store.insert(blob, Some(&media_type), &manifest.body)?;
            remember_source(&file, &source);
            Ok::<(), StoreError>(())
        })
        .await
    };
    match stored {
        Ok(Ok(())) => {
            let bits = Bitfield::full(&blob.geometry());
            let input = Input::Opened {
                blob,
                bits,
                media_type: Some(media_type.clone()),
            };
            parts.engine.tell(input).await;
            Ok((Named { blob, media_type }, access))
        }
        Ok(Err(error)) => Err(storage_failure(&error)),
        Err(_) => Err(internal("storing a manifest")),
    }
}

fn internal(what: &str) -> Failure {
    let message = format!("{what}: a task of this node ended unexpectedly; see its log");
    Failure {
        status: 500,
        message,
        retry_after: None,
        challenge: None,
    }
}

#[cfg(test)]
mod tests {
    use wire::control::Query;

    use super::*;

    #[test]
    fn tags_are_bounded_but_for_those_that_are_being_asked_about() {
        let tags = Tags::new(Duration::from_secs(10));
        let upstream = |n: usize| Upstream {
            repository: Repository {
                registry: "registry.example".to_owned(),
                name: "org/model".to_owned(),
            },
            query: Query::Tag { tag: n.to_string() },
        };
        let asked = tags.entry(&upstream(0));
        (1..3 * MAX_TAGS).for_each(|n| drop(tags.entry(&upstream(n))));
        assert!(tags.entries.lock().unwrap().len() <= MAX_TAGS);
        assert!(
            Arc::ptr_eq(&asked, &tags.entry(&upstream(0))),
            "whoever asks now waits for the same answer"
        );
    }
}
