//! Health, metrics and status over HTTP.
//!
//! [`Admin`] gives every role `/healthz`, `/readyz`, `/metrics` and `/api/v1/status`; a role adds its own operations
//! as plain async closures that return something serialisable or an [`ApiError`]. Every error is JSON.
//!
//! There is no authentication: the port listens on loopback unless an operator says otherwise. What a web page could
//! do through a browser on the same machine is refused, though: requests that change something and come from another
//! origin.

mod api;
pub mod metrics;

pub use api::ApiError;
pub use httpd::Limits;
pub use metrics::Metrics;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use piece::Digest;
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;

/// The longest that a question may take; roles answer them from memory, so this is a role that is stuck.
const QUESTION: Duration = Duration::from_secs(10);
/// The longest that an operation may take: verifying a blob of 100 GiB from a slow disk.
const OPERATION: Duration = Duration::from_secs(1800);

/// Whether a role can do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, for this reason.
    NotReady(String),
}

/// The admin endpoints of one role, as they are put together.
#[derive(Debug, Clone)]
pub struct Admin {
    router: Router,
}

impl Admin {
    /// The endpoints that every role has. `registry` is what `/metrics` shows, `status` the JSON of `/api/v1/status`.
    pub fn new<S, F, R>(registry: Registry, status: S, ready: R) -> Self
    where
        S: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = serde_json::Value> + Send + 'static,
        R: Fn() -> Readiness + Send + Sync + 'static,
    {
        let ready = Arc::new(ready);
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || std::future::ready(readiness(ready()))))
            .route("/metrics", get(move || std::future::ready(exposition(&registry))));
        Self { router }.get("/api/v1/status", move || {
            let status = status();
            async move { Ok(status.await) }
        })
    }

    /// Adds a question: `GET path`.
    pub fn get<Q, F, T>(self, path: &str, question: Q) -> Self
    where
        Q: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: Serialize,
    {
        let question = Arc::new(question);
        self.route(path, get(move || api::answer(question(), QUESTION)))
    }

    /// Adds an operation with a JSON body: `POST path`. With `()` as its argument it takes no body.
    pub fn post<B, O, F, T>(self, path: &str, operation: O) -> Self
    where
        B: DeserializeOwned + Send + 'static,
        O: Fn(B) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: Serialize,
    {
        let operation = Arc::new(operation);
        let handler = async move |body: api::Json<B>| api::answer(operation(body.0), OPERATION).await;
        self.route(path, axum::routing::post(handler))
    }

    /// Adds an operation on one blob: `POST /api/v1/blobs/DIGEST/name`.
    pub fn post_blob<O, F, T>(self, name: &str, operation: O) -> Self
    where
        O: Fn(Digest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: Serialize,
    {
        let operation = Arc::new(operation);
        let handler = async move |blob: api::BlobPath| api::answer(operation(blob.0), OPERATION).await;
        self.route(
            &format!("/api/v1/blobs/{{digest}}/{name}"),
            axum::routing::post(handler),
        )
    }

    /// Adds the removal of a blob: `DELETE /api/v1/blobs/DIGEST`.
    pub fn delete_blob<O, F, T>(self, operation: O) -> Self
    where
        O: Fn(Digest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: Serialize,
    {
        let operation = Arc::new(operation);
        let handler = async move |blob: api::BlobPath| api::answer(operation(blob.0), OPERATION).await;
        self.route("/api/v1/blobs/{digest}", axum::routing::delete(handler))
    }

    /// Adds anything else.
    pub fn route(mut self, path: &str, method: MethodRouter) -> Self {
        self.router = self.router.route(path, method);
        self
    }

    /// The endpoints, to be served.
    pub fn router(self) -> Router {
        let router = self.router.fallback(|| std::future::ready(api::not_found()));
        let router = router.method_not_allowed_fallback(|| std::future::ready(api::method_not_allowed()));
        router.layer(axum::middleware::from_fn(api::same_origin))
    }

    /// Serves the endpoints until `shutdown`, then finishes what is under way.
    pub async fn serve(self, listener: TcpListener, limits: Limits, shutdown: impl Future<Output = ()>) {
        httpd::serve(listener, self.router(), limits, shutdown).await;
    }
}

fn readiness(ready: Readiness) -> Response {
    match ready {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(reason) => httpd::error(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", &reason),
    }
}

fn exposition(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics as text");
            httpd::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "INTERNAL",
                "the metrics cannot be written; see the log",
            )
        }
    }
}
