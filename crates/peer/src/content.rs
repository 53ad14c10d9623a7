//! What the mirror serves: contents of the swarm, behind the access check.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use mirror::{BlobContent, Cut, Document, Opened, Probed, Resolved};
use piece::{Blob, Digest};
use store::BlobFile;
use wire::control::{Access, Failure, Kind, Query, Repository, Source, Upstream, UpstreamAnswer};

use crate::access::Verdict;
use crate::cursors::Cursor;
use crate::parts::Parts;
use crate::upstream;
use crate::watch::{Seen, Watch};

/// One slice of a body: large enough that system calls do not matter, small enough to share a socket fairly.
const SLICE: u64 = 1 << 20;
/// How long a client waits for an answer's head: below the 30 s that containerd grants.
const HEAD_WAIT: Duration = Duration::from_secs(25);
/// How long an answer's head then waits for the first piece: long enough for a registry's refusal, and the attempts of two
/// readers before it, to be told by its status and not by a body that is cut.
const PIECE_WAIT: Duration = Duration::from_secs(15);
/// The largest manifest whose contents' verdicts are taken from it.
const MAX_MANIFEST: u64 = 4 << 20;

/// The node as its mirror sees it.
#[derive(Clone)]
pub(crate) struct Swarmed {
    pub(crate) parts: Arc<Parts>,
}

impl mirror::Content for Swarmed {
    async fn resolve(&self, repository: &Repository, tag: &str) -> Result<Resolved, Failure> {
        let query = Query::Tag { tag: tag.to_owned() };
        let (blob, media_type, access) = self.content(repository, query).await?;
        self.learn(
            repository,
            blob.digest,
            access,
            Some(blob.size),
            Some(media_type.clone()),
        );
        self.parts.verdicts.admit(access, repository)?;
        Ok(Resolved { blob, media_type })
    }

    async fn open(&self, source: &Source, digest: &Digest, from: u64) -> Result<Opened, Failure> {
        let known = self.parts.verdicts.get(Instant::now(), &source.repository, digest);
        if let Some(verdict) = &known {
            self.parts.verdicts.admit(verdict.access, &source.repository)?;
        }
        let (blob, media_type, cursor) = match self.whole(digest) {
            Some(file) => (file.blob(), file.media_type(), None),
            None => {
                let size = known.as_ref().and_then(|verdict| verdict.size);
                self.fetch(source, digest, size, from).await?
            }
        };
        let access = self.verdict(source, digest).await?;
        self.parts.verdicts.admit(access, &source.repository)?;
        let media_type = media_type.or(known.and_then(|verdict| verdict.media_type));
        let content = Arc::new(SwarmBlob {
            parts: Arc::clone(&self.parts),
            blob,
            cursor: Mutex::new(cursor),
        });
        if source.kind == Kind::Manifest && blob.size <= MAX_MANIFEST {
            self.learn_children(source, Arc::clone(&content), access).await?;
        }
        Ok(Opened {
            blob,
            media_type,
            content,
        })
    }

    async fn probe(&self, source: &Source, digest: &Digest) -> Result<Probed, Failure> {
        // A HEAD for what a manifest has named needs no byte of it.
        if let Some(Verdict {
            access,
            size: Some(size),
            media_type,
        }) = self.parts.verdicts.get(Instant::now(), &source.repository, digest)
        {
            self.parts.verdicts.admit(access, &source.repository)?;
            return Ok(Probed {
                blob: Blob { digest: *digest, size },
                media_type,
            });
        }
        let opened = self.open(source, digest, 0).await?;
        Ok(Probed {
            blob: opened.blob,
            media_type: opened.media_type,
        })
    }

    async fn document(&self, upstream: Upstream) -> Result<Document, Failure> {
        let repository = upstream.repository.clone();
        match upstream::ask(&self.parts, upstream).await {
            UpstreamAnswer::Document {
                body,
                media_type,
                link,
                filters,
                access,
            } => {
                self.parts.verdicts.admit(access, &repository)?;
                Ok(Document {
                    body: Bytes::from(body),
                    media_type,
                    link,
                    filters,
                })
            }
            UpstreamAnswer::Failed { failure } => Err(failure),
            UpstreamAnswer::Content { .. } => Err(misunderstood(&repository)),
        }
    }
}

impl Swarmed {
    fn whole(&self, digest: &Digest) -> Option<BlobFile> {
        self.parts.file(digest).filter(BlobFile::is_complete)
    }

