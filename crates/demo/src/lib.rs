//! A whole cluster on loopback in one process: a small registry, a scheduler, two seeds and as many peers as asked for, the
//! production roles over real sockets. Every peer's client pulls the same model at once; then the same clients pull straight
//! from the registry, for comparison.

mod board;
mod cluster;
mod pull;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use futures::future::try_join_all;
use piece::Digest;
use testbed::{Artifact, Registry};
use tokio::net::TcpListener;

pub use report::{NodeReport, Report};

use board::Board;
use cluster::Cluster;
use pull::{Endpoint, pull};

/// The repository and tag that the demo's registry serves.
const REPOSITORY: &str = "demo/model";
const TAG: &str = "v1";

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many peers pull.
    pub peers: usize,
    /// Bytes of the generated model.
    pub size: u64,
    /// A directory to serve instead of a generated model.
    pub model: Option<PathBuf>,
    /// Bytes per second that the registry serves in all: its uplink is what a cluster's pull waits for.
    pub registry_rate: u64,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The model's directory.
    #[error(transparent)]
    Model(#[from] testbed::ArtifactError),
    /// Sockets, threads or temporary directories.
    #[error("the demo needs sockets on 127.0.0.1 and a temporary directory: {0}")]
    System(#[from] std::io::Error),
    /// A node.
    #[error("a node of the demo did not start: {0}")]
    Node(#[from] peer::StartError),
    /// The scheduler.
    #[error("the demo's scheduler did not start: {0}")]
    Scheduler(#[from] scheduler::StartError),
    /// Keys.
    #[error("the demo's cluster key: {0}")]
    Key(String),
    /// The HTTP client.
    #[error("the demo's HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// A pull failed.
    #[error("pulling {url} failed: {reason}")]
    Pull {
        /// What.
        url: String,
        /// Why.
        reason: String,
    },
    /// The manifest is none.
    #[error("the manifest that came is none")]
    Manifest,
    /// The worst that could happen.
    #[error("a client got bytes with digest {got} under the name {expected}")]
    WrongBytes {
        /// What was asked for.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// The nodes did not find each other.
    #[error("the nodes did not register with the scheduler within {} s", .0.as_secs())]
    NotReady(Duration),
}

/// Shows it.
///
/// # Errors
/// If the cluster does not start or a pull fails. A broken promise is not an error here: see [`Report::is_kept`].
pub async fn run(options: Options) -> Result<Report, DemoError> {
    let board = Board::new();
    let artifact = {
        let options = options.clone();
        let made = tokio::task::spawn_blocking(move || match &options.model {
            Some(path) => Artifact::from_dir(path),
            None => Ok(Artifact::generate(0x7061_636b, options.size)),
        });
        made.await.map_err(std::io::Error::other)??
    };
    let model_bytes: u64 = artifact.blobs().iter().map(|blob| blob.size).sum();
    let shape = testbed::Options {
        total: Some(options.registry_rate),
        ..testbed::Options::default()
    };
    let registry = Registry::start(TcpListener::bind("127.0.0.1:0").await?, shape)?;
    registry.publish(REPOSITORY, TAG, &artifact);
    board.say(&format!(
        "a registry at {} that serves {} in all, {:.0} MB/s",
        registry.address(),
        indicatif::HumanBytes(model_bytes),
        options.registry_rate as f64 / 1e6
    ));

    let cluster = Cluster::start(options.peers).await?;
    board.say(&format!(
        "a scheduler, 2 seeds and {} peers; every peer's client pulls now",
        options.peers
    ));
    let client = http_client()?;
    let swarmed = together(
        &board,
        &client,
        cluster.mirrors().iter().map(|mirror| mirrored(*mirror, &registry)),
        model_bytes,
    )
    .await?;
    let registry_bytes = registry.served().values().sum();
    let by_peers = |entry: &testbed::Entry| entry.user_agent.contains("(peer;");
    let peer_requests = registry.log().iter().filter(|entry| by_peers(entry)).count();
    let nodes = cluster.report(&swarmed);
    cluster.stop().await;

    board.say(&format!(
        "the same {} clients, each straight from the registry",
        options.peers
    ));
    registry.clear_log();
    let direct = Endpoint {
        repository: format!("http://{}/v2/{REPOSITORY}", registry.address()),
        tag: TAG,
    };
    let straight = together(&board, &client, (0..options.peers).map(|_| direct.clone()), model_bytes).await?;
    let straight_bytes = registry.served().values().sum();
    registry.stop().await;
    board.clear();
    Ok(Report {
        model_bytes,
        registry_bytes,
        peer_requests,
        nodes,
        straight,
        straight_bytes,
    })
}

/// The registry's repository as a mirror names it.
fn mirrored(mirror: std::net::SocketAddr, registry: &Registry) -> Endpoint {
    let address = registry.address();
    let repository = format!("http://{mirror}/v2/{}__{}/{REPOSITORY}", address.ip(), address.port());
    Endpoint { repository, tag: TAG }
}

/// Pulls from every endpoint at once, one bar each.
async fn together(
    board: &Board,
    client: &reqwest::Client,
    endpoints: impl Iterator<Item = Endpoint>,
    model_bytes: u64,
) -> Result<Vec<Duration>, DemoError> {
    let pulls = endpoints.enumerate().map(|(number, endpoint)| {
        let bar = board.node(&format!("peer {}", number + 1), model_bytes);
        async move {
            let took = pull(client, &endpoint, &|bytes| bar.inc(bytes)).await?;
            bar.finish_with_message(format!("{:.2} s", took.as_secs_f64()));
            Ok::<_, DemoError>(took)
        }
    });
    let took = try_join_all(pulls).await;
    board.clear();
    took
}

fn http_client() -> Result<reqwest::Client, DemoError> {
    // Loopback is plain HTTP; the TLS settings only keep reqwest from asking for a process-wide default.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()?)
}
