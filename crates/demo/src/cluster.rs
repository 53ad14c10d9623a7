//! The demo's cluster: production roles, each with its own key, store and sockets.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterKeys, NodeKey};
use peer::{Listeners, Peer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use wire::control::Role;

use crate::DemoError;
use crate::report::NodeReport;

/// Any free port of this machine that no other can reach.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SEEDS: usize = 2;
/// How long the nodes may take to register.
const READY: Duration = Duration::from_secs(20);

/// Everything that runs.
pub(crate) struct Cluster {
    scheduler: scheduler::Scheduler,
    seeds: Vec<Peer>,
    peers: Vec<Peer>,
    /// Deleted with the cluster.
    _dir: TempDir,
}

impl Cluster {
    /// Starts a scheduler, two seeds and `peers` peers, and waits until they know each other.
    pub(crate) async fn start(peers: usize) -> Result<Self, DemoError> {
        let dir = tempfile::Builder::new().prefix("packswarm-demo-").tempdir()?;
        let keys = ClusterKeys::parse(&ClusterKeys::generate()).map_err(|error| DemoError::Key(error.to_string()))?;
        let keys = Arc::new(keys);
        let scheduler = start_scheduler(Arc::clone(&keys)).await?;
        let at = scheduler.addresses().control;
        let mut cluster = Self {
            scheduler,
            seeds: Vec::new(),
            peers: Vec::new(),
            _dir: dir,
        };
        for number in 0..SEEDS + peers {
            let role = if number < SEEDS { Role::Seed } else { Role::Peer };
            let data_dir = cluster._dir.path().join(format!("node-{number}"));
            let node = start_node(role, data_dir, at, Arc::clone(&keys)).await?;
            match role {
                Role::Seed => cluster.seeds.push(node),
                Role::Peer | Role::Scheduler => cluster.peers.push(node),
            }
        }
        cluster.wait_until_registered().await?;
        Ok(cluster)
    }

    async fn wait_until_registered(&self) -> Result<(), DemoError> {
        let all = async {
            for node in self.seeds.iter().chain(&self.peers) {
                node.handle().registered().await;
            }
        };
        tokio::time::timeout(READY, all)
            .await
            .map_err(|_| DemoError::NotReady(READY))
    }

    /// Where the peers' clients pull.
    pub(crate) fn mirrors(&self) -> Vec<SocketAddr> {
        self.peers.iter().filter_map(|peer| peer.addresses().mirror).collect()
    }

    /// What every node did, with the time that each peer's client took.
    pub(crate) fn report(&self, took: &[Duration]) -> Vec<NodeReport> {
        let mut nodes = Vec::new();
        let seeds = self
            .seeds
            .iter()
            .enumerate()
            .map(|(number, seed)| (format!("seed {}", number + 1), seed, None));
        let peers = self.peers.iter().zip(took).enumerate();
        let peers = peers.map(|(number, (peer, took))| (format!("peer {}", number + 1), peer, Some(*took)));
        for (name, node, took) in seeds.chain(peers) {
            let status = node.handle().status();
            nodes.push(NodeReport {
                name,
                took,
                received: status.received,
                sent: status.sent,
            });
        }
        nodes
    }

    /// Stops everything, as SIGTERM would.
    pub(crate) async fn stop(self) {
        for node in self.peers.into_iter().chain(self.seeds) {
            node.stop().await;
        }
        self.scheduler.stop().await;
    }
}

async fn start_scheduler(keys: Arc<ClusterKeys>) -> Result<scheduler::Scheduler, DemoError> {
    let config = scheduler::Config::new(control::Config::new(LOOPBACK));
    let listeners = scheduler::Listeners {
        admin: TcpListener::bind(LOOPBACK).await?,
    };
    Ok(scheduler::Scheduler::start(config, listeners, Arc::new(NodeKey::generate()), keys).await?)
}

async fn start_node(
    role: Role,
    data_dir: std::path::PathBuf,
    scheduler: SocketAddr,
    keys: Arc<ClusterKeys>,
) -> Result<Peer, DemoError> {
    let key = NodeKey::generate();
    let user_agent = format!(
        "packswarm/{} ({}; {})",
        env!("CARGO_PKG_VERSION"),
        role.name(),
        identity::peer_id(key.node_id())
    );
    let config = peer::Config {
        registry: registry::Config {
            user_agent,
            ..registry::Config::default()
        },
        // Twenty nodes share this machine.
        provers: 1,
        ..peer::Config::new(
            store::Config::at(data_dir),
            control::Config {
                schedulers: vec![scheduler.to_string()],
                ..control::Config::new(LOOPBACK)
            },
        )
    };
    let config = match role {
        Role::Seed => seed::config(config),
        Role::Peer | Role::Scheduler => config,
    };
    let listeners = Listeners {
        data: UdpSocket::bind(LOOPBACK)?,
        mirror: match role {
            Role::Peer => Some(TcpListener::bind(LOOPBACK).await?),
            Role::Seed | Role::Scheduler => None,
        },
        admin: TcpListener::bind(LOOPBACK).await?,
    };
    Ok(Peer::start(config, listeners, Arc::new(key), keys).await?)
}