    fn has_any(&self, digest: &Digest) -> bool {
        self.parts.file(digest).is_some_and(|file| file.bitfield().count() > 0)
    }

    /// Wants the blob, and waits until its size is known and the store has taken it in: what the store has no room for is
    /// refused, not begun and cut. Neither is what the registry refuses at once. The cursor is set before a neighbour is
    /// asked for anything, so that the piece with the byte `from` is the first.
    async fn fetch(&self, source: &Source, digest: &Digest, size: Option<u64>, from: u64) -> Result<Fetching, Failure> {
        let begun = Instant::now();
        let mut watch = self.parts.watches.of(digest);
        let failures = watch.now().failures;
        self.parts.engine.want(*digest, size, source.clone(), true).await;
        let placed = |seen: &Seen| seen.opened || seen.complete || self.parts.file(digest).is_some();
        let ready = async {
            let sized = |seen: &Seen| seen.failures > failures || seen.blob.is_some();
            let cursor = watch.until(sized).await.blob.and_then(|blob| self.cursor(blob, from));
            let ready = |seen: &Seen| seen.failures > failures || (seen.blob.is_some() && placed(seen));
            (watch.until(ready).await, cursor)
        };
        let (seen, cursor) = tokio::time::timeout(HEAD_WAIT, ready).await.map_err(|_| Failure {
            status: 504,
            message: format!(
                "nobody could tell the size of {digest} within {} s",
                HEAD_WAIT.as_secs()
            ),
            retry_after: None,
            challenge: None,
        })?;
        let moves = |seen: &Seen| seen.failures > failures || seen.gained > 0 || seen.complete || self.has_any(digest);
        let deadline = (begun + HEAD_WAIT).min(Instant::now() + PIECE_WAIT);
        let seen = match tokio::time::timeout_at(deadline.into(), watch.until(moves)).await {
            Ok(seen) => seen,
            // It may be on its way all the same.
            Err(_) => seen,
        };
        match (seen.failed_since(failures), seen.blob) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(blob)) => Ok((blob, seen.media_type, cursor)),
            (None, None) => Err(misunderstood(&source.repository)),
        }
    }

    /// The cursor of a client that waits for the byte `from`.
    fn cursor(&self, blob: Blob, from: u64) -> Option<Cursor> {
        let piece = blob.geometry().piece_at(from)?;
        let cursor = self.parts.cursors.begin(&self.parts.engine, blob.digest);
        cursor.at(piece);
        Some(cursor)
    }

    /// Who may read it; asks a seed to ask the registry where nobody knows.
    async fn verdict(&self, source: &Source, digest: &Digest) -> Result<Access, Failure> {
        if let Some(verdict) = self.parts.verdicts.get(Instant::now(), &source.repository, digest) {
            return Ok(verdict.access);
        }
        let query = Query::Probe {
            digest: *digest,
            kind: source.kind,
        };
        let (_, _, access) = self.content(&source.repository, query).await?;
        self.learn(&source.repository, *digest, access, None, None);
        Ok(access)
    }

    async fn content(&self, repository: &Repository, query: Query) -> Result<(Blob, String, Access), Failure> {
        let upstream = Upstream {
            repository: repository.clone(),
            query,
        };
        match upstream::ask(&self.parts, upstream).await {
            UpstreamAnswer::Content {
                blob,
                media_type,
                access,
            } => Ok((blob, media_type, access)),
            UpstreamAnswer::Failed { failure } => Err(failure),
            UpstreamAnswer::Document { .. } => Err(misunderstood(repository)),
        }
    }

    fn learn(
        &self,
        repository: &Repository,
        digest: Digest,
        access: Access,
        size: Option<u64>,
        media_type: Option<String>,
    ) {
        self.parts.verdicts.learn(
            Instant::now(),
            repository,
            digest,
            Verdict {
                access,
                size,
                media_type,
            },
        );
    }

    /// A manifest's verdict covers what it names; its sizes save asking for them.
    async fn learn_children(&self, source: &Source, manifest: Arc<SwarmBlob>, access: Access) -> Result<(), Failure> {
        let size = manifest.blob.size;
        let mut body = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut stream = manifest.read(0..size);
        while let Some(slice) = stream.next().await {
            let slice = slice.map_err(|cut| Failure {
                status: 502,
                message: cut.to_string(),
                retry_after: None,
                challenge: None,
            })?;
            body.extend_from_slice(&slice);
        }
        for child in children(&body) {
            self.learn(&source.repository, child.digest, access, Some(child.size), None);
        }
        Ok(())
    }
}

