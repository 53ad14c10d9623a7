//! A QUIC client that does as it is told, where a node of ours would know better.

use std::sync::Arc;

use identity::tls::Certificate;
use identity::{ClusterKeys, Direction, NodeKey};
use piece::NodeId;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use wire::exchange::{Hello, Proof};

use crate::support::{KEY, Node, within};

pub(crate) struct Raw {
    /// Keeps the connection's driver alive.
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
}

impl Raw {
    /// Through TLS, but not yet greeted.
    pub(crate) async fn connect(key: &NodeKey, node: &Node) -> Self {
        Self::try_connect(key, node).await.unwrap()
    }

    /// As [`Raw::connect`], where the node may refuse.
    pub(crate) async fn try_connect(key: &NodeKey, node: &Node) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        Self::over(endpoint, TransportConfig::default(), key, node).await
    }

    /// As [`Raw::try_connect`], from an endpoint and with settings of the caller's.
    pub(crate) async fn over(
        endpoint: Endpoint,
        transport: TransportConfig,
        key: &NodeKey,
        node: &Node,
    ) -> Result<Self, ConnectionError> {
        let certificate = Certificate::generate(key).unwrap();
        let crypto = certificate.client_config(node.id, b"packswarm/1").unwrap();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
        config.transport_config(Arc::new(transport));
        let connection = within(endpoint.connect_with(config, node.addr, "raw").unwrap()).await?;
        Ok(Self {
            _endpoint: endpoint,
            connection,
        })
    }

    /// A member with its message stream, fully greeted.
    pub(crate) async fn member(key: &NodeKey, node: &mut Node) -> (Self, SendStream, RecvStream) {
        let raw = Self::connect(key, node).await;
        let (send, recv) = raw.join(key, node).await;
        (raw, send, recv)
    }

    /// Has a connection that is through TLS become a member's.
    pub(crate) async fn join(&self, key: &NodeKey, node: &mut Node) -> (SendStream, RecvStream) {
        let proofs = self.proofs(&ClusterKeys::parse(KEY).unwrap(), &key.node_id());
        let (send, mut recv) = self.greet(proofs).await;
        let mut length = [0; 4];
        within(recv.read_exact(&mut length)).await.unwrap();
        let mut hello = vec![0; u32::from_be_bytes(length) as usize];
        within(recv.read_exact(&mut hello)).await.unwrap();
        assert_eq!(wire::decode::<Hello>(&hello).unwrap().protocol, wire::PROTOCOL);
        assert_eq!(node.connected().await, (key.node_id(), false));
        (send, recv)
    }

    pub(crate) fn proofs(&self, cluster: &ClusterKeys, node: &NodeId) -> Vec<Proof> {
        let mut exporter = [0; 32];
        self.connection
            .export_keying_material(&mut exporter, b"EXPORTER-packswarm-membership-v1", &[])
            .unwrap();
        cluster.prove(Direction::Dialler, &exporter, node)
    }

    pub(crate) async fn greet(&self, proofs: Vec<Proof>) -> (SendStream, RecvStream) {
        self.greet_with(wire::PROTOCOL, proofs, "0.0.0-test").await
    }

    pub(crate) async fn greet_with(
        &self,
        protocol: u16,
        proofs: Vec<Proof>,
        version: &str,
    ) -> (SendStream, RecvStream) {
        self.open(&wire::encode_frame(&Hello {
            protocol,
            proofs,
            version: version.to_owned(),
        }))
        .await
    }

    /// Opens a stream with these bytes on it.
    pub(crate) async fn open(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = within(self.connection.open_bi()).await.unwrap();
        within(send.write_all(bytes)).await.unwrap();
        (send, recv)
    }

    /// Sends `bytes` on a stream, in a packet of their own.
    pub(crate) async fn send(&self, stream: &mut SendStream, bytes: &[u8]) {
        let sent = || self.connection.stats().udp_tx.datagrams;
        let before = sent();
        within(stream.write_all(bytes)).await.unwrap();
        within(async {
            while sent() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// What the node said when it closed the connection.
    pub(crate) async fn closed(&self) -> String {
        match within(self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
            other => panic!("{other} instead of a close with a reason"),
        }
    }
}
