//! How QUIC itself is set up.

use std::io;
use std::sync::Arc;

use identity::tls::{Certificate, TlsError};
use piece::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};

use crate::socket::Socket;
use crate::{Config, TransportError};

/// What both ends must name in TLS to speak our protocol (RFC 7301).
const ALPN: &[u8] = b"packswarm/1";
/// TLS wants a name to dial; nobody looks at it, since the certificate is checked against the node id.
pub(crate) const SERVER_NAME: &str = "packswarm";
/// Bytes that somebody who has not proven membership may have in flight to us: a `Hello` many times over.
const STRANGER_WINDOW: u32 = 16 << 10;
/// Bytes that a member may have in flight to us of whom we want nothing: two of the longest messages.
const NARROW_WINDOW: u32 = 128 << 10;
/// Members at once who may have `connection_receive_window` bytes in flight: more than a node wants to read from. With the
/// others' narrow windows they are what all of a seed's 512 neighbours together can make it hold: 157 MiB.
pub(crate) const WIDE_WINDOWS: usize = 24;
/// Bytes kept of a handshake between its first packet and the moment we take it up, which is at once.
const INCOMING_BUFFER: u64 = 32 << 10;

/// A QUIC endpoint on `socket`.
pub(crate) fn open(config: &Config, socket: &Socket, certificate: &Certificate) -> Result<Endpoint, TransportError> {
    let mut endpoint = EndpointConfig::default();
    endpoint
        .max_udp_payload_size(config.max_udp_payload)
        .expect("`Config::check` keeps it within QUIC's bounds");
    let crypto = QuicServerConfig::try_from(certificate.server_config(ALPN)?)
        .expect("our TLS configuration has QUIC's initial cipher suite");
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport(config)))
        .max_incoming(config.max_handshakes)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER * config.max_handshakes as u64);
    let endpoint =
        Endpoint::new_with_abstract_socket(endpoint, Some(server), socket.udp.clone(), Arc::new(TokioRuntime))
            .map_err(|e: io::Error| TransportError::Socket(e))?;
    Ok(endpoint)
}

/// What goes before what on a connection: messages, which let others choose, before requests, before pieces (0).
pub(crate) const MESSAGES: i32 = 2;
pub(crate) const REQUESTS: i32 = 1;

/// How to dial `node`.
pub(crate) fn client(config: &Config, certificate: &Certificate, node: NodeId) -> Result<ClientConfig, TlsError> {
    let crypto = QuicClientConfig::try_from(certificate.client_config(node, ALPN)?)
        .expect("our TLS configuration has QUIC's initial cipher suite");
    let mut client = ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport(config)));
    Ok(client)
}

/// Gives a member its due, which a stranger does not have.
pub(crate) fn open_up(config: &Config, connection: &quinn::Connection) {
    // One more: the message stream.
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(config.max_concurrent_fetches + 1));
    connection.set_receive_window(VarInt::from_u32(NARROW_WINDOW.min(config.connection_receive_window)));
}

/// Makes room for what was asked of a member.
pub(crate) fn widen(config: &Config, connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(config.connection_receive_window));
}

fn transport(config: &Config) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.mtu_upper_bound);
    let idle = IdleTimeout::try_from(config.idle_timeout).expect("`Config::check` keeps it below QUIC's 2^62 ms");
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(config.stream_receive_window))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .send_window(config.send_window)
        // A piece after the other: ten that share the link would all be whole, and passed on, as late as the last.
        .send_fairness(false)
        .initial_mtu(config.initial_mtu)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.keep_alive));
    transport
}
