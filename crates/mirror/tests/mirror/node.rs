//! A node whose contents arrive, stall, end or fail as a test wants, and the mirror before it.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use mirror::{BlobContent, Config, Content, Cut, Document, Limits, Meter, Opened, Probed, RequestKind, Resolved};
use piece::{Blob, Digest};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use wire::Authorization;
use wire::control::{Failure, Repository, Source, Upstream};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) fn failure(status: u16) -> Failure {
    Failure {
        status,
        message: format!("the registry said {status}"),
        retry_after: None,
        challenge: None,
    }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("this must happen soon")
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Bytes of which the first `arrived` are here.
pub(crate) struct Arriving {
    bytes: Bytes,
    arrived: watch::Sender<u64>,
    /// What happens when all that has arrived was read.
    then: Mutex<Then>,
    /// Bytes given out in a slice.
    slice: usize,
    pub(crate) given: AtomicU64,
    pub(crate) readers: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Wait,
    Fail,
    End,
    Overrun,
}

impl Arriving {
    pub(crate) fn arrive(&self, bytes: u64) {
        self.arrived.send_replace(bytes);
    }

    pub(crate) fn then(&self, then: Then) {
        *self.then.lock().unwrap() = then;
        self.arrived.send_modify(|_| ());
    }

    async fn next(&self, position: u64, end: u64) -> Option<Result<Bytes, Cut>> {
        let mut arrived = self.arrived.subscribe();
        loop {
            let here = (*arrived.borrow_and_update()).min(end);
            if position < here {
                let stop = here.min(position + self.slice as u64);
                self.given.fetch_add(stop - position, Ordering::Relaxed);
                return Some(Ok(self.bytes.slice(position as usize..stop as usize)));
            }
            let then = *self.then.lock().unwrap();
            match then {
                Then::Fail => return Some(Err(Cut("the registry went away".to_owned()))),
                Then::End => return None,
                Then::Overrun => return Some(Ok(Bytes::from(vec![0; (end - position) as usize + 1]))),
                Then::Wait if position == end => return None,
                Then::Wait => arrived.changed().await.unwrap(),
            }
        }
    }
}

struct Reader(Arc<Arriving>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BlobContent for Arriving {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Cut>> {
        self.readers.fetch_add(1, Ordering::Relaxed);
        stream::unfold((Reader(self), range.start), move |(reader, position)| async move {
            let part = reader.0.next(position, range.end).await?;
            let length = part.as_ref().map_or(0, |part| part.len() as u64);
            Some((part, (reader, position + length)))
        })
        .boxed()
    }
}

/// A content's media type and bytes.
type Held = (Option<String>, Arc<Arriving>);

/// Everything that a test can prepare and look at.
#[derive(Default)]
pub(crate) struct Node {
    contents: Mutex<HashMap<Digest, Held>>,
    pub(crate) tags: Mutex<HashMap<String, Resolved>>,
    pub(crate) document: Mutex<Option<Document>>,
    /// Fails everything.
    pub(crate) failure: Mutex<Option<Failure>>,
    /// Whether nothing is ever answered, and who is told that it was asked.
    pub(crate) is_stuck: Mutex<bool>,
    pub(crate) entered: Notify,
    pub(crate) asked: Mutex<Vec<String>>,
    /// HEADs are answered without opening anything.
    pub(crate) has_probe: Mutex<bool>,
    pub(crate) metered: Mutex<Vec<(RequestKind, u16)>>,
    /// What clients have shown, request by request.
    pub(crate) shown: Mutex<Vec<Option<String>>>,
    pub(crate) metered_bytes: AtomicU64,
}

impl Node {
    /// Bytes that are all here.
    pub(crate) fn add(&self, bytes: impl Into<Bytes>, media_type: Option<&str>) -> (Digest, Arc<Arriving>) {
        let bytes = bytes.into();
        let arrived = bytes.len() as u64;
        self.add_arriving(bytes, media_type, arrived)
    }

    /// Bytes of which some are here.
    pub(crate) fn add_arriving(&self, bytes: Bytes, media_type: Option<&str>, here: u64) -> (Digest, Arc<Arriving>) {
        let digest = Digest::of(&bytes);
        let content = Arc::new(Arriving {
            bytes,
            arrived: watch::Sender::new(here),
            then: Mutex::new(Then::Wait),
            slice: 1 << 20,
            given: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
        });
        self.contents
            .lock()
            .unwrap()
            .insert(digest, (media_type.map(str::to_owned), Arc::clone(&content)));
        (digest, content)
    }

    pub(crate) fn tag(&self, tag: &str, manifest: &'static str) -> Digest {
        let (digest, _) = self.add(manifest, Some(MANIFEST_TYPE));
        let blob = Blob {
            digest,
            size: manifest.len() as u64,
        };
        let resolved = Resolved {
            blob,
            media_type: MANIFEST_TYPE.to_owned(),
        };
        self.tags.lock().unwrap().insert(tag.to_owned(), resolved);
        digest
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    async fn enter(&self, call: String) -> Result<(), Failure> {
        self.asked.lock().unwrap().push(call);
        self.entered.notify_one();
        if *self.is_stuck.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl Node {
    fn show(&self, client: Option<&Authorization>) {
        let text = client.map(|client| client.expose().to_owned());
        self.shown.lock().unwrap().push(text);
    }
}

fn name(repository: &Repository) -> String {
    format!("{} {}", repository.registry, repository.name)
}

impl Content for Node {
    async fn ping(&self, registry: &str, client: Option<&Authorization>) -> Result<(), Failure> {
        self.show(client);
        self.enter(format!("ping {registry}")).await
    }

    async fn resolve(
        &self,
        repository: &Repository,
        tag: &str,
        client: Option<&Authorization>,
    ) -> Result<Resolved, Failure> {
        self.show(client);
        self.enter(format!("resolve {} {tag}", name(repository))).await?;
        self.tags.lock().unwrap().get(tag).cloned().ok_or_else(|| failure(404))
    }

    async fn open(
        &self,
        source: &Source,
        digest: &Digest,
        client: Option<&Authorization>,
        from: u64,
    ) -> Result<Opened, Failure> {
        self.show(client);
        let from = if from > 0 {
            format!(" from {from}")
        } else {
            String::new()
        };
        self.enter(format!("open {} {:?}{from}", name(&source.repository), source.kind))
            .await?;
        let (media_type, content) = self
            .contents
            .lock()
            .unwrap()
            .get(digest)
            .cloned()
            .ok_or_else(|| failure(404))?;
        let blob = Blob {
            digest: *digest,
            size: content.bytes.len() as u64,
        };
        Ok(Opened {
            blob,
            media_type,
            content,
        })
    }

    async fn probe(&self, source: &Source, digest: &Digest, client: Option<&Authorization>) -> Result<Probed, Failure> {
        if *self.has_probe.lock().unwrap() {
            let blob = Blob {
                digest: *digest,
                size: 12345,
            };
            return Ok(Probed {
                blob,
                media_type: Some(MANIFEST_TYPE.to_owned()),
            });
        }
        let opened = self.open(source, digest, client, 0).await?;
        Ok(Probed {
            blob: opened.blob,
            media_type: opened.media_type,
        })
    }

    async fn document(&self, upstream: Upstream, client: Option<&Authorization>) -> Result<Document, Failure> {
        self.show(client);
        self.enter(format!("document {} {:?}", name(&upstream.repository), upstream.query))
            .await?;
        self.document.lock().unwrap().clone().ok_or_else(|| failure(404))
    }
}

pub(crate) struct NodeMeter(pub(crate) Arc<Node>);

impl Meter for NodeMeter {
    fn request(&self, kind: RequestKind, status: u16) {
        self.0.metered.lock().unwrap().push((kind, status));
    }

    fn bytes(&self, bytes: u64) {
        self.0.metered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A mirror and its node. Ends with the test.
pub(crate) struct Mirror {
    pub(crate) node: Arc<Node>,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) client: reqwest::Client,
    _serving: tokio::task::JoinSet<()>,
}

impl Mirror {
    /// One whose default registry is `registry.example.com`.
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut config = Config {
            default_registry: Some("registry.example.com".to_owned()),
            ..Config::default()
        };
        change(&mut config);
        let node = Arc::new(Node::default());
        let router = mirror::router(&config, Arc::clone(&node), Arc::new(NodeMeter(Arc::clone(&node)))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(mirror::serve(
            listener,
            router,
            Limits::default(),
            std::future::pending(),
        ));
        Self {
            node,
            address,
            client: reqwest::Client::new(),
            _serving: serving,
        }
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn head(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.head(format!("http://{}{path}", self.address))
    }
}

pub(crate) fn header<'r>(response: &'r reqwest::Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The code of an OCI error, whose form is checked.
pub(crate) async fn code(response: reqwest::Response) -> String {
    assert_eq!(header(&response, "content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let error = &body["errors"][0];
    assert!(!error["message"].as_str().unwrap().is_empty());
    error["code"].as_str().unwrap().to_owned()
}