/// The blobs and manifests that a manifest or index names; none if it is neither.
fn children(manifest: &[u8]) -> Vec<Blob> {
    #[derive(serde::Deserialize)]
    struct Named {
        digest: String,
        size: u64,
    }
    #[derive(serde::Deserialize)]
    struct Manifest {
        config: Option<Named>,
        #[serde(default)]
        layers: Vec<Named>,
        #[serde(default)]
        blobs: Vec<Named>,
        #[serde(default)]
        manifests: Vec<Named>,
    }
    let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else {
        return Vec::new();
    };
    let named = manifest
        .config
        .into_iter()
        .chain(manifest.layers)
        .chain(manifest.blobs)
        .chain(manifest.manifests);
    named
        .filter_map(|named| {
            Some(Blob {
                digest: named.digest.parse().ok()?,
                size: named.size,
            })
        })
        .collect()
}

fn misunderstood(repository: &Repository) -> Failure {
    let message = format!(
        "asking about {}/{}: the node asked gave an answer to another question; do all nodes run the same release?",
        repository.registry, repository.name
    );
    Failure {
        status: 502,
        message,
        retry_after: None,
        challenge: None,
    }
}

/// What is known of a blob on its way: its size, its type, and the cursor of the client that waits for it.
type Fetching = (Blob, Option<String>, Option<Cursor>);

/// One blob of the swarm, whole or still arriving.
struct SwarmBlob {
    parts: Arc<Parts>,
    blob: Blob,
    /// Where the client that had it opened waits, until it reads.
    cursor: Mutex<Option<Cursor>>,
}

/// One client's reading of it.
struct Reader {
    blob: Arc<SwarmBlob>,
    at: u64,
    end: u64,
    /// Held so that the blob is not evicted under the client; opened when the first byte is needed.
    file: Option<BlobFile>,
    watch: Watch,
    failures: u64,
    cursor: Option<Cursor>,
}

impl BlobContent for SwarmBlob {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Cut>> {
        let watch = self.parts.watches.of(&self.blob.digest);
        let failures = watch.now().failures;
        let cursor = self.cursor.lock().expect("no holder of this lock panics").take();
        let reader = Reader {
            at: range.start,
            end: range.end.min(self.blob.size),
            file: None,
            watch,
            failures,
            cursor,
            blob: self,
        };
        stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(slice)) => Some((Ok(slice), Some(reader))),
                Ok(None) => None,
                Err(cut) => Some((Err(cut), None)),
            }
        })
        .boxed()
    }
}

impl Reader {
    /// The next slice, once it is here and proven.
    async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        if self.at >= self.end {
            return Ok(None);
        }
        let geometry = self.blob.blob.geometry();
        let piece = geometry
            .piece_at(self.at)
            .ok_or_else(|| Cut("past the end of the blob".to_owned()))?;
        let end = geometry.range(piece).end.min(self.end).min(self.at + SLICE);
        loop {
            if self.file.is_none() {
                self.file = self.blob.parts.file(&self.blob.blob.digest);
            }
            if let Some(file) = &self.file
                && file.has(piece)
                // The end of a blob is given out only when the whole chain has closed.
                && (end < self.blob.blob.size || file.is_complete())
            {
                let slice = file.read_range(self.at..end).map_err(|error| Cut(error.to_string()))?;
                self.at = end;
                return Ok(Some(slice));
            }
            let cursors = &self.blob.parts.cursors;
            let engine = &self.blob.parts.engine;
            self.cursor
                .get_or_insert_with(|| cursors.begin(engine, self.blob.blob.digest))
                .at(piece);
            let seen = self.watch.changed().await;
            if let Some(failure) = seen.failed_since(self.failures) {
                return Err(Cut(failure.message.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_children() {
        let (config, layer) = (Digest::of(b"c"), Digest::of(b"l"));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":1}},"layers":[{{"digest":"{layer}","size":2}},{{"digest":"sha512:00","size":3}}]}}"#
        );
        let blobs = children(manifest.as_bytes());
        assert_eq!(
            blobs,
            [
                Blob {
                    digest: config,
                    size: 1
                },
                Blob { digest: layer, size: 2 }
            ]
        );
        assert!(children(b"no json").is_empty());
    }
}
