//! Answers: the pull and content discovery parts of the OCI distribution spec.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::State as Extract;
use bytes::Bytes;
use futures::stream;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, RANGE, RETRY_AFTER,
    USER_AGENT, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use piece::Digest;
use serde_json::json;
use tokio::sync::watch;

use crate::content::Content;
use crate::fault::{Fault, Seen};
use crate::log::{Entry, Log};
use crate::registry::{Repository, State};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Answers any request.
pub(crate) async fn answer(Extract(state): Extract<Arc<State>>, request: Request<Body>) -> Response<Body> {
    let before = state.requests.fetch_add(1, Ordering::Relaxed);
    let mut entry = begun(&request);
    tokio::time::sleep(state.options.latency).await;
    let found = match *request.method() {
        Method::GET | Method::HEAD => find(&state, &request),
        _ => Found::Error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    };
    let Found::Content(found) = found else {
        return plain(&state.log, entry, &found);
    };
    entry.digest = found.digest;
    let asked = if state.options.without_ranges {
        Asked::All
    } else {
        asked(&request, found.content.size())
    };
    entry.range = if let Asked::Part(range) = &asked {
        Some(range.clone())
    } else {
        None
    };
    let fault = fault(&state, &entry, before);
    let asked = match fault {
        Some(Fault::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return plain(&state.log, entry, &Found::Fault(status, retry_after));
        }
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            asked
        }
        Some(Fault::NoRange) => Asked::All,
        Some(Fault::CutAfter(_) | Fault::StallAfter(_) | Fault::Corrupt(_)) | None => asked,
    };
    let answer = Answer {
        found,
        fault,
        head_only: request.method() == Method::HEAD,
    };
    answer.send(asked, entry, &state)
}

/// The log entry of a request that has just come in.
fn begun(request: &Request<Body>) -> Entry {
    Entry {
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        range: None,
        status: 0,
        bytes: 0,
        user_agent: header(request, USER_AGENT).to_owned(),
        digest: None,
    }
}

fn header(request: &Request<Body>, name: HeaderName) -> &str {
    request
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// What is to go wrong with this request.
fn fault(state: &State, entry: &Entry, before: u64) -> Option<Fault> {
    let script = state.faults.lock().unwrap_or_else(PoisonError::into_inner).0.clone()?;
    let path = entry.path.split('?').next().unwrap_or_default().to_owned();
    let (method, user_agent) = (entry.method.clone(), entry.user_agent.clone());
    script(&Seen {
        method,
        path,
        range: entry.range.clone(),
        user_agent,
        before,
    })
}

/// What a path leads to.
enum Found {
    Content(Served),
    Error(StatusCode, &'static str),
    Unauthorized,
    Fault(StatusCode, Option<u32>),
}

/// What exists.
struct Served {
    content: Content,
    media_type: String,
    /// Of a blob or manifest.
    digest: Option<Digest>,
    /// To the next page of a list.
    link: Option<String>,
}

impl Found {
    fn document(body: &serde_json::Value, media_type: &str) -> Self {
        let content = Content::bytes(body.to_string());
        Self::Content(Served {
            content,
            media_type: media_type.to_owned(),
            digest: None,
            link: None,
        })
    }

    const UNKNOWN_NAME: Self = Self::Error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
}

fn find(state: &State, request: &Request<Body>) -> Found {
    let path = request.uri().path();
    if matches!(path, "/v2" | "/v2/") {
        return Found::document(&json!({}), "application/json");
    }
    let Some(path) = path.strip_prefix("/v2/") else {
        return Found::UNKNOWN_NAME;
    };
    let mut parts = path.rsplitn(3, '/');
    let (Some(reference), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Found::UNKNOWN_NAME;
    };
    let repositories = state.repositories.read().unwrap_or_else(PoisonError::into_inner);
    let Some(repository) = repositories.get(name) else {
        return Found::UNKNOWN_NAME;
    };
    if repository
        .authorization
        .as_ref()
        .is_some_and(|wanted| header(request, AUTHORIZATION) != wanted)
    {
        return Found::Unauthorized;
    }
    match kind {
        "blobs" => blob(repository, reference),
        "manifests" => manifest(repository, reference),
        "tags" if reference == "list" => tags(repository, name, request.uri().query().unwrap_or_default()),
        "referrers" => Found::document(
            &json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [] }),
            INDEX_TYPE,
        ),
        _ => Found::UNKNOWN_NAME,
    }
}

