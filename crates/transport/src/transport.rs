//! The handle that the rest of the node holds.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::Shared;
use identity::tls::Certificate;
use identity::{ClusterKeys, Direction, NodeKey};
use piece::NodeId;
use quinn::{Connection, Endpoint};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use wire::exchange::{Fetch, MAX_MESSAGE, Message};

use crate::admission::{AdmissionError, Greeter};
use crate::connection::{Admitted, canonical};
use crate::error::{CloseCode, dial_error, is_duplicate};
use crate::refusal_log::RefusalLog;
use crate::socket::{SettingReport, Socket};
use crate::table::{Dial, Table, TurnedAway};
use crate::{Config, ConnectError, Event, FetchError, IncomingPiece, SendError, TransportError};
use crate::{endpoint, fetch, listen};

/// One node's data plane. Cheap to clone; all clones are the same. It runs until [`Transport::close`], or until the
/// receiver of its events is dropped.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

/// What all clones and tasks share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) me: NodeId,
    pub(crate) cluster: Arc<ClusterKeys>,
    pub(crate) endpoint: Endpoint,
    /// Woken whenever a connection is admitted.
    pub(crate) changed: Notify,
    /// How many requests of neighbours are being answered.
    pub(crate) serving: watch::Sender<usize>,
    /// Wide receive windows that are not taken.
    windows: Arc<Semaphore>,
    /// Callers that were turned away.
    pub(crate) refusals: RefusalLog,
    /// Nodes that turned us away.
    rebuffs: RefusalLog,
    pub(crate) sent: AtomicU64,
    received: Arc<AtomicU64>,
    is_draining: AtomicBool,
    certificate: Certificate,
    socket: Socket,
    table: Mutex<Table>,
}

/// How the data plane is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Neighbours.
    pub connections: usize,
    /// Nodes being dialled.
    pub dialling: usize,
    /// Bytes of pieces that neighbours sent, whether or not they were any good.
    pub received_bytes: u64,
    /// Bytes of pieces sent and acknowledged.
    pub sent_bytes: u64,
    /// What was asked of the system, and what it gave.
    pub settings: Vec<SettingReport>,
}

/// The way to one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Where its packets come from.
    pub addr: SocketAddr,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Bytes of UDP payload that pass.
    pub mtu: u16,
    /// Bytes that may be under way.
    pub congestion_window: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Of those, lost.
    pub lost_packets: u64,
    /// How often large packets suddenly stopped passing.
    pub black_holes: u64,
}

impl Transport {
    /// Starts the data plane of the node with `key` on `socket`. Needs a tokio runtime. What happens comes out of the
    /// receiver.
    ///
    /// # Errors
    /// If the settings do not fit together, or the socket or TLS is unusable.
    pub fn bind(
        config: Config,
        socket: UdpSocket,
        key: Arc<NodeKey>,
        cluster: Arc<ClusterKeys>,
    ) -> Result<(Self, mpsc::Receiver<Event>), TransportError> {
        config.check()?;
        let received = Arc::new(AtomicU64::new(0));
        let socket = Socket::new(&config, socket, received.clone())?;
        for setting in socket.settings(&config) {
            if let Some(advice) = setting.advice {
                tracing::warn!(
                    setting = setting.name,
                    wanted = setting.wanted,
                    got = setting.got,
                    "{advice}"
                );
            }
        }
        let certificate = Certificate::generate(&key)?;
        let endpoint = endpoint::open(&config, &socket, &certificate)?;
        let (events, receiver) = mpsc::channel(config.event_queue);
        let me = key.node_id();
        let (connections, bans) = (config.max_connections, config.max_bans);
        let table = Table::new(me, connections, bans, config.handshake_timeout, events.clone());
        let inner = Arc::new(Inner {
            config,
            me,
            cluster,
            endpoint,
            changed: Notify::new(),
            serving: watch::Sender::new(0),
            windows: Arc::new(Semaphore::new(endpoint::WIDE_WINDOWS)),
            refusals: RefusalLog::default(),
            rebuffs: RefusalLog::default(),
            sent: AtomicU64::new(0),
            received,
            is_draining: AtomicBool::new(false),
            certificate,
            socket,
            table: Mutex::new(table),
        });
        tokio::spawn(listen::run(inner.clone(), events));
        Ok((Self { inner }, receiver))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.endpoint.local_addr().expect("a bound socket has an address")
    }

