//! What a node is told at start: the configuration of each of its parts, and its own few options.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use identity::{ExpelledFile, ExpelledFileError};
use tokio::net::TcpListener;
use wire::control::{Locality, Role};

use crate::access::LocalAccess;
use crate::pacing::Rates;

/// A node's configuration: the product of its parts'.
#[derive(Debug, Clone)]
pub struct Config {
    /// [`Role::Peer`], or [`Role::Seed`], which others prefer as reader of the registry.
    pub role: Role,
    /// Where others reach the data plane. An unspecified IP means: at the address they see.
    pub advertise: SocketAddr,
    /// Where the node stands.
    pub locality: Locality,
    /// The store.
    pub store: store::Config,
    /// The data plane.
    pub transport: transport::Config,
    /// The control plane.
    pub control: control::Config,
    /// Upstream registries.
    pub registry: registry::Config,
    /// The mirror; served where a listener for it is handed in.
    pub mirror: mirror::Config,
    /// The node's decisions.
    pub node: swarm::node::Config,
    /// HTTP servers of mirror and admin.
    pub http: httpd::Limits,
    /// Who may have private contents that this node holds. Default: clients whose credentials the registry accepts.
    pub local_access: LocalAccess,
    /// How long a verdict on who may read what counts. Default 5 min: so long a registry's change of mind goes unnoticed.
    pub access_ttl: Duration,
    /// How much longer such a verdict counts while the registry cannot be asked. Default 0: whoever must be asked about is
    /// refused then.
    pub access_grace: Duration,
    /// How long a tag's answer counts. Default 10 s: so long a moved tag goes unnoticed.
    pub tag_ttl: Duration,
    /// Bytes of pieces in memory. Default 96 MiB; less slows fast links down.
    pub buffers: u64,
    /// Rate limits. Default: none.
    pub rates: Rates,
    /// Where to remember whom the operator has expelled. Default none: a restarted node learns it when a scheduler answers.
    pub expelled: Option<ExpelledFile>,
    /// Threads that prove pieces. Default: one per core, at most 8; two cores prove 5.8 GB/s.
    pub provers: usize,
}

impl Config {
    /// A peer with a store and a control plane, and defaults besides. It is reached at the address where its control plane
    /// listens.
    pub fn new(store: store::Config, control: control::Config) -> Self {
        Self {
            role: Role::Peer,
            advertise: control.listen,
            locality: Locality::default(),
            store,
            transport: transport::Config::default(),
            control,
            registry: registry::Config::default(),
            mirror: mirror::Config::default(),
            node: swarm::node::Config::default(),
            http: httpd::Limits::default(),
            local_access: LocalAccess::default(),
            access_ttl: Duration::from_secs(300),
            access_grace: Duration::ZERO,
            tag_ttl: Duration::from_secs(10),
            buffers: 96 << 20,
            rates: Rates::default(),
            expelled: None,
            provers: 2,
        }
    }
}

/// The sockets that a node serves on, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// Data plane.
    pub data: UdpSocket,
    /// Mirror, on nodes that serve clients.
    pub mirror: Option<TcpListener>,
    /// Admin HTTP.
    pub admin: TcpListener,
}

/// Where a running node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Control plane, TCP.
    pub control: SocketAddr,
    /// Data plane, UDP.
    pub data: SocketAddr,
    /// Mirror.
    pub mirror: Option<SocketAddr>,
    /// Admin HTTP.
    pub admin: SocketAddr,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The data plane.
    #[error(transparent)]
    Transport(#[from] transport::TransportError),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// The registry client.
    #[error(transparent)]
    Registry(#[from] registry::ConfigError),
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] mirror::ConfigError),
    /// Who was expelled cannot be known.
    #[error(transparent)]
    Expelled(#[from] ExpelledFileError),
    /// A metric exists twice.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A thread or a socket could not be had.
    #[error("the system refuses what the node needs: {0}")]
    System(#[from] std::io::Error),
}
