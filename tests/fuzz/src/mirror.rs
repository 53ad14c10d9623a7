//! The mirror's own HTTP: paths, queries, ranges, conditions, and what a registry may make it answer.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use mirror::{BlobContent, Config, Content, Cut, Document, Meter, Opened, RequestKind, Resolved};
use piece::{Blob, Digest};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use wire::Authorization;
use wire::control::{Failure, Kind, Query, Repository, Source, Upstream};

use crate::Decoder;
use crate::reference::named;

/// Every blob of this node.
const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

pub(crate) const DECODER: Decoder = Decoder {
    name: "mirror",
    check,
    words: &[
        "/v2/",
        "/blobs/sha256:",
        "/manifests/",
        "/tags/list",
        "/referrers/",
        "?ns=",
        "&n=5",
        "%2F",
        "%00",
        "%ff",
        "__5000",
        "localhost",
        "range: bytes=",
        "-",
        "18446744073709551615",
        "if-range: ",
        "if-none-match: *",
        "<link: <",
        ">; rel=\"next\"",
        "<type: ",
        "HEAD ",
        "POST ",
    ],
    max_len: 4 << 10,
    memory: 1 << 20,
};

/// One request, as lines: `[METHOD ]PATH`, then headers. Lines that begin with `<` are what the registry said: its `link`,
/// its media `type`, its `body`.
fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let target = lines.next().unwrap_or_default();
    let lines: Vec<&str> = lines.collect();
    let answer = ask(target, &lines);
    if let Some(asked) = &answer.asked {
        named(asked.repository());
    }
    if let Some((response, body)) = &answer.response {
        holds(response, body, &answer.content, target.starts_with("HEAD "));
    }
}

/// What any answer must be, whatever was asked.
fn holds(response: &Response<()>, body: &Bytes, content: &Bytes, is_head: bool) {
    let number = |name: HeaderName| {
        let value = response.headers().get(name)?;
        value.to_str().ok()?.parse::<usize>().ok()
    };
    let status = response.status();
    assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
    if !is_head && status != StatusCode::NOT_MODIFIED {
        // Of other bodies hyper knows the length, and says it.
        assert_eq!(number(header::CONTENT_LENGTH).unwrap_or(body.len()), body.len());
    }
    let range = response.headers().get(header::CONTENT_RANGE);
    let range = range.map(|range| range.to_str().expect("a range is text"));
    if status == StatusCode::PARTIAL_CONTENT {
        let (range, size) = range
            .and_then(|range| range.split_once('/'))
            .expect("a range has a size");
        let ends = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
        let (first, last) = ends.expect("a range has two ends");
        let [first, last, size]: [usize; 3] = [first, last, size].map(|n| n.parse().expect("it is a number"));
        assert_eq!((size, body), (content.len(), &content.slice(first..=last)));
    } else if status == StatusCode::RANGE_NOT_SATISFIABLE {
        assert_eq!(range, Some(format!("bytes */{}", content.len()).as_str()));
        assert!(body.is_empty());
    } else {
        assert_eq!(range, None);
    }
    let is_ours = response.headers().contains_key("docker-distribution-api-version");
    let is_error = status.is_client_error() || status.is_server_error();
    if is_ours && is_error && !is_head && status != StatusCode::RANGE_NOT_SATISFIABLE {
        let error: serde_json::Value = serde_json::from_slice(body).expect("an error is JSON");
        assert!(error["errors"][0]["code"].is_string(), "{error}");
    }
}

/// What the node behind the mirror was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Tag(Repository, String),
    Content(Repository, Digest),
    Document(Repository),
}

impl Asked {
    const fn repository(&self) -> &Repository {
        match self {
            Self::Tag(repository, _) | Self::Content(repository, _) | Self::Document(repository) => repository,
        }
    }
}

/// What came of a request.
pub(crate) struct Answer {
    pub(crate) asked: Option<Asked>,
    /// Absent if HTTP itself has no such request.
    response: Option<(Response<()>, Bytes)>,
    /// What was opened.
    content: Bytes,
}

