//! Nodes for tests, and waits that end.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use identity::{ClusterKeys, NodeKey};
use piece::{Blob, Digest, NodeId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use transport::{Config, ConnectError, Event, FetchRequest, Transport};
use wire::exchange::{Fetch, Message};

/// No wait in a test that passes comes near this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const KEY: &str = "4242424242424242424242424242424242424242424242424242424242424242";
pub(crate) const OTHER_KEY: &str = "1313131313131313131313131313131313131313131313131313131313131313";

/// A data plane and what comes out of it.
pub(crate) struct Node {
    pub(crate) transport: Transport,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) id: NodeId,
    pub(crate) addr: SocketAddr,
}

impl Node {
    pub(crate) fn start(seed: u8) -> Self {
        Self::with(seed, KEY, Config::default())
    }

    pub(crate) fn with_config(seed: u8, config: Config) -> Self {
        Self::with(seed, KEY, config)
    }

    pub(crate) fn with_key(seed: u8, cluster: &str) -> Self {
        Self::with(seed, cluster, Config::default())
    }

    pub(crate) fn with(seed: u8, cluster: &str, config: Config) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let cluster = Arc::new(ClusterKeys::parse(cluster).unwrap());
        let (transport, events) = Transport::bind(config, socket, Arc::new(key(seed)), cluster).unwrap();
        Self {
            addr: transport.local_addr(),
            id: key(seed).node_id(),
            transport,
            events,
        }
    }

    pub(crate) async fn dial(&self, other: &Self) -> Result<(), ConnectError> {
        within(self.transport.connect(other.id, other.addr)).await
    }

    /// Dials, and sees both ends say so.
    pub(crate) async fn join(&mut self, other: &mut Self) {
        self.dial(other).await.unwrap();
        self.connected().await;
        other.connected().await;
    }

    pub(crate) async fn event(&mut self) -> Event {
        within(self.events.recv()).await.expect("the events go on")
    }

    /// The next event, which must be a `Connected`: who, and whether we dialled.
    pub(crate) async fn connected(&mut self) -> (NodeId, bool) {
        match self.event().await {
            Event::Connected { remote, dialled, .. } => (remote.node, dialled),
            other => panic!("{other:?} instead of Connected"),
        }
    }

    /// The next event, which must be a `Disconnected`: the reason.
    pub(crate) async fn disconnected(&mut self) -> String {
        match self.event().await {
            Event::Disconnected { reason, .. } => reason,
            other => panic!("{other:?} instead of Disconnected"),
        }
    }

    /// The next event, which must be a `Refused`: why.
    pub(crate) async fn refused(&mut self) -> String {
        match self.event().await {
            Event::Refused { why, .. } => why,
            other => panic!("{other:?} instead of Refused"),
        }
    }

    /// The next event, which must be a message.
    pub(crate) async fn message(&mut self) -> (NodeId, Message) {
        match self.event().await {
            Event::Message { node, message } => (node, message),
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// The next event, which must be a request.
    pub(crate) async fn request(&mut self) -> FetchRequest {
        match self.event().await {
            Event::Fetch(request) => request,
            other => panic!("{other:?} instead of a request"),
        }
    }
}

/// A way to a node that can be cut.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    carrier: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(node: &Node) -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (addr, node) = (socket.local_addr().unwrap(), node.addr);
        let carrier = tokio::spawn(async move {
            let mut caller = None;
            let mut packet = vec![0; 1 << 16];
            loop {
                let (length, from) = socket.recv_from(&mut packet).await.unwrap();
                if from != node {
                    caller = Some(from);
                }
                let to = if from == node {
                    caller.expect("the node does not call first")
                } else {
                    node
                };
                socket.send_to(&packet[..length], to).await.unwrap();
            }
        });
        Self { addr, carrier }
    }

    pub(crate) fn cut(self) {
        self.carrier.abort();
    }
}

pub(crate) fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

/// Waits until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// `length` bytes that are not all alike.
pub(crate) fn data(length: usize) -> Bytes {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

pub(crate) fn gone(byte: u8) -> Message {
    Message::Gone {
        digest: Digest::from_bytes([byte; 32]),
    }
}

pub(crate) fn blob() -> Blob {
    Blob {
        digest: Digest::from_bytes([5; 32]),
        size: 256 << 20,
    }
}

pub(crate) fn request(piece: u32) -> Fetch {
    Fetch {
        digest: blob().digest,
        size: blob().size,
        piece,
        runs: false,
    }
}
