//! The client: manifests, probes, and documents that are passed through. Blobs are opened in `blob`.

use std::sync::Arc;

use http::header::LINK;
use http::{HeaderMap, Method};
use piece::{Blob, Digest};
use wire::Authorization;
use wire::control::{Access, Kind, MAX_RELAYED_BODY, Query, Repository, Source, Upstream, UpstreamAnswer};

use crate::auth::{Session, Sessions};
use crate::body;
use crate::challenge::{self, Challenge};
use crate::config::{Config, ConfigError};
use crate::credentials::Credential;
use crate::endpoint::{Endpoint, Endpoints, locate};
use crate::error::{Lie, RegistryError};
use crate::meter::{Meter, RequestKind};
use crate::request::{Answered, Ask};
use crate::retry::Retry;
use crate::{answer, meter, token};

/// Every manifest type that is not obsolete, in one line: some registries read only the first `Accept`.
pub(crate) const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.artifact.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const ANY_BYTES: &str = "application/octet-stream";
/// A `Link` is a repository's name and a query.
const MAX_HEADER: usize = 8 << 10;

/// Reads from registries. Clones share connections, tokens and settings.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    meter: Arc<dyn Meter>,
    asker: Asker,
}

/// As whom registries are asked.
#[derive(Debug, Clone)]
pub(crate) enum Asker {
    /// As anybody, and with the operator's credentials where that is not enough.
    Node,
    /// As the client whose credential this is, unchanged.
    Client(Arc<Authorization>),
    /// As one who has nothing to show, not even an anonymous token.
    Stranger,
}

struct Inner {
    endpoints: Endpoints,
    sessions: Sessions,
}

/// A manifest's bytes, and what came with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Exactly as the registry sent them.
    pub body: Vec<u8>,
    /// Of the bytes; equal to what was asked for and to what the registry says.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Whether the registry serves it to anybody.
    pub access: Access,
}

/// That a content exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Digest and size. The size is 0 where the registry only redirects to its storage.
    pub blob: Blob,
    /// Its media type.
    pub media_type: String,
    /// Whether the registry serves it to anybody.
    pub access: Access,
}

