//! The control plane: the only driver of libp2p.
//!
//! [`Control::start`] listens and spawns one task that owns the libp2p swarm; the [`Control`]s it hands out speak to that
//! task over a bounded channel. Nodes ask each other [`wire::control::Request`]s over TCP, encrypted with the cluster key
//! (pnet) and then between the two node keys (noise). Connections to the configured schedulers are kept up. When no
//! scheduler answers, nodes find each other by Kademlia provider records.
//!
//! What others can make this node hold is bounded: connections, requests that wait for an answer, bytes being read,
//! records of others, events not yet taken (the task then stops reading from the network until they are).

mod address;
mod announce;
mod behaviour;
mod codec;
mod config;
mod driver;
mod error;
mod event;
mod explain;
mod hold;
mod links;
mod providers;
mod transport;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterKeys, NodeKey};
use libp2p::pnet::PreSharedKey;
use piece::{Digest, NodeId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use wire::control::{MAX_CONTROL, Request, Response};

pub use config::Config;
use driver::{Ask, Command, Driver, Target, Waiter};
pub use error::{AskError, ControlError};
use event::OVERLOADED;
pub use event::{Event, Reply};
pub use links::Schedulers;

/// Commands that may wait for the task; senders wait beyond.
const COMMANDS: usize = 1024;
/// Events that may wait for the node's runtime, besides the driver's own backlog.
const EVENTS: usize = 1024;
/// The most searches for providers at a time; more wait for their turn.
const MAX_FINDS: usize = 64;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum To {
    /// This node: over a connection that exists, or one to an address that other nodes told.
    Node(NodeId),
    /// Whoever listens at this `HOST:PORT`.
    Address(String),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => f.write_str(&explain::name(&identity::peer_id(*node))),
            Self::Address(address) => f.write_str(address),
        }
    }
}

/// A handle on a node's control plane. When the last one is dropped, it closes.
#[derive(Debug, Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    local_addr: SocketAddr,
    schedulers: watch::Receiver<Schedulers>,
    expelled: Arc<watch::Sender<BTreeSet<NodeId>>>,
    in_flight: Arc<Semaphore>,
    finds: Arc<Semaphore>,
    request_timeout: Duration,
    find_timeout: Duration,
}

impl Control {
    /// Listens, and begins to dial the schedulers. Events are to be taken from the receiver all the time: requests wait
    /// there, and when it is full the control plane stands still. Dropping it refuses all requests.
    ///
    /// # Errors
    /// If the configuration is wrong or the port cannot be listened on.
    pub async fn start(
        config: Config,
        key: Arc<NodeKey>,
        cluster: Arc<ClusterKeys>,
    ) -> Result<(Self, mpsc::Receiver<Event>), ControlError> {
        config.check()?;
        let cluster_keys = cluster.pnet_keys().map(PreSharedKey::new).collect();
        let (commands, commands_rx) = mpsc::channel(COMMANDS);
        let (events, events_rx) = mpsc::channel(EVENTS);
        let (alive, schedulers) = watch::channel(Schedulers::default());
        let (expel, expelled) = watch::channel(BTreeSet::new());
        let channels = driver::Channels {
            commands: commands_rx,
            events,
            schedulers: alive,
            expelled,
        };
        let mut driver = Driver::new(&config, &key.keypair(), cluster_keys, channels)?;
        let local_addr = driver.listen(config.listen).await?;
        tokio::spawn(driver.run());
        let control = Self {
            commands,
            local_addr,
            schedulers,
            expelled: Arc::new(expel),
            in_flight: Arc::new(Semaphore::new(config.max_requests_in_flight)),
            finds: Arc::new(Semaphore::new(MAX_FINDS)),
            request_timeout: config.request_timeout,
            find_timeout: config.find_timeout,
        };
        Ok((control, events_rx))
    }

    /// Where this node accepts connections; the port is the real one.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The schedulers that are alive, as they change.
    pub fn schedulers(&self) -> watch::Receiver<Schedulers> {
        self.schedulers.clone()
    }