fn blob(repository: &Repository, reference: &str) -> Found {
    match reference.parse().ok().and_then(|digest| repository.blobs.get(&digest)) {
        Some(content) => Found::Content(Served {
            content: content.clone(),
            media_type: "application/octet-stream".to_owned(),
            digest: Some(content.digest()),
            link: None,
        }),
        None => Found::Error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
    }
}

fn manifest(repository: &Repository, reference: &str) -> Found {
    let digest = reference
        .parse()
        .ok()
        .or_else(|| repository.tags.get(reference).copied());
    match digest.and_then(|digest| repository.manifests.get(&digest)) {
        Some(manifest) => Found::Content(Served {
            content: manifest.content.clone(),
            media_type: manifest.media_type.clone(),
            digest,
            link: None,
        }),
        None => Found::Error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
    }
}

/// A page of tags; `n` and `last` as the spec has them.
fn tags(repository: &Repository, name: &str, query: &str) -> Found {
    let get = |key: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(k, _)| *k == key)
    };
    let last = get("last").map(|(_, value)| value.to_owned()).unwrap_or_default();
    let limit = get("n").and_then(|(_, value)| value.parse().ok()).unwrap_or(usize::MAX);
    let after: Vec<_> = repository.tags.keys().filter(|tag| **tag > last).collect();
    let page = &after[..after.len().min(limit)];
    let mut found = Found::document(&json!({ "name": name, "tags": page }), "application/json");
    if let (Found::Content(served), Some(end), true) = (&mut found, page.last(), page.len() < after.len()) {
        served.link = Some(format!("</v2/{name}/tags/list?n={limit}&last={end}>; rel=\"next\""));
    }
    found
}

/// An answer without content.
fn plain(log: &Log, mut entry: Entry, found: &Found) -> Response<Body> {
    let (status, code) = match found {
        Found::Error(status, code) => (*status, *code),
        Found::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        Found::Fault(status, _) => (*status, "UNKNOWN"),
        Found::Content(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
    };
    let body = json!({ "errors": [{ "code": code, "message": code.to_lowercase().replace('_', " ") }] }).to_string();
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    if let Found::Unauthorized = found {
        response = response.header(WWW_AUTHENTICATE, "Basic realm=\"testbed\"");
    }
    if let Found::Fault(_, Some(seconds)) = found {
        response = response.header(RETRY_AFTER, *seconds);
    }
    entry.status = status.as_u16();
    entry.bytes = if entry.method == "HEAD" { 0 } else { body.len() as u64 };
    log.add(entry);
    response.body(Body::from(body)).expect("these headers are valid")
}

/// Which part of a content is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Part(Range<u64>),
    Nothing,
}

/// What a `Range` means for a content of `size` bytes. Several ranges, and nonsense, mean all of it (RFC 9110, 14.2).
fn asked(request: &Request<Body>, size: u64) -> Asked {
    parse_range(header(request, RANGE), size)
}

fn parse_range(header: &str, size: u64) -> Asked {
    let Some((first, last)) = header
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Asked::All;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Asked::All,
        (Ok(first), _) if first >= size && (last.is_empty() || last.parse::<u64>().is_ok()) => Asked::Nothing,
        (Ok(first), Ok(last)) => Asked::Part(first..last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => Asked::Part(first..size),
        (Err(_), Ok(0)) if first.is_empty() => Asked::Nothing,
        (Err(_), Ok(suffix)) if first.is_empty() && size > 0 => Asked::Part(size.saturating_sub(suffix)..size),
        _ => Asked::All,
    }
}

/// An answer with content.
struct Answer {
    found: Served,
    fault: Option<Fault>,
    head_only: bool,
}

