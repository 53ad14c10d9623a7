//! How operations are asked and answered: JSON in, JSON out, JSON errors.

use std::future::Future;
use std::time::Duration;

use axum::body::{self, Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::{HeaderMap, StatusCode, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use piece::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of an operation's body: a preheat of some thousand blobs.
const MAX_BODY: usize = 1 << 20;
/// The longest that it may be on its way: who sends it byte by byte has one connection of few.
const BODY: Duration = Duration::from_secs(30);

/// Why an operation cannot be done, by whose fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request makes no sense (400).
    #[error("{0}")]
    Invalid(String),
    /// What it names is not here (404).
    #[error("{0}")]
    NotFound(String),
    /// It can't be done in the present state, such as removing a pinned blob (409).
    #[error("{0}")]
    Conflict(String),
    /// It can't be done now, but may be later (503).
    #[error("{0}")]
    Unavailable(String),
    /// It failed, and the operator must look (500).
    #[error("{0}")]
    Failed(String),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "INVALID"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "CONFLICT"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Self::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "FAILED"),
        };
        httpd::error(status, code, &self.to_string())
    }
}

/// The answer of an operation, which must come within `limit`.
pub(crate) async fn answer<T: Serialize>(
    operation: impl Future<Output = Result<T, ApiError>>,
    limit: Duration,
) -> Response {
    let Ok(answer) = tokio::time::timeout(limit, operation).await else {
        let message = format!(
            "no answer within {} s; the node is overloaded or stuck",
            limit.as_secs()
        );
        return ApiError::Unavailable(message).into_response();
    };
    match answer {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) => error.into_response(),
    }
}

/// An operation's body. No body is JSON's `null`, so that `()` and `Option` stand for "none".
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), BODY).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|error| unexpected(&error))
    }
}

/// The whole of a body that is short and comes within `limit`.
async fn read(body: Body, limit: Duration) -> Result<Bytes, ApiError> {
    let whole = tokio::time::timeout(limit, body::to_bytes(body, MAX_BODY)).await;
    whole
        .map_err(|late| unexpected(&late))?
        .map_err(|error| unexpected(&error))
}

fn unexpected(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::Invalid(format!("the body is not as expected: {error}"))
}

/// The digest in a path.
pub(crate) struct BlobPath(pub(crate) Digest);

impl<S: Send + Sync> FromRequestParts<S> for BlobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|error| ApiError::Invalid(error.to_string()))?;
        text.parse()
            .map(Self)
            .map_err(|error| ApiError::Invalid(format!("`{text}` is not a digest: {error}")))
    }
}

/// Refuses what a page of another site makes a browser send here (cross-site request forgery). Browsers name the
/// page's origin with every request that can change something; commands and scrapers name none.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    if is_cross_origin(request.headers()) && !request.method().is_safe() {
        return httpd::error(
            StatusCode::FORBIDDEN,
            "DENIED",
            "requests from pages of another origin change nothing",
        );
    }
    next.run(request).await
}

fn is_cross_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, host)| host.as_bytes());
    origin.is_none() || origin != headers.get(header::HOST).map(header::HeaderValue::as_bytes)
}

pub(crate) fn not_found() -> Response<Body> {
    let message = "no such endpoint; there are /healthz, /readyz, /metrics and /api/v1/status, and more by role";
    ApiError::NotFound(message.to_owned()).into_response()
}

pub(crate) fn method_not_allowed() -> Response<Body> {
    httpd::error(
        StatusCode::METHOD_NOT_ALLOWED,
        "UNSUPPORTED",
        "this endpoint does not take this method",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_that_is_stuck_is_reported() {
        let response = answer::<()>(std::future::pending(), Duration::from_millis(10)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = body::to_bytes(response.into_body(), 4096).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("overloaded or stuck"));
    }

    #[tokio::test]
    async fn a_body_must_be_short_and_come_in_time() {
        let chunk = || Ok::<_, std::io::Error>(vec![b' '; 1 << 16]);
        let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let late = read(never, Duration::from_millis(10)).await.unwrap_err();
        assert!(late.to_string().contains("deadline has elapsed"), "{late}");
        let endless = Body::from_stream(futures::stream::repeat_with(chunk));
        let long = read(endless, BODY).await.unwrap_err();
        assert!(long.to_string().contains("length limit exceeded"), "{long}");
        assert_eq!(read(Body::from("null"), BODY).await.unwrap(), "null");
    }

    #[test]
    fn origins() {
        let is_cross = |origin: Option<&'static str>, host: &'static str| {
            let headers = [(header::ORIGIN, origin), (header::HOST, Some(host))];
            let present = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
            is_cross_origin(&present.map(|(name, value)| (name, value.parse().unwrap())).collect())
        };
        assert!(!is_cross(None, "127.0.0.1:7656"));
        assert!(!is_cross(Some("http://127.0.0.1:7656"), "127.0.0.1:7656"));
        assert!(is_cross(Some("http://127.0.0.1:8080"), "127.0.0.1:7656"));
        assert!(is_cross(Some("null"), "127.0.0.1:7656"));
    }
}