    /// Makes sure that there is a connection to `node`, dialling it at `addr` if need be. Callers that want the same node
    /// at the same time share one dial; if that node dials us meanwhile, one of the two connections stays.
    ///
    /// # Errors
    /// If there is none in the end, with the reason.
    pub async fn connect(&self, node: NodeId, addr: SocketAddr) -> Result<(), ConnectError> {
        match self.dial_or_join(node, addr)? {
            Some(dial) => dial.await,
            None => Ok(()),
        }
    }

    /// Queues a message for a neighbour.
    ///
    /// # Errors
    /// If the node is no neighbour, its queue is full, or the message is too long for a frame.
    pub fn send(&self, node: &NodeId, message: Message) -> Result<(), SendError> {
        let frame = wire::encode_frame(&message);
        let length = frame.len() - 4;
        if length > MAX_MESSAGE {
            return Err(SendError::TooLong {
                length,
                limit: MAX_MESSAGE,
            });
        }
        self.inner
            .table()
            .link(node)
            .ok_or(SendError::NotConnected)?
            .outbox
            .push(frame.into())
    }

    /// Asks a neighbour for a piece and waits for its answer; the bytes follow in [`IncomingPiece::read`]. Waits while the
    /// neighbour has as many requests of ours as it takes. To cancel, drop the future or the piece.
    ///
    /// # Errors
    /// If the node is no neighbour, refuses, breaks off, or breaks the protocol.
    pub async fn fetch(&self, node: &NodeId, fetch: Fetch) -> Result<IncomingPiece, FetchError> {
        let (connection, wanted) = {
            let table = self.inner.table();
            let link = table.link(node).ok_or(FetchError::NotConnected)?;
            link.widen(&self.inner.windows, &self.inner.config);
            (link.connection.clone(), link.wanted.clone())
        };
        fetch::fetch(connection, fetch, wanted, self.inner.received.clone()).await
    }

    /// Ends the connection to a neighbour, if there is one, and tells it why.
    pub fn disconnect(&self, node: &NodeId, reason: &str) {
        if let Some(link) = self.inner.table().link(node) {
            link.close(CloseCode::Done, reason);
        }
    }

    /// Disconnects a node and lets it in no more, until [`Transport::allow`].
    pub fn ban(&self, node: NodeId) {
        let mut table = self.inner.table();
        table.bans.insert(node);
        if let Some(link) = table.link(&node) {
            link.close(CloseCode::Banned, "banned");
        }
    }

    /// Disconnects these nodes and lets them in no more: whom an operator has expelled, and no others for that reason.
    pub fn expel(&self, nodes: BTreeSet<NodeId>) {
        let mut table = self.inner.table();
        for node in &nodes {
            if let Some(link) = table.link(node) {
                link.close(
                    CloseCode::Banned,
                    "its operator has expelled this node from the cluster",
                );
            }
        }
        table.bans.expel(nodes);
    }

    /// Lifts a ban.
    pub fn allow(&self, node: &NodeId) {
        self.inner.table().bans.remove(node);
    }

    /// How it is doing, and what the system refused.
    pub fn status(&self) -> Status {
        let table = self.inner.table();
        // Counters are read apart from one another; they need not fit to the byte.
        Status {
            connections: table.open_links().count(),
            dialling: table.dials.values().filter(|dial| dial.upgrade().is_some()).count(),
            received_bytes: self.inner.received.load(Ordering::Relaxed),
            sent_bytes: self.inner.sent.load(Ordering::Relaxed),
            settings: self.inner.socket.settings(&self.inner.config),
        }
    }

    /// The way to a neighbour, if it is one.
    pub fn path(&self, node: &NodeId) -> Option<PathInfo> {
        let connection = self.connection(node)?;
        let path = connection.stats().path;
        Some(PathInfo {
            addr: canonical(connection.remote_address()),
            rtt: path.rtt,
            mtu: path.current_mtu,
            congestion_window: path.cwnd,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            black_holes: path.black_holes_detected,
        })
    }

    /// Shuts down: takes no new connections and requests, lets the pieces being served finish within `drain_timeout`, then
    /// closes every connection. The events end with a `Disconnected` for each, which must be read for this to be quick.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.is_draining.store(true, Ordering::Relaxed);
        inner.endpoint.set_server_config(None);
        let patience = inner.config.drain_timeout;
        let mut serving = inner.serving.subscribe();
        // Whatever is not done by then is cut off.
        let _ = tokio::time::timeout(patience, serving.wait_for(|count| *count == 0)).await;
        let tasks = inner.table().close();
        let aborts: Vec<_> = tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        if tokio::time::timeout(patience, futures::future::join_all(tasks))
            .await
            .is_err()
        {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        inner.endpoint.close(CloseCode::Done.var_int(), b"shutting down");
        // So that the other ends hear of it; those that do not answer are left to their idle timeout.
        let _ = tokio::time::timeout(patience, inner.endpoint.wait_idle()).await;
    }

