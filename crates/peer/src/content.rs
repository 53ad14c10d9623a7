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
use wire::Authorization;
use wire::control::{Failure, Kind, Query, Repository, Source, Upstream};

use crate::access::{Verdict, depends_on_who_asks};
use crate::authorising::{self, Wish};
use crate::children;
use crate::cursors::Cursor;
use crate::lending::{self, Loan};
use crate::parts::Parts;
use crate::pinging;
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
    async fn ping(&self, registry: &str, client: Option<&Authorization>) -> Result<(), Failure> {
        pinging::ping(&self.parts, registry, client).await
    }

    async fn resolve(
        &self,
        repository: &Repository,
        tag: &str,
        client: Option<&Authorization>,
    ) -> Result<Resolved, Failure> {
        let upstream = Upstream {
            repository: repository.clone(),
            query: Query::Tag { tag: tag.to_owned() },
        };
        let (blob, media_type) = authorising::resolve(&self.parts, upstream, client).await?;
        Ok(Resolved { blob, media_type })
    }

    async fn open(
        &self,
        source: &Source,
        digest: &Digest,
        client: Option<&Authorization>,
        from: u64,
    ) -> Result<Opened, Failure> {
        let wish = Wish { source, digest, client };
        let settled = authorising::settle_known(&self.parts, wish).await?;
        let known = self.known(source, digest);
        let (coming, loan) = match self.whole(digest) {
            Some(file) => (self.here(&file), None),
            None => {
                let size = known.as_ref().and_then(|verdict| verdict.size);
                self.fetch_for(wish, size, from, settled).await?
            }
        };
        if !settled {
            authorising::settle(&self.parts, wish).await?;
        }
        let blob = coming.blob;
        let content = Arc::new(SwarmBlob {
            parts: Arc::clone(&self.parts),
            blob,
            watch: coming.watch,
            failures: coming.failures,
            cursor: Mutex::new(coming.cursor),
            _loan: loan,
        });
        if source.kind == Kind::Manifest && blob.size <= MAX_MANIFEST {
            self.learn_children(wish, Arc::clone(&content)).await?;
        }
        let media_type = coming.media_type.or(known.and_then(|verdict| verdict.media_type));
        Ok(Opened {
            blob,
            media_type,
            content,
        })
    }

    async fn probe(&self, source: &Source, digest: &Digest, client: Option<&Authorization>) -> Result<Probed, Failure> {
        let wish = Wish { source, digest, client };
        // A HEAD for what a manifest has named needs no byte of it.
        if authorising::settle_known(&self.parts, wish).await?
            && let Some(Verdict {
                size: Some(size),
                media_type,
                ..
            }) = self.known(source, digest)
        {
            return Ok(Probed {
                blob: Blob { digest: *digest, size },
                media_type,
            });
        }
        let opened = self.open(source, digest, client, 0).await?;
        Ok(Probed {
            blob: opened.blob,
            media_type: opened.media_type,
        })
    }

    async fn document(&self, upstream: Upstream, client: Option<&Authorization>) -> Result<Document, Failure> {
        authorising::document(&self.parts, upstream, client).await
    }
}

impl Swarmed {
    fn whole(&self, digest: &Digest) -> Option<BlobFile> {
        self.parts.file(digest).filter(BlobFile::is_complete)
    }

    fn has_any(&self, digest: &Digest) -> bool {
        self.parts.file(digest).is_some_and(|file| file.bitfield().count() > 0)
    }

    fn known(&self, source: &Source, digest: &Digest) -> Option<Verdict> {
        self.parts.verdicts.get(Instant::now(), &source.repository, digest)
    }

    /// Fetches for a client, whose credential is lent to the reader unless the content is known to be for everybody.
    async fn fetch_for(
        &self,
        wish: Wish<'_>,
        size: Option<u64>,
        from: u64,
        settled: bool,
    ) -> Result<(Coming, Option<Loan>), Failure> {
        let Wish { source, digest, client } = wish;
        let open = self
            .known(source, digest)
            .is_some_and(|verdict| self.parts.verdicts.is_open(verdict.access));
        let loan = client
            .filter(|_| !open)
            .map(|client| lending::lend(&self.parts, source, digest, client));
        let coming = match self.fetch(source, digest, size, from).await {
            // Perhaps it was another client's credential, or this one's came too late.
            Err(failure) if depends_on_who_asks(&failure) => {
                if !settled {
                    authorising::refused_to_anybody(&self.parts, wish, failure).await?;
                } else if loan.is_none() {
                    return Err(failure);
                }
                self.fetch(source, digest, size, from).await?
            }
            fetched => fetched?,
        };
        Ok((coming, loan))
    }

    /// Wants the blob, and waits until its size is known and the store has taken it in: what the store has no room for is
    /// refused, not begun and cut. Neither is what the registry refuses at once. The cursor is set before a neighbour is
    /// asked for anything, so that the piece with the byte `from` is the first.
    async fn fetch(&self, source: &Source, digest: &Digest, size: Option<u64>, from: u64) -> Result<Coming, Failure> {
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
            (None, Some(blob)) => Ok(Coming {
                blob,
                media_type: seen.media_type,
                watch,
                failures,
                cursor,
            }),
            (None, None) => Err(authorising::misunderstood(&source.repository)),
        }
    }

    fn here(&self, file: &BlobFile) -> Coming {
        let watch = self.parts.watches.of(&file.blob().digest);
        Coming {
            blob: file.blob(),
            media_type: file.media_type(),
            failures: watch.now().failures,
            watch,
            cursor: None,
        }
    }

    /// The cursor of a client that waits for the byte `from`.
    fn cursor(&self, blob: Blob, from: u64) -> Option<Cursor> {
        let piece = blob.geometry().piece_at(from)?;
        let cursor = self.parts.cursors.begin(&self.parts.engine, blob.digest);
        cursor.at(piece);
        Some(cursor)
    }

    /// A manifest's verdict covers what it names; its sizes save asking for them.
    async fn learn_children(&self, wish: Wish<'_>, manifest: Arc<SwarmBlob>) -> Result<(), Failure> {
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
        authorising::cover(&self.parts, wish, &children::children(&body));
        Ok(())
    }
}

/// A blob on its way, or here.
struct Coming {
    blob: Blob,
    media_type: Option<String>,
    /// From when it was wanted on: an attempt that fails before the client reads has failed for it too.
    watch: Watch,
    failures: u64,
    /// That of the client that waits for it.
    cursor: Option<Cursor>,
}

/// One blob of the swarm, whole or still arriving.
struct SwarmBlob {
    parts: Arc<Parts>,
    blob: Blob,
    watch: Watch,
    failures: u64,
    /// Where the client that had it opened waits, until it reads.
    cursor: Mutex<Option<Cursor>>,
    /// Lasts as long as the client reads, for its reader may change meanwhile.
    _loan: Option<Loan>,
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
        let cursor = self.cursor.lock().expect("no holder of this lock panics").take();
        let reader = Reader {
            at: range.start,
            end: range.end.min(self.blob.size),
            file: None,
            watch: self.watch.clone(),
            failures: self.failures,
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
