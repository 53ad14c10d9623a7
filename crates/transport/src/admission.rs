//! The door: nobody is heard before they have shown that they belong to this cluster.
//!
//! The dialler opens the first stream and sends its [`Hello`]; the listener reads that, decides whether there is a place,
//! and answers with its own. The proofs in them are bound to this TLS session, its end and its node, so that they are worth
//! nothing anywhere else. Until then a stranger has one stream and a window of a few KiB.

use identity::{ClusterKeys, Direction};
use piece::NodeId;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use wire::exchange::{Hello, MAX_HELLO, Remote};

use crate::frame::{FrameError, read_frame};

/// What the exporter's bytes are for (RFC 8446, section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-packswarm-membership-v1";
/// Characters of a version at most: it goes into logs.
const MAX_VERSION: usize = 64;

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    /// None of its proofs was made with a key of ours.
    #[error("no valid membership proof")]
    WrongKey,
    /// It speaks another version of the protocol.
    #[error("it speaks protocol version {theirs}, this node speaks {}", wire::PROTOCOL)]
    Version {
        /// The version it speaks.
        theirs: u16,
    },
    /// What it says is no `Hello`.
    #[error("its greeting makes no sense: {0}")]
    Malformed(String),
    /// The connection broke first.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// The node at the other end, as TLS has proven it.
pub(crate) fn remote_node(connection: &Connection) -> Result<NodeId, AdmissionError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| AdmissionError::Malformed("it showed no certificate".to_owned()))?;
    identity::tls::node_of(&chain).map_err(|e| AdmissionError::Malformed(e.to_string()))
}

/// One end's part of the greeting.
pub(crate) struct Greeter<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) keys: &'a ClusterKeys,
    /// Which end we are.
    pub(crate) direction: Direction,
}

impl Greeter<'_> {
    /// Our `Hello`, as a frame.
    pub(crate) fn hello(&self, me: &NodeId) -> Vec<u8> {
        wire::encode_frame(&Hello {
            protocol: wire::PROTOCOL,
            proofs: self.keys.prove(self.direction, &self.exporter(), me),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// As the dialler: greets and is greeted.
    pub(crate) async fn dial(
        &self,
        me: &NodeId,
        node: NodeId,
    ) -> Result<(SendStream, RecvStream, Remote), AdmissionError> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        // If this fails, so does the reading, which knows why.
        let _ = send.write_all(&self.hello(me)).await;
        let remote = self.read(&mut recv, node).await?;
        Ok((send, recv, remote))
    }

    /// As the listener: is greeted, and may then greet with [`Greeter::hello`] on the same stream.
    pub(crate) async fn listen(&self, node: NodeId) -> Result<(SendStream, RecvStream, Remote), AdmissionError> {
        let (send, mut recv) = self.connection.accept_bi().await?;
        let remote = self.read(&mut recv, node).await?;
        Ok((send, recv, remote))
    }

    async fn read(&self, stream: &mut RecvStream, node: NodeId) -> Result<Remote, AdmissionError> {
        let frame = read_frame(stream, MAX_HELLO).await.map_err(|error| match error {
            FrameError::Read(ReadError::ConnectionLost(error)) => AdmissionError::Connection(error),
            FrameError::Read(_) | FrameError::Ended | FrameError::TooLong { .. } => {
                AdmissionError::Malformed(error.to_string())
            }
        })?;
        let hello: Hello = wire::decode(&frame).map_err(|e| AdmissionError::Malformed(e.to_string()))?;
        let theirs = match self.direction {
            Direction::Dialler => Direction::Listener,
            Direction::Listener => Direction::Dialler,
        };
        if !self.keys.accepts(theirs, &self.exporter(), &node, &hello.proofs) {
            return Err(AdmissionError::WrongKey);
        }
        if hello.protocol != wire::PROTOCOL {
            return Err(AdmissionError::Version { theirs: hello.protocol });
        }
        if hello.version.len() > MAX_VERSION || hello.version.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(AdmissionError::Malformed("its version is not one".to_owned()));
        }
        Ok(Remote {
            node,
            version: hello.version,
        })
    }

    fn exporter(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.connection
            .export_keying_material(&mut bytes, EXPORTER_LABEL, &[])
            .expect("TLS 1.3 exports 32 bytes once the handshake is done");
        bytes
    }
}
