//! A node's mirror, as its clients see it: manifests whole, blobs as streams that continue where they broke.

mod user;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use modelpack::{Fetch, FetchError};
use piece::{Blob, Digest};
use reqwest::header::{ACCEPT, CONTENT_RANGE, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use wire::control::Repository;

use crate::http::{HttpError, accept, base, client, read, transmit};
use crate::reference::Reference;
use user::{User, showing};

/// Manifest types that make sense of an artifact, the ones of ModelPack first.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// Attempts to get a manifest or config, and the pause after the first; it doubles.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// A mirror that runs here says so at once.
const PROBE: Duration = Duration::from_secs(2);

/// One repository at one mirror.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    client: reqwest::Client,
    base: Url,
    repository: Repository,
    store: Option<PathBuf>,
    /// Whose credentials it is shown if it wants any; nobody's unless it runs here.
    user: Option<Arc<User>>,
}

/// A manifest's bytes; they are those of the digest.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

/// Why a mirror did not give something.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// It could not be asked, or refused.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It gave something else.
    #[error("the mirror at {url} gave {found} for {wanted}")]
    Other {
        /// What was asked.
        url: Url,
        /// What was wanted.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
}

impl Mirror {
    /// The repository at the mirror of this address, for the user who runs this; nothing is asked yet. `insecure` are the
    /// registries that speak plain HTTP.
    pub(super) fn new(
        address: &str,
        repository: &Repository,
        insecure: &[String],
        command: &str,
    ) -> Result<Self, HttpError> {
        let user_agent = format!("packswarm/{} ({command})", env!("CARGO_PKG_VERSION"));
        let base = base(address)?;
        let user = user::is_here(&base).then(|| User::new(&user_agent, repository, insecure));
        Ok(Self {
            client: client(&user_agent)?,
            base,
            repository: repository.clone(),
            store: None,
            user: user.transpose()?.map(Arc::new),
        })
    }

    /// With a store that this process may read, in which the mirror's node keeps its blobs.
    pub(super) fn with_store(self, store: Option<PathBuf>) -> Self {
        Self { store, ..self }
    }

    /// Where it is.
    pub(super) const fn address(&self) -> &Url {
        &self.base
    }

    /// Whether somebody answers there as a registry does.
    pub(super) async fn answers(&self) -> bool {
        let url = self.url("");
        let asked = tokio::time::timeout(PROBE, self.client.get(url).send()).await;
        let is_registry = |status| matches!(status, StatusCode::OK | StatusCode::UNAUTHORIZED);
        asked.is_ok_and(|answer| answer.is_ok_and(|answer| is_registry(answer.status())))
    }

