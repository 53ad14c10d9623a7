//! The heads of good answers. `Docker-Content-Digest` and `ETag` are on every one that is about a content;
//! `Content-Encoding` is on none, for a compressed body has no length to announce.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use piece::Blob;

use crate::conditions;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The answer to HEAD, or to a client that has this content already.
pub(crate) fn head(request: &HeaderMap, blob: &Blob, media_type: &str) -> Response {
    if conditions::is_unchanged(request, &blob.digest) {
        return described(StatusCode::NOT_MODIFIED, blob, media_type);
    }
    whole(blob, media_type)
}

/// The head of all of a content.
pub(crate) fn whole(blob: &Blob, media_type: &str) -> Response {
    let mut response = described(StatusCode::OK, blob, media_type);
    response.headers_mut().insert(header::CONTENT_LENGTH, blob.size.into());
    response
}

/// The head of one range of a content.
pub(crate) fn partial(blob: &Blob, media_type: &str, range: &Range<u64>) -> Response {
    let mut response = described(StatusCode::PARTIAL_CONTENT, blob, media_type);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    headers.insert(
        header::CONTENT_RANGE,
        ascii(format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size)),
    );
    response
}

/// The answer to a range past the end.
pub(crate) fn unsatisfiable(blob: &Blob, media_type: &str) -> Response {
    let mut response = described(StatusCode::RANGE_NOT_SATISFIABLE, blob, media_type);
    response
        .headers_mut()
        .insert(header::CONTENT_RANGE, ascii(format!("bytes */{}", blob.size)));
    response
}

/// The head of a registry's document.
pub(crate) fn document(length: usize, media_type: String, link: Option<String>, filters: Option<String>) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text_or(&media_type, "application/json"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    for (name, value) in [(header::LINK, link), (FILTERS_APPLIED, filters)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

fn described(status: StatusCode, blob: &Blob, media_type: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text_or(media_type, "application/octet-stream"));
    headers.insert(CONTENT_DIGEST, ascii(blob.digest.to_string()));
    headers.insert(header::ETAG, ascii(conditions::entity_tag(&blob.digest)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// `text` comes from a registry, through other nodes.
fn text_or(text: &str, otherwise: &'static str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(otherwise))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, letters and punctuation make a header value")
}