impl Client {
    /// A client that counts nothing. Reads the CA files; does no network I/O.
    ///
    /// # Errors
    /// If a host, file or header value in `config` cannot be used.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let inner = Inner {
            endpoints: Endpoints::new(config)?,
            sessions: Sessions::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            meter: Arc::new(()),
            asker: Asker::Node,
        })
    }

    /// The same client, counting with `meter`.
    #[must_use]
    pub fn with_meter(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter, ..self }
    }

    /// The same client, asking with a client's own credential instead of the operator's: it is shown to the registry as it
    /// came, and to nobody else. What the registry serves then is [`Access::Personal`], for it says nothing of others.
    #[must_use]
    pub fn on_behalf(&self, authorization: Authorization) -> Self {
        Self {
            asker: Asker::Client(Arc::new(authorization)),
            ..self.clone()
        }
    }

    /// The same client, asking as one who has nothing to show: a refusal is then what the registry says to such a client.
    #[must_use]
    pub fn as_stranger(&self) -> Self {
        Self {
            asker: Asker::Stranger,
            ..self.clone()
        }
    }

    /// The manifest that `reference`, a tag or digest, names: one request, and its digest is checked.
    ///
    /// # Errors
    /// If the registry cannot be asked, refuses, or lies.
    pub async fn manifest(&self, repository: &Repository, reference: &str) -> Result<Manifest, RegistryError> {
        let source = Source {
            repository: repository.clone(),
            kind: Kind::Manifest,
        };
        let (endpoint, url) = locate(&self.inner.endpoints, &source, reference)?;
        let ask = Ask {
            endpoint: &endpoint,
            method: Method::GET,
            url,
            kind: RequestKind::Manifest,
            accept: Some(MANIFEST_TYPES),
            range: None,
        };
        self.retrying(|| self.try_manifest(&ask, reference)).await
    }

    /// Whether `reference` exists at `source`, its size and media type; for a tag, which manifest it names now. A `HEAD`:
    /// registries do not count it against pull quotas.
    ///
    /// # Errors
    /// If the registry cannot be asked, refuses, or lies.
    pub async fn head(&self, source: &Source, reference: &str) -> Result<Head, RegistryError> {
        let (endpoint, url) = locate(&self.inner.endpoints, source, reference)?;
        let accept = match source.kind {
            Kind::Manifest => Some(MANIFEST_TYPES),
            Kind::Blob => None,
        };
        let (method, kind) = (Method::HEAD, RequestKind::Probe);
        let ask = Ask {
            endpoint: &endpoint,
            method,
            url,
            kind,
            accept,
            range: None,
        };
        let found = match self.retrying(|| self.try_head(&ask, reference)).await {
            Err(RegistryError::Refused { status: 405 | 501, .. }) if source.kind == Kind::Manifest => None,
            other => other?,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let Manifest {
            body,
            digest,
            media_type,
            access,
        } = self.manifest(&source.repository, reference).await?;
        Ok(Head {
            blob: Blob {
                digest,
                size: body.len() as u64,
            },
            media_type,
            access,
        })
    }

    /// Answers `upstream` from the registry. Never [`UpstreamAnswer::Failed`]: that is what errors become by
    /// [`RegistryError::to_failure`].
    ///
    /// # Errors
    /// If the registry cannot be asked, refuses, or lies.
    pub async fn document(&self, upstream: &Upstream) -> Result<UpstreamAnswer, RegistryError> {
        let repository = &upstream.repository;
        let content = |kind| Source {
            repository: repository.clone(),
            kind,
        };
        match &upstream.query {
            Query::Tag { tag } => Ok(self.head(&content(Kind::Manifest), tag).await?.into()),
            Query::Probe { digest, kind } => Ok(self.head(&content(*kind), &digest.to_string()).await?.into()),
            Query::Tags { query } => {
                self.relay(repository, "tags/list", query, RequestKind::Tags, "application/json")
                    .await
            }
            Query::Referrers { digest, query } => {
                let path = format!("referrers/{digest}");
                self.relay(repository, &path, query, RequestKind::Referrers, INDEX_TYPE)
                    .await
            }
            Query::Ping => self.ping(&repository.registry).await,
        }
    }

    /// What `/v2/` says: whether clients have to show something at all.
    async fn ping(&self, registry: &str) -> Result<UpstreamAnswer, RegistryError> {
        // Any name makes an endpoint; that of `/v2/` has none.
        let repository = Repository {
            registry: registry.to_owned(),
            name: "v2".to_owned(),
        };
        let endpoint = self.inner.endpoints.of(&repository)?;
        let mut url = endpoint.base.clone();
        url.set_path("/v2/");
        let (method, kind) = (Method::GET, RequestKind::Probe);
        let ask = Ask {
            endpoint: &endpoint,
            method,
            url,
            kind,
            accept: None,
            range: None,
        };
        let Answered { access, .. } = self.retrying(|| self.attempt(&ask)).await?;
        Ok(UpstreamAnswer::Document {
            body: Vec::new(),
            media_type: "application/json".to_owned(),
            link: None,
            filters: None,
            access,
        })
    }

    /// What this node's own credentials come to for a server that has answered for `repository` with these headers: the
    /// registry, or a mirror that speaks in its name. None if it wants nothing that they could be, or there are none.
    ///
    /// # Errors
    /// If the credentials cannot be read, or the token endpoint cannot be asked, is none for this registry, or refuses.
    pub async fn credential_for(
        &self,
        repository: &Repository,
        headers: &HeaderMap,
    ) -> Result<Option<Authorization>, RegistryError> {
        let endpoint = self.inner.endpoints.of(repository)?;
        let Some(challenge) = challenge::best(headers) else {
            return Ok(None);
        };
        let Some(credential) = self.credential(&endpoint).await? else {
            return Ok(None);
        };
        let header = match challenge {
            Challenge::Basic => credential.basic(),
            Challenge::Bearer(bearer) => {
                let token = token::fetch(self, &endpoint, &bearer, Some(&credential)).await?;
                Some(token.header)
            }
        };
        Ok(header.and_then(|header| Authorization::from_header(&header).ok().flatten()))
    }

    pub(crate) fn config(&self) -> &Config {
        self.inner.endpoints.config()
    }

    pub(crate) fn meter(&self) -> &Arc<dyn Meter> {
        &self.meter
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.inner.endpoints
    }

    pub(crate) const fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Whether the credential may have expired before a long blob is read: then the blob is asked for once, as a whole.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(&self.asker, Asker::Client(authorization) if authorization.bearer().is_some())
    }

    pub(crate) fn session(&self, endpoint: &Endpoint) -> Arc<Session> {
        self.inner.sessions.of(&endpoint.repository)
    }

    pub(crate) async fn credential(&self, endpoint: &Endpoint) -> Result<Option<Credential>, RegistryError> {
        self.inner.endpoints.credential(&endpoint.repository).await
    }

    async fn retrying<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut retry = Retry::new(self.config());
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn try_manifest(&self, ask: &Ask<'_>, reference: &str) -> Result<Manifest, RegistryError> {
        let Answered { response, access, .. } = self.attempt(ask).await?;
        let said = answer::content_digest(response.headers());
        let media_type = answer::media_type(response.headers());
        let body = self.collect(ask, response, self.config().max_manifest).await?;
        let actual = Digest::of(&body);
        for expected in reference.parse().ok().into_iter().chain(said) {
            if expected != actual {
                return Err(ask.lie(Lie::Digest { expected, actual }));
            }
        }
        let media_type = media_type
            .or_else(|| media_type_inside(&body))
            .unwrap_or_else(|| ANY_BYTES.to_owned());
        Ok(Manifest {
            body,
            digest: actual,
            media_type,
            access,
        })
    }

    /// `None` where the registry does not say which digest a tag has.
    async fn try_head(&self, ask: &Ask<'_>, reference: &str) -> Result<Option<Head>, RegistryError> {
        let Answered { response, access, .. } = self.attempt(ask).await?;
        let headers = response.headers();
        let is_content = response.status().is_success();
        let asked: Option<Digest> = reference.parse().ok();
        let said = answer::content_digest(headers);
        if let Some((expected, actual)) = asked.zip(said).filter(|(asked, said)| asked != said) {
            return Err(ask.lie(Lie::Digest { expected, actual }));
        }
        let Some(digest) = asked.or(said) else {
            return Ok(None);
        };
        let size = answer::content_length(headers).filter(|_| is_content).unwrap_or(0);
        let media_type = answer::media_type(headers)
            .filter(|_| is_content)
            .unwrap_or_else(|| ANY_BYTES.to_owned());
        Ok(Some(Head {
            blob: Blob { digest, size },
            media_type,
            access,
        }))
    }

    async fn relay(
        &self,
        repository: &Repository,
        path: &str,
        query: &str,
        kind: RequestKind,
        media_type: &'static str,
    ) -> Result<UpstreamAnswer, RegistryError> {
        let endpoint = self.inner.endpoints.of(repository)?;
        let mut url = endpoint.url(path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let (method, accept) = (Method::GET, Some(media_type));
        let ask = Ask {
            endpoint: &endpoint,
            method,
            url,
            kind,
            accept,
            range: None,
        };
        self.retrying(|| self.try_relay(&ask, media_type)).await
    }

    async fn try_relay(&self, ask: &Ask<'_>, default_type: &str) -> Result<UpstreamAnswer, RegistryError> {
        let Answered { response, access, .. } = self.attempt(ask).await?;
        let headers = response.headers();
        let link = relayed(ask, headers, LINK.as_str())?;
        let filters = relayed(ask, headers, "oci-filters-applied")?;
        let media_type = answer::media_type(headers).unwrap_or_else(|| default_type.to_owned());
        let body = self.collect(ask, response, MAX_RELAYED_BODY as u64).await?;
        Ok(UpstreamAnswer::Document {
            body,
            media_type,
            link,
            filters,
            access,
        })
    }

    async fn collect(&self, ask: &Ask<'_>, response: reqwest::Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let registry = &ask.endpoint.repository.registry;
        let arrived = |bytes| meter::Meter::received(&*self.meter, registry, ask.kind, bytes);
        body::collect(response, limit, self.config().read_timeout, &ask.shown(), arrived).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}

impl From<Head> for UpstreamAnswer {
    fn from(
        Head {
            blob,
            media_type,
            access,
        }: Head,
    ) -> Self {
        Self::Content {
            blob,
            media_type,
            access,
        }
    }
}

/// A header that is passed on, if it is there.
fn relayed(ask: &Ask<'_>, headers: &HeaderMap, name: &str) -> Result<Option<String>, RegistryError> {
    let Some(text) = headers.get(name).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    if text.len() > MAX_HEADER {
        return Err(ask.lie(Lie::TooLarge(MAX_HEADER as u64)));
    }
    Ok(Some(text.to_owned()))
}

/// The `mediaType` that a manifest names itself.
fn media_type_inside(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    serde_json::from_slice::<Typed>(body).ok().map(|typed| typed.media_type)
}
