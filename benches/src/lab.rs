//! Nodes on loopback in this process, each with a runtime of its own, as separate processes have it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{ClusterKeys, NodeKey};
use peer::{Listeners, Peer, Rates};
use piece::Digest;
use scheduler::Scheduler;
use tempfile::TempDir;
use testbed::{Artifact, Content, File, Registry};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use wire::control::Role;

use crate::Outcome;

/// Any free port of this machine.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// What everything is published as.
const REPOSITORY: &str = "bench/model";
/// How long a node may take to be known to the scheduler.
const READY: Duration = Duration::from_secs(20);
/// How long a blob may take to be whole, and how often one looks.
const WHOLE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(2);

/// A registry, and a scheduler if one is wanted.
#[derive(Debug)]
pub struct Lab {
    registry: Served<Registry>,
    scheduler: Option<Served<Scheduler>>,
    keys: Arc<ClusterKeys>,
    dir: TempDir,
}

/// A seed or peer.
#[derive(Debug)]
pub struct Node {
    peer: Served<Peer>,
    data_dir: PathBuf,
}

/// Something and the runtime that it runs on.
#[derive(Debug)]
struct Served<T> {
    it: T,
    runtime: Runtime,
}

impl Lab {
    /// Starts a registry that nothing limits. Stores are made under `dir`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(dir: &Path) -> Outcome<Self> {
        Self::start_with(dir, testbed::Options::default())
    }

    /// [`Lab::start`] with a registry of this kind.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(dir: &Path, options: testbed::Options) -> Outcome<Self> {
        let runtime = runtime()?;
        let registry = runtime.block_on(async {
            let listener = TcpListener::bind(LOOPBACK).await?;
            Registry::start(listener, options)
        })?;
        Ok(Self {
            registry: Served { it: registry, runtime },
            scheduler: None,
            keys: Arc::new(ClusterKeys::parse(&ClusterKeys::generate())?),
            dir: tempfile::tempdir_in(dir)?,
        })
    }

    /// Adds a scheduler, with which the nodes to come register.
    ///
    /// # Errors
    /// If it does not start.
    pub fn with_scheduler(mut self) -> Outcome<Self> {
        let (runtime, keys) = (runtime()?, Arc::clone(&self.keys));
        let scheduler = runtime.block_on(async {
            let config = scheduler::Config::new(control::Config::new(LOOPBACK));
            let admin = TcpListener::bind(LOOPBACK).await?;
            let listeners = scheduler::Listeners { admin };
            let started = Scheduler::start(config, listeners, Arc::new(NodeKey::generate()), keys).await;
            Outcome::Ok(started?)
        })?;
        self.scheduler = Some(Served { it: scheduler, runtime });
        Ok(self)
    }

    /// Puts an artifact into the registry.
    pub fn publish(&self, tag: &str, artifact: &Artifact) {
        self.registry.it.publish(REPOSITORY, tag, artifact);
    }

    /// Where a mirror has a blob.
    pub fn blob(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.repository())
    }

    /// Where a mirror has a manifest.
    pub fn manifest(&self, digest: &Digest) -> String {
        format!("{}/manifests/{digest}", self.repository())
    }

    /// How `packswarm pull` calls an artifact.
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/{REPOSITORY}:{tag}", self.registry.it.address())
    }

    fn repository(&self) -> String {
        let registry = self.registry.it.address();
        format!("/v2/{}__{}/{REPOSITORY}", registry.ip(), registry.port())
    }

    /// Starts a node with an empty store, and waits until the scheduler knows it, if there is one.
    ///
    /// # Errors
    /// If it does not start.
    pub fn node(&self, role: Role, transport: &transport::Config) -> Outcome<Node> {
        self.node_within(role, transport, Rates::default())
    }

    /// [`Lab::node`] that keeps to these rates.
    ///
    /// # Errors
    /// As there.
    pub fn node_within(&self, role: Role, transport: &transport::Config, rates: Rates) -> Outcome<Node> {
        let (key, runtime) = (NodeKey::generate(), runtime()?);
        let data_dir = self.dir.path().join(key.node_id().to_string());
        let scheduler = self
            .scheduler
            .as_ref()
            .map(|scheduler| scheduler.it.addresses().control);
        let config = peer::Config {
            rates,
            ..config(role, &data_dir, scheduler, transport)
        };
        let keys = Arc::clone(&self.keys);
        let has_scheduler = scheduler.is_some();
        let peer = runtime.block_on(async {
            let listeners = Listeners {
                data: UdpSocket::bind(LOOPBACK)?,
                mirror: Some(TcpListener::bind(LOOPBACK).await?),
                admin: TcpListener::bind(LOOPBACK).await?,
            };
            let peer = Peer::start(config, listeners, Arc::new(key), keys).await?;
            if has_scheduler {
                tokio::time::timeout(READY, peer.handle().registered()).await?;
            }
            Outcome::Ok(peer)
        })?;
        Ok(Node {
            peer: Served { it: peer, runtime },
            data_dir,
        })
    }
}