    fn connection(&self, node: &NodeId) -> Option<Connection> {
        self.inner.table().link(node).map(|link| link.connection.clone())
    }

    /// The dial to wait for; none if there is a connection.
    fn dial_or_join(&self, node: NodeId, addr: SocketAddr) -> Result<Option<Shared<Dial>>, ConnectError> {
        let inner = &self.inner;
        let mut table = inner.table();
        if node == inner.me {
            return Err(ConnectError::Myself { node });
        }
        if table.events.is_none() || inner.is_draining() {
            return Err(ConnectError::Closing);
        }
        if table.bans.contains(&node) {
            return Err(ConnectError::Banned { node });
        }
        if table.link(&node).is_some() {
            return Ok(None);
        }
        table.dials.retain(|_, dial| dial.upgrade().is_some());
        if let Some(dial) = table.dials.get(&node).and_then(futures::future::WeakShared::upgrade) {
            return Ok(Some(dial));
        }
        if table.open_links().count() >= inner.config.max_connections {
            return Err(ConnectError::Full {
                limit: inner.config.max_connections,
            });
        }
        if table.dials.len() >= inner.config.max_handshakes {
            return Err(ConnectError::TooManyDials {
                limit: inner.config.max_handshakes,
            });
        }
        let dial = inner.clone().dial(node, addr).boxed().shared();
        if let Some(weak) = dial.downgrade() {
            table.dials.insert(node, weak);
        }
        Ok(Some(dial))
    }
}

impl Inner {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it holds this lock")
    }

    /// Whether no new work is taken on.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    async fn dial(self: Arc<Self>, node: NodeId, addr: SocketAddr) -> Result<(), ConnectError> {
        let after = self.config.handshake_timeout;
        let outcome = tokio::time::timeout(after, self.handshake(node, addr))
            .await
            .unwrap_or(Err(ConnectError::Timeout { node, addr, after }));
        self.table().dials.remove(&node);
        if let Err(error @ ConnectError::WrongKey { .. }) = &outcome
            && self.rebuffs.allows(addr, Instant::now())
        {
            tracing::warn!("{error}");
        }
        outcome
    }

    async fn handshake(self: &Arc<Self>, node: NodeId, addr: SocketAddr) -> Result<(), ConnectError> {
        let failed = |reason: String| ConnectError::Address { addr, reason };
        let client = endpoint::client(&self.config, &self.certificate, node).map_err(|e| failed(e.to_string()))?;
        let connecting = self
            .endpoint
            .connect_with(client, addr, endpoint::SERVER_NAME)
            .map_err(|e| failed(e.to_string()))?;
        let connection = connecting.await.map_err(|e| dial_error(node, addr, &e))?;
        let greeter = Greeter {
            connection: &connection,
            keys: &self.cluster,
            direction: Direction::Dialler,
        };
        let (send, recv, remote) = match greeter.dial(&self.me, node).await {
            Ok(greeted) => greeted,
            Err(AdmissionError::Connection(error)) if is_duplicate(&error) => return self.wait_for(node).await,
            Err(error) => {
                listen::turn_away(&connection, &error);
                return Err(not_admitted(node, addr, &error));
            }
        };
        let admitted = Admitted {
            connection,
            send,
            recv,
            remote,
            dialled: true,
            greeting: Vec::new(),
        };
        match admitted.settle(self) {
            // The other connection stays, and it is there.
            Ok(()) | Err(TurnedAway::Duplicate) => Ok(()),
            Err(TurnedAway::Closing) => Err(ConnectError::Closing),
            Err(TurnedAway::Banned) => Err(ConnectError::Banned { node }),
            Err(TurnedAway::Full) => Err(ConnectError::Full {
                limit: self.config.max_connections,
            }),
        }
    }

    /// Waits for the connection that the node itself has dialled. The caller bounds the time.
    async fn wait_for(&self, node: NodeId) -> Result<(), ConnectError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.table().link(&node).is_some() {
                return Ok(());
            }
            changed.await;
        }
    }
}

fn not_admitted(node: NodeId, addr: SocketAddr, error: &AdmissionError) -> ConnectError {
    match error {
        AdmissionError::WrongKey => ConnectError::WrongKey { node, addr },
        AdmissionError::Connection(error) => dial_error(node, addr, error),
        AdmissionError::Version { .. } | AdmissionError::Malformed(_) => ConnectError::Handshake {
            node,
            addr,
            reason: error.to_string(),
        },
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("node", &self.me)
            .finish_non_exhaustive()
    }
}
