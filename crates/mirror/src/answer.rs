//! The way of a request: is there room, what does it ask, of which registry, and what comes back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use piece::{Blob, Digest};
use tokio::sync::Semaphore;
use wire::Authorization;
use wire::control::{self, Failure, Kind, Repository, Source, Upstream};

use crate::body::{Delivery, Slot};
use crate::conditions::{self, Part};
use crate::config::{Config, ConfigError, Upstreams};
use crate::content::{Content, Cut, Document, Meter, Opened, RequestKind};
use crate::path::{Endpoint, Query, Target};
use crate::refusal::Refusal;
use crate::{credential, link, manifest, response};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// Blobs are opaque: what the registry calls them is the manifest's business, and no browser should interpret them.
const BLOB_TYPE: &str = "application/octet-stream";
/// Documents at a time. They are the only bodies held in memory, up to [`control::MAX_RELAYED_BODY`] each.
const MAX_DOCUMENTS: usize = 32;

/// The mirror's endpoints in front of `content`.
///
/// # Errors
/// If the configuration contradicts itself or names registries that cannot be.
pub fn router<C: Content>(config: &Config, content: Arc<C>, meter: Arc<dyn Meter>) -> Result<Router, ConfigError> {
    if config.max_requests == 0 {
        return Err(ConfigError::NoRequests);
    }
    let mirror = Arc::new(Mirror {
        content,
        meter,
        upstreams: Upstreams::new(config)?,
        requests: Arc::new(Semaphore::new(config.max_requests * 2)),
        reserved: config.max_requests,
        documents: Arc::new(Semaphore::new(MAX_DOCUMENTS)),
        answer_timeout: config.answer_timeout,
        stall_timeout: config.stall_timeout,
    });
    let handler = any(move |request: Request| Arc::clone(&mirror).answer(request));
    Ok(Router::new()
        .route("/v2", handler.clone())
        .route("/v2/", handler.clone())
        .route("/v2/{*path}", handler))
}

struct Mirror<C> {
    content: Arc<C>,
    meter: Arc<dyn Meter>,
    upstreams: Upstreams,
    requests: Arc<Semaphore>,
    /// How many of `requests` are for blobs only, so that pulls that began can end.
    reserved: usize,
    documents: Arc<Semaphore>,
    answer_timeout: Duration,
    stall_timeout: Duration,
}

/// A request that was let in.
struct Ask<'r> {
    is_head: bool,
    headers: &'r HeaderMap,
    path: &'r str,
    query: &'r Query,
    /// What the client has shown.
    client: Option<Authorization>,
    slot: Slot,
}