    /// The manifest that the reference names.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Manifest, MirrorError> {
        let url = self.of(&format!("manifests/{}", reference.version()));
        let request = || self.client.get(url.clone()).header(ACCEPT, MANIFESTS);
        let bytes = self.whole(request, &url, modelpack::manifest::MAX_MANIFEST_LEN).await?;
        let digest = Digest::of(&bytes);
        match reference.digest() {
            Some(wanted) if wanted != digest => Err(MirrorError::Other {
                url,
                wanted,
                found: digest,
            }),
            Some(_) | None => Ok(Manifest { bytes, digest }),
        }
    }

    /// A small blob.
    pub(super) async fn blob(&self, blob: &Blob, limit: usize) -> Result<Vec<u8>, MirrorError> {
        let url = self.of(&format!("blobs/{}", blob.digest));
        let bytes = self.whole(|| self.client.get(url.clone()), &url, limit).await?;
        let found = Digest::of(&bytes);
        if found == blob.digest {
            Ok(bytes)
        } else {
            Err(MirrorError::Other {
                url,
                wanted: blob.digest,
                found,
            })
        }
    }

    /// A whole body, asked for again while the mirror may yet have it. It comes first, so where nobody answers, the address
    /// is wrong.
    async fn whole(&self, request: impl Fn() -> RequestBuilder, url: &Url, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let answer = async { read(self.send(&request, url).await?, url, limit).await }.await;
            match answer {
                Err(error) if attempt < ATTEMPTS && may_pass(&error) && !is_nobody(&error) => {
                    tracing::debug!(%error, attempt, "asking again");
                    tokio::time::sleep(pause).await;
                    (pause, attempt) = (pause * 2, attempt + 1);
                }
                answer => return answer,
            }
        }
    }

    /// Sends a request, and once more with the user's credentials where they are wanted.
    async fn send(&self, request: impl Fn() -> RequestBuilder, url: &Url) -> Result<Response, HttpError> {
        let Some(user) = &self.user else {
            return accept(transmit(request(), url).await?, url).await;
        };
        let shown = user.shown().await;
        let response = transmit(showing(request(), shown.as_ref()), url).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(better) = user.better_than(shown.as_ref(), response.headers(), url).await?
        {
            return accept(transmit(showing(request(), Some(&better)), url).await?, url).await;
        }
        accept(response, url).await
    }

    fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/v2/{rest}", self.base.path().trim_end_matches('/')));
        url
    }

    /// The registry goes into the query, as containerd has it: that is unambiguous whatever the mirror's settings.
    fn of(&self, rest: &str) -> Url {
        let mut url = self.url(&format!("{}/{rest}", self.repository.name));
        url.query_pairs_mut().append_pair("ns", &self.repository.registry);
        url
    }
}

impl Fetch for Mirror {
    async fn open(
        &self,
        blob: &Blob,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        let url = self.of(&format!("blobs/{}", blob.digest));
        let request = || {
            let request = self.client.get(url.clone());
            match offset {
                0 => request,
                _ => request.header(RANGE, format!("bytes={offset}-")),
            }
        };
        let response = self.send(request, &url).await.map_err(|error| match may_pass(&error) {
            true => FetchError::Passing(error.into()),
            false => FetchError::Final(error.into()),
        })?;
        let skip = offset - start(&response).min(offset);
        Ok(body(response, skip))
    }

    fn local(&self, blob: &Blob) -> Option<PathBuf> {
        let name = blob.digest.to_string();
        let path = self.store.as_ref()?.join("blobs").join(name.strip_prefix("sha256:")?);
        path.is_file().then_some(path)
    }
}

/// Where an answer begins; a server may send everything though asked for a part.
fn start(response: &Response) -> u64 {
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    if response.status() == StatusCode::PARTIAL_CONTENT {
        first.unwrap_or(0)
    } else {
        0
    }
}

/// The body without its first `skip` bytes.
fn body(response: Response, skip: u64) -> BoxStream<'static, Result<Bytes, FetchError>> {
    let chunks = response
        .bytes_stream()
        .map(|chunk| chunk.map_err(|error| FetchError::Passing(error.without_url().into())));
    let skipping = chunks.scan(skip, |skip, chunk| {
        let rest = chunk.map(|mut chunk| {
            let drop = usize::try_from(*skip).unwrap_or(usize::MAX).min(chunk.len());
            *skip -= drop as u64;
            chunk.split_off(drop)
        });
        std::future::ready(Some(rest))
    });
    skipping
        .filter(|chunk| std::future::ready(!matches!(chunk, Ok(chunk) if chunk.is_empty())))
        .boxed()
}

const fn is_nobody(error: &HttpError) -> bool {
    matches!(error, HttpError::Unreachable { .. })
}

/// Whether asking again may help. Who refuses because of what was asked will refuse again.
fn may_pass(error: &HttpError) -> bool {
    match error {
        HttpError::Refused { status, .. } => {
            status.is_server_error() || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        }
        HttpError::Unreachable { .. } | HttpError::Broken { .. } => true,
        HttpError::Address(_) | HttpError::Setup(_) | HttpError::Credentials { .. } | HttpError::Nonsense { .. } => {
            false
        }
    }
}