/// Sends the mirror a request.
pub(crate) fn ask(target: &str, lines: &[&str]) -> Answer {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime can be made");
        static NODE: (Arc<Node>, Router) = {
            let node = Arc::new(Node::default());
            let router = mirror::router(&Config::default(), Arc::clone(&node), Arc::new(Deaf));
            (node, router.expect("the defaults make a mirror"))
        };
    }
    NODE.with(|(node, router)| {
        let (mut request, mut said) = (Request::builder(), Said::default());
        let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
        request = request.method(method).uri(target);
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            match name.strip_prefix('<') {
                Some("link") => said.link = Some(value.to_owned()),
                Some("type") => said.media_type = Some(value.to_owned()),
                Some("body") => said.body = Some(Bytes::copy_from_slice(value.as_bytes())),
                Some(_) | None => request = request.header(name, value),
            }
        }
        *node.said.lock().expect("no test panics under it") = said;
        node.asked.lock().expect("no test panics under it").take();
        let response = request.body(Body::empty()).ok().map(|request| {
            RUNTIME.with(|runtime| {
                runtime.block_on(async {
                    let Ok(response) = router.clone().oneshot(request).await;
                    let (parts, body) = response.into_parts();
                    let body = to_bytes(body, 1 << 20).await.expect("the content is all there");
                    (Response::from_parts(parts, ()), body)
                })
            })
        });
        let asked = node.asked.lock().expect("no test panics under it").take();
        let content = std::mem::take(&mut *node.opened.lock().expect("no test panics under it"));
        Answer {
            asked,
            response,
            content,
        }
    })
}

/// A node that has every blob, with the same content.
#[derive(Default)]
struct Node {
    asked: Mutex<Option<Asked>>,
    said: Mutex<Said>,
    opened: Mutex<Bytes>,
}

/// What the registry said.
#[derive(Debug, Clone, Default)]
struct Said {
    link: Option<String>,
    media_type: Option<String>,
    body: Option<Bytes>,
}

impl Node {
    fn note(&self, asked: Asked) -> Said {
        *self.asked.lock().expect("no test panics under it") = Some(asked);
        self.said.lock().expect("no test panics under it").clone()
    }
}

impl Content for Node {
    async fn ping(&self, registry: &str, _: Option<&Authorization>) -> Result<(), Failure> {
        std::future::ready(()).await;
        assert!(mirror::parse_host(registry).is_ok());
        Ok(())
    }

    async fn resolve(
        &self,
        repository: &Repository,
        tag: &str,
        _: Option<&Authorization>,
    ) -> Result<Resolved, Failure> {
        std::future::ready(()).await;
        let said = self.note(Asked::Tag(repository.clone(), tag.to_owned()));
        let media_type = said.media_type.unwrap_or_default();
        let blob = Blob {
            digest: Digest::of(CONTENT),
            size: CONTENT.len() as u64,
        };
        Ok(Resolved { blob, media_type })
    }

    async fn open(
        &self,
        source: &Source,
        digest: &Digest,
        _: Option<&Authorization>,
        _: u64,
    ) -> Result<Opened, Failure> {
        std::future::ready(()).await;
        let said = self.note(Asked::Content(source.repository.clone(), *digest));
        // A manifest of which nobody knows the type is looked into.
        let bytes = match (source.kind, said.body) {
            (Kind::Manifest, Some(body)) => body,
            (Kind::Manifest | Kind::Blob, _) => Bytes::from_static(CONTENT),
        };
        *self.opened.lock().expect("no test panics under it") = bytes.clone();
        let media_type = said.media_type;
        let blob = Blob {
            digest: *digest,
            size: bytes.len() as u64,
        };
        Ok(Opened {
            blob,
            media_type,
            content: Arc::new(Whole(bytes)),
        })
    }

    async fn document(&self, upstream: Upstream, _: Option<&Authorization>) -> Result<Document, Failure> {
        std::future::ready(()).await;
        let said = self.note(Asked::Document(upstream.repository));
        let (Query::Tags { .. } | Query::Referrers { .. }) = upstream.query else {
            panic!("{:?} is no document", upstream.query)
        };
        Ok(Document {
            body: said.body.unwrap_or_default(),
            media_type: said.media_type.unwrap_or_default(),
            filters: said.link.clone(),
            link: said.link,
        })
    }
}

struct Whole(Bytes);

impl BlobContent for Whole {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Cut>> {
        let part = self.0.slice(range.start as usize..range.end as usize);
        stream::iter([Ok(part)]).boxed()
    }
}

struct Deaf;

impl Meter for Deaf {
    fn request(&self, _: RequestKind, _: u16) {}
    fn bytes(&self, _: u64) {}
}
