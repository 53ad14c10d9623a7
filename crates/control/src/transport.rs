//! TCP connections, secured: pnet with the cluster key, a greeting under it, noise with the node key, yamux.
//!
//! pnet only encrypts, so with different keys both ends read noise and fail wherever it happens to make no sense, or wait
//! for bytes that never come. The greeting, sixteen bytes that each end sends first, settles it at once: whoever reads
//! something else has another key, or is no packswarm node, at the other end. Because both ends know what follows, noise
//! and yamux need no negotiation.
//!
//! A node listens with its current key and dials with that one first, then, when the greeting was refused, with the other
//! key it accepts: so keys rotate without a stop.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetError, PreSharedKey};
use libp2p::{Multiaddr, PeerId, Transport, noise, tcp, yamux};

/// What the end that dialled sends first.
const DIALLER_GREETING: [u8; 16] = *b"packswarm/1 dial";
/// What the end that listened sends first. Different, so that an echo does not pass.
const LISTENER_GREETING: [u8; 16] = *b"packswarm/1 host";
/// The most streams on one connection: both ends' asks, and what Kademlia, identify and ping add.
const MAX_STREAMS: usize = 2048;

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody listens, or the network says no.
    #[error("no TCP connection: {0}")]
    Tcp(#[source] io::Error),
    /// The network says nothing.
    #[error("no TCP connection within {} s", .0.as_secs_f32())]
    TcpTimeout(Duration),
    /// The greeting was not one.
    #[error("another cluster key or another protocol")]
    OtherKey,
    /// The other end went away in the middle.
    #[error("the connection broke during the handshake: {0}")]
    Interrupted(#[source] io::Error),
    /// The other end fell silent in the middle.
    #[error("the handshake took more than {} s", .0.as_secs_f32())]
    HandshakeTimeout(Duration),
    /// The other end's node key was not proven.
    #[error("the other end did not prove its node key: {0}")]
    Noise(#[source] noise::Error),
}

type Secured = (PeerId, StreamMuxerBox);
type Connecting = BoxFuture<'static, Result<Secured, ConnectError>>;

/// What a connection is secured with.
struct Security {
    /// The current key first, then the others to dial with.
    keys: Vec<PreSharedKey>,
    noise: noise::Config,
    yamux: yamux::Config,
    timeout: Duration,
}

#[derive(Clone, Copy)]
enum End {
    Dialler,
    Listener,
}

/// The only transport of the control plane.
pub(crate) struct SecureTcp {
    tcp: tcp::tokio::Transport,
    security: Arc<Security>,
}

impl SecureTcp {
    /// A transport for the node `key` that listens with the first of `cluster_keys` and dials with any; `timeout` bounds
    /// the TCP connection and the handshake each.
    pub(crate) fn new(key: &Keypair, cluster_keys: Vec<PreSharedKey>, timeout: Duration) -> Result<Self, noise::Error> {
        assert!(!cluster_keys.is_empty(), "a cluster has a key");
        let mut yamux = yamux::Config::default();
        yamux.set_max_num_streams(MAX_STREAMS);
        let security = Security {
            keys: cluster_keys,
            noise: noise::Config::new(key)?,
            yamux,
            timeout,
        };
        Ok(Self {
            tcp: new_tcp(),
            security: Arc::new(security),
        })
    }
}

fn new_tcp() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
}

impl Transport for SecureTcp {
    type Output = Secured;
    type Error = ConnectError;
    type ListenerUpgrade = Connecting;
    type Dial = Connecting;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<ConnectError>> {
        self.tcp
            .listen_on(id, address)
            .map_err(|error| error.map(ConnectError::Tcp))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Connecting, TransportError<ConnectError>> {
        // Our port says nothing (nodes learn addresses by identify), and two connections between the same two ports
        // cannot exist: each dial takes a port of its own.
        let opts = DialOpts {
            port_use: PortUse::New,
            ..opts
        };
        let first = self
            .tcp
            .dial(address.clone(), opts)
            .map_err(|error| error.map(ConnectError::Tcp))?;
        let security = Arc::clone(&self.security);
        Ok(Box::pin(async move {
            let mut connection = connect(first, &security, security.keys[0]).await;
            for key in &security.keys[1..] {
                if !matches!(connection, Err(ConnectError::OtherKey)) {
                    break;
                }
                let Ok(again) = new_tcp().dial(address.clone(), opts) else {
                    break;
                };
                connection = connect(again, &security, *key).await;
            }
            connection
        }))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Connecting, ConnectError>> {
        let security = Arc::clone(&self.security);
        Pin::new(&mut self.tcp).poll(cx).map(|event| {
            event.map_err(ConnectError::Tcp).map_upgrade(move |accepted| {
                Box::pin(async move {
                    let socket = accepted.await?;
                    secure(socket, &security, security.keys[0], End::Listener).await
                }) as Connecting
            })
        })
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Interrupted(error)
    }
}

async fn connect<S>(
    dial: impl Future<Output = io::Result<S>>,
    security: &Security,
    key: PreSharedKey,
) -> Result<Secured, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = tokio::time::timeout(security.timeout, dial)
        .await
        .map_err(|_| ConnectError::TcpTimeout(security.timeout))?
        .map_err(ConnectError::Tcp)?;
    secure(socket, security, key, End::Dialler).await
}

async fn secure<S>(socket: S, security: &Security, key: PreSharedKey, end: End) -> Result<Secured, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    tokio::time::timeout(security.timeout, handshake(socket, security, key, end))
        .await
        .map_err(|_| ConnectError::HandshakeTimeout(security.timeout))?
}

async fn handshake<S>(socket: S, security: &Security, key: PreSharedKey, end: End) -> Result<Secured, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut encrypted = PnetConfig::new(key)
        .handshake(socket)
        .await
        .map_err(|error| match error {
            PnetError::HandshakeError(error) | PnetError::IoError(error) => ConnectError::Interrupted(error),
        })?;
    greet(&mut encrypted, end).await?;
    let noise = security.noise.clone();
    let (node, private) = match end {
        End::Dialler => noise.upgrade_outbound(encrypted, "/noise").await,
        End::Listener => noise.upgrade_inbound(encrypted, "/noise").await,
    }
    .map_err(ConnectError::Noise)?;
    let yamux = security.yamux.clone();
    let streams = match end {
        End::Dialler => yamux.upgrade_outbound(private, "/yamux").await,
        End::Listener => yamux.upgrade_inbound(private, "/yamux").await,
    }?;
    Ok((node, StreamMuxerBox::new(streams)))
}

/// Both ends write before they read, and then close without leaving a byte unread: so both of two ends with different
/// keys learn it from the greeting, none from a reset.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(encrypted: &mut S, end: End) -> Result<(), ConnectError> {
    let (ours, theirs) = match end {
        End::Dialler => (DIALLER_GREETING, LISTENER_GREETING),
        End::Listener => (LISTENER_GREETING, DIALLER_GREETING),
    };
    encrypted.write_all(&ours).await?;
    encrypted.flush().await?;
    let mut heard = [0; 16];
    encrypted.read_exact(&mut heard).await?;
    if heard == theirs {
        Ok(())
    } else {
        Err(ConnectError::OtherKey)
    }
}