impl<C: Content> Mirror<C> {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let (request, _body) = request.into_parts();
        let target = Target::parse(request.uri.path());
        let query = Query::parse(request.uri.query().unwrap_or_default());
        let kind = target.as_ref().map_or_else(|error| error.kind(), Target::kind);
        let answered = async {
            let is_head = request.method == Method::HEAD;
            if !is_head && request.method != Method::GET {
                return Err(Refusal::write());
            }
            let target = target?;
            let slot = self.admit(kind)?;
            let (path, headers) = (request.uri.path(), &request.headers);
            let client = credential::shown(headers)?;
            self.read(
                target,
                Ask {
                    is_head,
                    headers,
                    path,
                    query: &query,
                    client,
                    slot,
                },
            )
            .await
        };
        let mut response = answered.await.unwrap_or_else(IntoResponse::into_response);
        response
            .headers_mut()
            .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        if let Some(ns) = query.ns.as_deref().and_then(|ns| HeaderValue::from_str(ns).ok()) {
            response.headers_mut().insert(NAMESPACE, ns);
        }
        self.meter.request(kind, response.status().as_u16());
        response
    }

    fn admit(&self, kind: RequestKind) -> Result<Slot, Refusal> {
        // Whoever got a manifest from us must get its blobs, so new pulls stop where half of the room is taken.
        if kind != RequestKind::Blob && self.requests.available_permits() <= self.reserved {
            return Err(Refusal::overload());
        }
        let permit = |semaphore: &Arc<Semaphore>| {
            Arc::clone(semaphore)
                .try_acquire_owned()
                .map_err(|_full| Refusal::overload())
        };
        let is_document = matches!(kind, RequestKind::Tags | RequestKind::Referrers);
        let document = is_document.then(|| permit(&self.documents)).transpose()?;
        Ok(Slot {
            _request: permit(&self.requests)?,
            _document: document,
        })
    }

    async fn read(&self, target: Target, ask: Ask<'_>) -> Result<Response, Refusal> {
        let (name, endpoint) = match target {
            Target::Ping => return self.ping(ask).await,
            Target::Of { name, endpoint } => (name, endpoint),
        };
        let repository = self.upstreams.select(ask.query.ns.as_deref(), &name)?;
        match endpoint {
            Endpoint::Tag(tag) => self.tag(ask, repository, &tag).await,
            Endpoint::Manifest(digest) => self.manifest(ask, repository, digest).await,
            Endpoint::Blob(digest) => self.blob(ask, repository, digest).await,
            Endpoint::Tags => {
                let query = control::Query::Tags {
                    query: ask.query.rest.clone(),
                };
                self.document(ask, RequestKind::Tags, Upstream { repository, query })
                    .await
            }
            Endpoint::Referrers(digest) => {
                let query = control::Query::Referrers {
                    digest,
                    query: ask.query.rest.clone(),
                };
                self.document(ask, RequestKind::Referrers, Upstream { repository, query })
                    .await
            }
        }
    }

    /// A mirror of many registries has nothing to ask of those who come, unless the operator names the one to ask for.
    async fn ping(&self, ask: Ask<'_>) -> Result<Response, Refusal> {
        if let Some(registry) = &self.upstreams.challenge {
            self.in_time(RequestKind::Ping, self.content.ping(registry, ask.client.as_ref()))
                .await?;
        }
        Ok(axum::Json(serde_json::json!({})).into_response())
    }

    async fn tag(&self, ask: Ask<'_>, repository: Repository, tag: &str) -> Result<Response, Refusal> {
        let kind = RequestKind::Manifest;
        let resolved = self
            .in_time(kind, self.content.resolve(&repository, tag, ask.client.as_ref()))
            .await?;
        if ask.is_head && is_size_known(&resolved.blob) {
            return Ok(response::head(ask.headers, &resolved.blob, &resolved.media_type));
        }
        let source = Source {
            repository,
            kind: Kind::Manifest,
        };
        let opened = self
            .in_time(
                kind,
                self.content
                    .open(&source, &resolved.blob.digest, ask.client.as_ref(), 0),
            )
            .await?;
        Ok(self.deliver(ask, opened, &resolved.media_type))
    }

    /// A manifest by digest. Its type is not compared with `Accept`: a digest names one content, RFC 9110 (12.5.1) lets
    /// a server answer as if there were no such header, and a 404 for what exists would split a pull between two hosts.
    async fn manifest(&self, ask: Ask<'_>, repository: Repository, digest: Digest) -> Result<Response, Refusal> {
        let kind = RequestKind::Manifest;
        let source = Source {
            repository,
            kind: Kind::Manifest,
        };
        if ask.is_head {
            let probed = self
                .in_time(kind, self.content.probe(&source, &digest, ask.client.as_ref()))
                .await?;
            if let (true, Some(media_type)) = (is_size_known(&probed.blob), probed.media_type) {
                return Ok(response::head(ask.headers, &probed.blob, &media_type));
            }
        }
        let opened = self
            .in_time(kind, self.content.open(&source, &digest, ask.client.as_ref(), 0))
            .await?;
        let media_type = match opened.media_type.clone() {
            Some(media_type) => media_type,
            None => {
                let read = async { manifest::media_type(&opened).await.map_err(unreadable) };
                self.in_time(kind, read).await?
            }
        };
        Ok(self.deliver(ask, opened, &media_type))
    }

    async fn blob(&self, ask: Ask<'_>, repository: Repository, digest: Digest) -> Result<Response, Refusal> {
        let source = Source {
            repository,
            kind: Kind::Blob,
        };
        if ask.is_head {
            let probed = self
                .in_time(
                    RequestKind::Blob,
                    self.content.probe(&source, &digest, ask.client.as_ref()),
                )
                .await?;
            if is_size_known(&probed.blob) {
                return Ok(response::head(ask.headers, &probed.blob, BLOB_TYPE));
            }
        }
        let from = conditions::first_byte(ask.headers);
        let opened = self
            .in_time(
                RequestKind::Blob,
                self.content.open(&source, &digest, ask.client.as_ref(), from),
            )
            .await?;
        Ok(self.deliver(ask, opened, BLOB_TYPE))
    }

    async fn document(&self, ask: Ask<'_>, kind: RequestKind, upstream: Upstream) -> Result<Response, Refusal> {
        let document = self
            .in_time(kind, self.content.document(upstream, ask.client.as_ref()))
            .await?;
        let Document {
            body,
            media_type,
            link,
            filters,
        } = document;
        let link = link
            .as_deref()
            .map(|link| link::rewrite(link, ask.path, ask.query.ns.as_deref()))
            .transpose();
        let link = link.map_err(|error| Refusal::bad_answer(&error.to_string()))?.flatten();
        let mut response = response::document(body.len(), media_type, link, filters);
        if !ask.is_head {
            let length = body.len() as u64;
            let content = stream::iter([Ok(body)]).boxed();
            *response.body_mut() = self.delivery(None, content, length, ask.slot).into_body();
        }
        Ok(response)
    }

    /// The answer to GET (and to a HEAD that had to open the content).
    fn deliver(&self, ask: Ask<'_>, opened: Opened, media_type: &str) -> Response {
        let blob = opened.blob;
        if ask.is_head || conditions::is_unchanged(ask.headers, &blob.digest) {
            return response::head(ask.headers, &blob, media_type);
        }
        let (mut response, range) = match Part::wanted(ask.headers, &blob) {
            Part::Whole => (response::whole(&blob, media_type), 0..blob.size),
            Part::Range(range) => (response::partial(&blob, media_type, &range), range),
            Part::Unsatisfiable => return response::unsatisfiable(&blob, media_type),
        };
        let length = range.end - range.start;
        if length > 0 {
            let content = opened.content.read(range);
            *response.body_mut() = self.delivery(Some(blob.digest), content, length, ask.slot).into_body();
        }
        response
    }

    fn delivery(
        &self,
        digest: Option<Digest>,
        content: BoxStream<'static, Result<Bytes, Cut>>,
        length: u64,
        slot: Slot,
    ) -> Delivery {
        Delivery {
            digest,
            content,
            length,
            meter: Arc::clone(&self.meter),
            stall: self.stall_timeout,
            _slot: slot,
        }
    }

    async fn in_time<T>(
        &self,
        kind: RequestKind,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(self.answer_timeout, answer).await {
            Ok(answer) => answer.map_err(|failure| Refusal::failed(kind, failure)),
            Err(_elapsed) => Err(Refusal::too_late(kind, self.answer_timeout.as_secs())),
        }
    }
}

/// A registry may name no size in answer to a HEAD; the trait's size is then 0.
fn is_size_known(blob: &Blob) -> bool {
    blob.size > 0 || blob.digest == Digest::EMPTY
}

/// The manifest's own bytes did not come.
fn unreadable(cut: Cut) -> Failure {
    Failure {
        status: 502,
        message: cut.to_string(),
        retry_after: None,
        challenge: None,
    }
}
