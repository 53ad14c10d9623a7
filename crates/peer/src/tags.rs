//! Which manifest a tag names now: one request for all who ask at once, and none for a while after.
//!
//! What a tag names is the same for everybody; who may hear of it is not. So the registry is asked about each client with its
//! own credential, by a HEAD where the manifest is here already.

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
#[derive(Debug, Clone)]
struct Known {
    named: Named,
    /// What was said to those who asked without a client's credential, and how long that counts.
    open: Option<(Access, Instant)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The answer that needs no request.
    fn fresh(&self) -> Option<UpstreamAnswer> {
        let (access, until) = self.open?;
        (Instant::now() < until).then(|| self.named.clone().with(access))
    }
}

impl Named {
    fn with(self, access: Access) -> UpstreamAnswer {
        UpstreamAnswer::Content {
            blob: self.blob,
            media_type: self.media_type,
            access,
        }
    }
}

/// Whose question it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The nodes', for all who need no credential of their own.
    Nodes,
    /// One client's.
    Client,
}

/// Answers which manifest the tag names; `registry` asks as the `asker`.
pub(crate) async fn answer(
    parts: &Arc<Parts>,
    registry: &registry::Client,
    upstream: &Upstream,
    tag: &str,
    asker: Asker,
) -> UpstreamAnswer {
    let repository = &upstream.repository;
    let entry = parts.tags.entry(upstream);
    let mut known = entry.lock().await;
    let fresh = known.as_ref().filter(|_| asker == Asker::Nodes).and_then(Known::fresh);
    if let Some(answer) = fresh {
        return answer;
    }
    let held = known.as_ref().map(|known| known.named.clone());
    let held = held.filter(|named| is_here(parts, &named.blob));
    let asked = match (held, asker) {
        (None, _) => fetch(parts, registry, repository, tag).await,
        (Some(held), Asker::Nodes) => revalidate(parts, registry, repository, tag, held).await,
        (Some(held), Asker::Client) => {
            // Every client has to be asked about for itself; they need not wait for one another.
            drop(known);
            let asked = revalidate(parts, registry, repository, tag, held).await;
            known = entry.lock().await;
            asked
        }
    };
    match asked {
        Ok((named, access)) => {
            let before = known.take().filter(|known| known.named == named);
            let open = match asker {
                Asker::Nodes => Some((access, Instant::now() + parts.tags.ttl)),
                Asker::Client => before.and_then(|known| known.open),
            };
            let answer = named.clone().with(access);
            *known = Some(Known { named, open });
            answer
        }
        Err(failure) => {
            // It is not remembered: whoever asks next, asks the registry.
            if let (Some(known), Asker::Nodes) = (&mut *known, asker) {
                known.open = None;
            }
            failed(failure)
        }
    }
}

fn is_here(parts: &Parts, blob: &Blob) -> bool {
    parts.file(&blob.digest).is_some_and(|file| file.is_complete())
}

/// Asks by HEAD whether a tag still names what we hold: no manifest travels, and registries do not count it against quotas.
async fn revalidate(
    parts: &Arc<Parts>,
    registry: &registry::Client,
    repository: &Repository,
    tag: &str,
    held: Named,
) -> Result<(Named, Access), Failure> {
    let source = Source {
        repository: repository.clone(),
        kind: Kind::Manifest,
    };
    match registry.head(&source, tag).await {
        Ok(head) if head.blob.digest == held.blob.digest => Ok((held, head.access)),
        Ok(_) => fetch(parts, registry, repository, tag).await,
        Err(error) => Err(error.to_failure()),
    }
}

/// One request both resolves the tag and brings the manifest, which goes into the store.
async fn fetch(
    parts: &Arc<Parts>,
    registry: &registry::Client,
    repository: &Repository,
    tag: &str,
) -> Result<(Named, Access), Failure> {
    let manifest = registry.manifest(repository, tag).await;
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
