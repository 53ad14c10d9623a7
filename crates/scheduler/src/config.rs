//! What a scheduler is told at start: the configuration of each of its parts.

use std::net::SocketAddr;

use identity::{ExpelledFile, ExpelledFileError};
use tokio::net::TcpListener;

/// Connections beyond those of the nodes it may know: commands, and nodes that look around.
const SPARE_CONNECTIONS: u32 = 1024;
/// Requests of nodes that may wait at the same time: all nodes of a large cluster for one tag.
const REQUESTS: usize = 32_768;

/// A scheduler's configuration: the product of its parts'.
#[derive(Debug, Clone)]
pub struct Config {
    /// The control plane. Every node keeps a connection to its scheduler.
    pub control: control::Config,
    /// The scheduler's decisions and limits.
    pub rules: swarm::scheduler::Config,
    /// Where to remember who is expelled. Default none: a restart forgets it.
    pub expelled: Option<ExpelledFile>,
    /// The HTTP server of admin.
    pub http: admin::Limits,
}

impl Config {
    /// The defaults, with a control plane that takes as many connections and requests as the scheduler takes nodes. At about
    /// 100 KiB a connection, 10,000 nodes cost it 1 GiB.
    pub fn new(control: control::Config) -> Self {
        let rules = swarm::scheduler::Config::default();
        let nodes = u32::try_from(rules.limits.nodes).unwrap_or(u32::MAX);
        let connections = nodes.saturating_add(SPARE_CONNECTIONS);
        Self {
            control: control::Config {
                max_connections: control.max_connections.max(connections),
                max_requests_in_flight: control.max_requests_in_flight.max(REQUESTS),
                ..control
            },
            rules,
            expelled: None,
            http: admin::Limits::default(),
        }
    }
}

/// The sockets that a scheduler serves on, bound by the caller. The control plane binds its own.
#[derive(Debug)]
pub struct Listeners {
    /// Admin HTTP.
    pub admin: TcpListener,
}

/// Where a running scheduler listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Control plane, TCP.
    pub control: SocketAddr,
    /// Admin HTTP.
    pub admin: SocketAddr,
}

/// Why a scheduler does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control plane.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// Who was expelled cannot be known.
    #[error(transparent)]
    Expelled(#[from] ExpelledFileError),
    /// A metric exists twice.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A socket is not what it should be.
    #[error("the system refuses what the scheduler needs: {0}")]
    System(#[from] std::io::Error),
}