impl Answer {
    fn send(self, asked: Asked, mut entry: Entry, state: &State) -> Response<Body> {
        let size = self.found.content.size();
        let (status, range) = match asked {
            Asked::All => (StatusCode::OK, 0..size),
            Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Asked::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
        };
        entry.status = status.as_u16();
        let mut response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, &self.found.media_type)
            .header(CONTENT_LENGTH, range.end - range.start);
        if !state.options.without_ranges {
            response = response.header(ACCEPT_RANGES, "bytes");
        }
        response = match status {
            StatusCode::PARTIAL_CONTENT => {
                response.header(CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1))
            }
            StatusCode::RANGE_NOT_SATISFIABLE => response.header(CONTENT_RANGE, format!("bytes */{size}")),
            _ => response,
        };
        if let Some(digest) = entry.digest {
            response = response.header("docker-content-digest", digest.to_string());
        }
        if let Some(link) = &self.found.link {
            response = response.header(LINK, link);
        }
        let logged = Logged {
            entry,
            log: state.log.clone(),
        };
        if self.head_only || range.is_empty() {
            drop(logged);
            return response.body(Body::empty()).expect("these headers are valid");
        }
        let start = range.start;
        let sending = Sending {
            content: self.found.content,
            at: start,
            start,
            end: range.end,
            fault: self.fault,
            stopped: state.stopped.clone(),
            logged,
        };
        let chunks = stream::try_unfold(sending, |mut sending| async {
            sending.next().await.map(|chunk| chunk.map(|chunk| (chunk, sending)))
        });
        response
            .body(Body::from_stream(chunks))
            .expect("these headers are valid")
    }
}

/// A body on its way.
struct Sending {
    content: Content,
    start: u64,
    at: u64,
    end: u64,
    fault: Option<Fault>,
    stopped: watch::Receiver<bool>,
    logged: Logged,
}

impl Sending {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at == self.end {
            return Ok(None);
        }
        let sent = self.at - self.start;
        let mut limit = self.end;
        match self.fault {
            Some(Fault::CutAfter(bytes)) if sent >= bytes => {
                // What was sent so far goes out while this waits; an error would take it along.
                tokio::task::yield_now().await;
                return Err(io::Error::other("cut, as told"));
            }
            Some(Fault::StallAfter(bytes)) if sent >= bytes => {
                // Either way it is over: the sender only goes away with the registry.
                let _ = self.stopped.wait_for(|stopped| *stopped).await;
                return Err(io::Error::other("stalled, as told"));
            }
            Some(Fault::CutAfter(bytes) | Fault::StallAfter(bytes)) => limit = limit.min(self.start + bytes),
            Some(Fault::Status(..) | Fault::Corrupt(_) | Fault::NoRange | Fault::Delay(_)) | None => {}
        }
        let mut chunk = self.content.chunk(self.at, limit).await?;
        if let Some(Fault::Corrupt(offset)) = self.fault
            && let Some(at) = offset.checked_sub(self.at).filter(|at| *at < chunk.len() as u64)
        {
            let mut altered = chunk.to_vec();
            altered[usize::try_from(at).expect("inside the chunk")] ^= 1;
            chunk = altered.into();
        }
        self.at += chunk.len() as u64;
        self.logged.entry.bytes += chunk.len() as u64;
        Ok(Some(chunk))
    }
}

/// Writes its entry when the answer is over, however that came.
struct Logged {
    entry: Entry,
    log: Log,
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.log.add(self.entry.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, expected) in [
            ("", Asked::All),
            ("bytes=0-9", Asked::Part(0..10)),
            ("bytes=5-", Asked::Part(5..100)),
            ("bytes=90-200", Asked::Part(90..100)),
            ("bytes=-10", Asked::Part(90..100)),
            ("bytes=-200", Asked::Part(0..100)),
            ("bytes=100-", Asked::Nothing),
            ("bytes=100-200", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=9-5", Asked::All),
            ("bytes=0-1,5-6", Asked::All),
            ("bytes=x-", Asked::All),
            ("items=0-9", Asked::All),
        ] {
            assert_eq!(parse_range(header, 100), expected, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Nothing);
        assert_eq!(parse_range("bytes=-5", 0), Asked::All);
    }
}