    /// Whether this node is one of the schedulers: those may tell this node what to do.
    pub fn is_scheduler(&self, node: &NodeId) -> bool {
        self.schedulers.borrow().connected.contains(node)
    }

    /// Closes the connections to these nodes, and has none with them from now on; with all others it may have.
    pub fn expel(&self, nodes: BTreeSet<NodeId>) {
        self.expelled.send_replace(nodes);
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If there is no answer, or a refusal. A request whose connection broke or that timed out may have been served.
    pub async fn ask(&self, to: To, request: Request) -> Result<Response, AskError> {
        let name = to.to_string();
        let frame = wire::encode_frame(&request);
        if frame.len() - 4 > MAX_CONTROL {
            return Err(AskError::TooLarge {
                length: frame.len() - 4,
                limit: MAX_CONTROL,
            });
        }
        let deadline = tokio::time::Instant::now() + self.request_timeout;
        let turn = Arc::clone(&self.in_flight).acquire_owned();
        let Ok(turn) = tokio::time::timeout_at(deadline, turn).await else {
            return Err(AskError::Overloaded);
        };
        let turn = turn.expect("the semaphore is never closed");
        let asked = tokio::time::timeout_at(deadline, async {
            let to = target(to).await?;
            let (answer, answered) = oneshot::channel();
            let waiter = Waiter::new(name.clone(), answer, turn);
            self.command(Command::Ask(to, Ask { frame, waiter })).await?;
            answered.await.map_err(|_| AskError::Closed)?
        });
        match asked.await {
            Ok(answer) => understood(name, answer?),
            Err(_) => Err(AskError::Timeout {
                to: name,
                after: self.request_timeout,
            }),
        }
    }

    /// Tells other nodes that this one holds the blob, or a part of it: at leisure, and again before they forget it.
    pub async fn provide(&self, digest: &Digest) {
        self.tell(Command::Provide(*digest)).await;
    }

    /// Stops telling. Nodes that were told forget it within an hour.
    pub async fn unprovide(&self, digest: &Digest) {
        self.tell(Command::Unprovide(*digest)).await;
    }

    /// At most `limit` other nodes that say that they hold the blob, or a part of it, and that could be connected to.
    /// Ends as soon as it has so many, has asked every node that should know, or has looked for
    /// [`Config::find_timeout`].
    pub async fn providers(&self, digest: &Digest, limit: usize) -> Vec<NodeId> {
        let look = async {
            let _turn = self.finds.acquire().await.ok()?;
            let (answer, found) = oneshot::channel();
            self.tell(Command::Find {
                digest: *digest,
                limit,
                answer,
            })
            .await;
            found.await.ok()
        };
        // The driver ends the search in time; this bounds the wait for a turn.
        tokio::time::timeout(2 * self.find_timeout, look)
            .await
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Closes all connections and the listener; done when the port is free.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.tell(Command::Close(done)).await;
        // An error means that it was closed before.
        let _ = closed.await;
        self.commands.closed().await;
    }

    async fn command(&self, command: Command) -> Result<(), AskError> {
        self.commands.send(command).await.map_err(|_| AskError::Closed)
    }

    async fn tell(&self, command: Command) {
        if self.command(command).await.is_err() {
            tracing::debug!("the control plane is closed already");
        }
    }
}

async fn target(to: To) -> Result<Target, AskError> {
    match to {
        To::Node(node) => Ok(Target::Node(identity::peer_id(node))),
        To::Address(name) => match address::resolve(&name).await {
            Ok(addresses) => Ok(Target::Addresses(addresses)),
            Err(reason) => Err(AskError::Unreachable { to: name, reason }),
        },
    }
}

fn understood(to: String, answer: Result<Response, wire::DecodeError>) -> Result<Response, AskError> {
    match answer {
        Ok(Response::Refused { reason }) if reason == OVERLOADED => Err(AskError::Overloaded),
        Ok(Response::Refused { reason }) => Err(AskError::Refused(reason)),
        Ok(response) => Ok(response),
        Err(error) => Err(AskError::Unreadable {
            to,
            reason: error.to_string(),
        }),
    }
}
