//! What a client is told when it does not get what it asked for.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wire::control::Failure;

use crate::content::RequestKind;
use crate::path::PathError;
use crate::upstream::UpstreamError;

/// An OCI error, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u32>,
    challenge: Option<String>,
}

impl Refusal {
    /// A failure of the node or of the registry behind it, with the registry's own status but for 408 and 429: on these
    /// containerd repeats its request here, where it should move on to its next host.
    pub(crate) fn failed(kind: RequestKind, failure: Failure) -> Self {
        let (status, code) = match failure.status {
            401 => (401, "UNAUTHORIZED"),
            403 => (403, "DENIED"),
            404 => (404, unknown(kind)),
            408 => (504, "UNAVAILABLE"),
            429 => (503, "TOOMANYREQUESTS"),
            status @ 400..=499 => (status, "UNSUPPORTED"),
            status @ 500..=599 => (status, "UNAVAILABLE"),
            _ => (502, "UNAVAILABLE"),
        };
        Self {
            status: StatusCode::from_u16(status).expect("400 to 599 are statuses"),
            code,
            message: failure.message,
            retry_after: failure.retry_after,
            challenge: failure.challenge,
        }
    }

    /// The node or the registry behind it gave no answer in time.
    pub(crate) fn too_late(kind: RequestKind, seconds: u64) -> Self {
        let message = format!("neither another node nor the registry gave an answer within {seconds} s");
        Self::failed(
            kind,
            Failure {
                status: 504,
                message,
                retry_after: None,
                challenge: None,
            },
        )
    }

    /// The registry's answer is one that cannot be passed on.
    pub(crate) fn bad_answer(message: &str) -> Self {
        Self::plain(StatusCode::BAD_GATEWAY, "UNAVAILABLE", message.to_owned())
    }

    /// This node serves as many as it may.
    pub(crate) fn overload() -> Self {
        let message = "this node serves as many requests as it may; try another mirror or the registry itself";
        Self::plain(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message.to_owned())
    }

    /// Credentials that cannot be passed on.
    pub(crate) fn credentials(message: &str) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::plain(status, "UNAUTHORIZED", message.to_owned())
    }

    /// A method that changes something.
    pub(crate) fn write() -> Self {
        let message = "this is a mirror: it can be read only; push to the registry itself";
        Self::plain(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message.to_owned())
    }

    fn plain(status: StatusCode, code: &'static str, message: String) -> Self {
        Self {
            status,
            code,
            message,
            retry_after: None,
            challenge: None,
        }
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        let (status, code) = match &error {
            PathError::Unknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            PathError::Tag(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            PathError::Digest { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        };
        Self::plain(status, code, error.to_string())
    }
}

impl From<UpstreamError> for Refusal {
    fn from(error: UpstreamError) -> Self {
        let (status, code) = match &error {
            UpstreamError::NoRegistry | UpstreamError::NotAllowed(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            UpstreamError::Namespace(_) | UpstreamError::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
        };
        Self::plain(status, code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = httpd::error(self.status, self.code, &self.message);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        // A challenge that is no header value cannot have been one at the registry.
        if let Some(challenge) = self.challenge.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

const fn unknown(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Blob => "BLOB_UNKNOWN",
        RequestKind::Manifest | RequestKind::Referrers => "MANIFEST_UNKNOWN",
        RequestKind::Ping | RequestKind::Tags | RequestKind::Other => "NAME_UNKNOWN",
    }
}