impl Node {
    /// Where its mirror listens.
    pub fn mirror(&self) -> SocketAddr {
        let mirror = self.peer.it.addresses().mirror;
        mirror.expect("every node of the lab has a mirror")
    }

    /// The file of a blob that it holds whole (`docs/store.md`).
    pub fn file_of(&self, digest: &Digest) -> PathBuf {
        self.data_dir.join("blobs").join(digest.hex())
    }

    /// Whether it holds a blob whole.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.file_of(digest).exists()
    }

    /// Waits until it holds a blob whole, looking often enough for its end not to be late.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn wait_for(&self, digest: &Digest) -> Outcome<()> {
        let begun = Instant::now();
        while !self.holds(digest) {
            if begun.elapsed() > WHOLE {
                return Err(format!("{digest} did not become whole within {} s", WHOLE.as_secs()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// How many pieces of a blob are here and proven.
    pub fn pieces_of(&self, digest: &Digest) -> u32 {
        let (status, digest) = (self.peer.it.handle().status(), digest.to_string());
        let blob = status.blobs.into_iter().find(|blob| blob.digest == digest);
        blob.map_or(0, |blob| blob.held)
    }

    /// Bytes that came from where.
    pub fn received(&self) -> peer::Received {
        self.peer.it.handle().status().received
    }

    /// Stops it, and takes its store away.
    pub fn stop(self) {
        let Served { it, runtime } = self.peer;
        runtime.block_on(it.stop());
        drop(std::fs::remove_dir_all(&self.data_dir));
    }
}

fn config(role: Role, data_dir: &Path, scheduler: Option<SocketAddr>, transport: &transport::Config) -> peer::Config {
    let config = peer::Config {
        transport: transport.clone(),
        registry: registry::Config {
            user_agent: format!("packswarm/bench ({}; 0)", role.name()),
            ..registry::Config::default()
        },
        ..peer::Config::new(
            store::Config::at(data_dir),
            control::Config {
                schedulers: scheduler.iter().map(SocketAddr::to_string).collect(),
                ..control::Config::new(LOOPBACK)
            },
        )
    };
    match role {
        Role::Seed => seed::config(config),
        Role::Peer | Role::Scheduler => config,
    }
}

/// An artifact of files with random bytes: as many as there are sizes, and others for every seed.
pub fn random_files(seed: u64, sizes: &[u64]) -> Artifact {
    let file = |(number, size): (usize, &u64)| File {
        path: format!("file-{number}"),
        media_type: "application/vnd.cncf.model.weight.v1.raw".to_owned(),
        mode: 0o644,
        mtime: 0,
        content: Content::generated(Vec::new(), *size, seed, number as u64),
    };
    Artifact::from_files("bench", sizes.iter().enumerate().map(file).collect())
}

/// One worker, as a role has on two cores.
///
/// # Errors
/// If the system has no thread left.
pub fn runtime() -> Outcome<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}
