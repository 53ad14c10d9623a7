//! The registry: what it holds, and its life.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use base64::Engine as _;
use bytes::Bytes;
use piece::Digest;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::artifact::{Artifact, MANIFEST_TYPE};
use crate::content::Content;
use crate::fault::{Fault, Faults, Seen};
use crate::log::{Entry, Log};
use crate::serve;
use crate::shape::{Rate, ShapedListener};

/// Answers on their way when the registry is stopped have this long to end.
const DRAIN: Duration = Duration::from_secs(1);

/// How a registry behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The most bytes per second to each connection. Default: unlimited.
    pub per_connection: Option<u64>,
    /// The most bytes per second to all connections together. Default: unlimited.
    pub total: Option<u64>,
    /// Time before every answer. Default: none.
    pub latency: Duration,
    /// Ignore `Range`, as some registries do. Default: serve ranges.
    pub without_ranges: bool,
}

/// A registry on a listener of the caller's. Dropping it stops it at once.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
}

/// What requests are answered from.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) repositories: RwLock<BTreeMap<String, Repository>>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) log: Log,
    pub(crate) requests: AtomicU64,
    /// True once the registry stops: stalled answers end.
    pub(crate) stopped: watch::Receiver<bool>,
}

/// One repository.
#[derive(Debug, Default)]
pub(crate) struct Repository {
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) manifests: HashMap<Digest, Manifest>,
    pub(crate) blobs: HashMap<Digest, Content>,
    /// The `Authorization` that it wants.
    pub(crate) authorization: Option<String>,
}

/// A manifest and its media type.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) content: Content,
    pub(crate) media_type: String,
}

impl Registry {
    /// Serves on `listener` until stopped or dropped.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn start(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let (per_connection, total) = (options.per_connection, options.total);
        let state = Arc::new(State {
            options,
            repositories: RwLock::default(),
            faults: Mutex::default(),
            log: Log::default(),
            requests: AtomicU64::new(0),
            stopped: stopped.clone(),
        });
        let router = Router::new().fallback(serve::answer).with_state(Arc::clone(&state));
        let listener = ShapedListener {
            listener,
            per_connection,
            total: total.map(|bytes| Arc::new(Rate::new(bytes))),
        };
        let task = tokio::spawn(async move {
            let until = async move {
                let mut stopped = stopped;
                // An error means that the registry was dropped: that stops it, too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            axum::serve(listener, router).with_graceful_shutdown(until).await
        });
        Ok(Self {
            address,
            state,
            stop,
            task,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts `artifact` under `tag` into a repository, which is made if need be. Returns the manifest's digest.
    pub fn publish(&self, repository: &str, tag: &str, artifact: &Artifact) -> Digest {
        let mut repositories = self.state.repositories.write().unwrap_or_else(PoisonError::into_inner);
        let repository = repositories.entry(repository.to_owned()).or_default();
        repository
            .blobs
            .extend(artifact.contents().map(|content| (content.digest(), content.clone())));
        repository.put_manifest(tag, MANIFEST_TYPE, artifact.manifest().clone())
    }

    /// Puts any manifest under `tag`, an index for instance.
    pub fn publish_manifest(&self, repository: &str, tag: &str, media_type: &str, body: impl Into<Bytes>) -> Digest {
        let mut repositories = self.state.repositories.write().unwrap_or_else(PoisonError::into_inner);
        repositories
            .entry(repository.to_owned())
            .or_default()
            .put_manifest(tag, media_type, body.into())
    }

    /// From now on `repository` wants Basic authentication as this user.
    pub fn require(&self, repository: &str, user: &str, password: &str) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut repositories = self.state.repositories.write().unwrap_or_else(PoisonError::into_inner);
        repositories.entry(repository.to_owned()).or_default().authorization = Some(format!("Basic {encoded}"));
    }

    /// From now on `script` decides what goes wrong with each request.
    pub fn inject(&self, script: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) {
        *self.faults() = Faults(Some(Arc::new(script)));
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        *self.faults() = Faults::default();
    }

    /// The access log: every request since the start or the last [`Registry::clear_log`], but at most 65,536.
    pub fn log(&self) -> Vec<Entry> {
        self.state.log.entries()
    }

    /// Body bytes sent of each blob and manifest.
    pub fn served(&self) -> BTreeMap<Digest, u64> {
        self.state.log.served()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        self.state.log.clear();
    }

    /// Stops, after answers on their way have ended or a second has passed.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(DRAIN, &mut self.task).await.is_err() {
            tracing::debug!("answers were cut by the registry's stop");
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.state.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.task.abort();
    }
}

impl Repository {
    fn put_manifest(&mut self, tag: &str, media_type: &str, body: Bytes) -> Digest {
        let content = Content::bytes(body);
        let digest = content.digest();
        self.manifests.insert(
            digest,
            Manifest {
                content,
                media_type: media_type.to_owned(),
            },
        );
        self.tags.insert(tag.to_owned(), digest);
        digest
    }
}
