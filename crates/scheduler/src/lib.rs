//! The role that knows who has what and who reads the registry.
//!
//! [`swarm::scheduler::Scheduler`] decides; here its decisions meet the control plane and the clock. One task owns the
//! machine: it takes an event, hands it over, and carries out what comes back. Nothing is stored but whom the operator has
//! expelled: all else that a scheduler knows it learns from the nodes, and after a restart again.

mod api;
mod config;
mod driver;
mod pushes;
mod view;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use control::Control;
use identity::{ClusterKeys, ExpelledFile, NodeKey};
use piece::NodeId;
use swarm::scheduler::Scheduler as Machine;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Addresses, Config, Listeners, StartError};
pub use view::{Banned, BannedNode, NodeStatus, Nodes, Reader, Status, SwarmStatus, Swarms};

use driver::Driver;

/// Questions of operators that may wait for the driver; more wait in their connections.
const QUESTIONS: usize = 64;

/// A scheduler that runs. Dropping it stops it without draining.
#[derive(Debug)]
pub struct Scheduler {
    node: NodeId,
    addresses: Addresses,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    control: Control,
}

impl Scheduler {
    /// Starts a scheduler. It runs until [`Scheduler::stop`].
    ///
    /// # Errors
    /// If the control plane cannot listen, or a socket handed in is not what it should be.
    pub async fn start(
        config: Config,
        listeners: Listeners,
        key: Arc<NodeKey>,
        cluster: Arc<ClusterKeys>,
    ) -> Result<Self, StartError> {
        let node = key.node_id();
        let registry = prometheus::Registry::new();
        let metrics = admin::Metrics::new(&registry)?;
        let admin_addr = listeners.admin.local_addr()?;
        let (control, events) = Control::start(config.control, key, cluster).await?;
        let addresses = Addresses {
            control: control.local_addr(),
            admin: admin_addr,
        };
        let remembered = config.expelled.as_ref().map(ExpelledFile::load).transpose()?.flatten();
        let mut machine = Machine::new(config.rules, seconds_since_1970(), rand::random());
        if let Some(nodes) = remembered {
            machine.remember_expelled(nodes);
        }
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let driver = Driver::new(machine, node, control.clone(), metrics, config.expelled);
        tasks.spawn(driver.run(events, asked, stop.clone()));
        let admin = api::admin(questions, registry);
        tasks.spawn(admin.serve(listeners.admin, config.http, stop.clone().cancelled_owned()));
        tracing::info!(control = %addresses.control, admin = %addresses.admin, "the scheduler runs");
        Ok(Self {
            node,
            addresses,
            stop,
            tasks,
            control,
        })
    }

    /// Who it is.
    pub const fn node_id(&self) -> NodeId {
        self.node
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Drains and stops: operators' requests under way are answered, nodes are left to find each other.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.control.close().await;
    }
}

/// The time that makes this scheduler's epochs higher than its predecessor's.
fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
