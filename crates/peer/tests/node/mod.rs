//! A node without a scheduler.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterKeys, NodeKey};
use peer::{Config, Listeners, LocalAccess, Peer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use wire::control::{Locality, Role};

/// Any free port.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Starts one.
pub(crate) async fn start(role: Role, dir: &TempDir, bootstrap: Vec<String>, keys: &Arc<ClusterKeys>) -> Peer {
    let key = NodeKey::generate();
    let config = Config {
        role,
        advertise: LOOPBACK,
        locality: Locality::default(),
        store: store::Config::at(dir.path().join(key.node_id().to_string())),
        transport: transport::Config::default(),
        control: control::Config {
            bootstrap,
            ..control::Config::new(LOOPBACK)
        },
        registry: registry::Config {
            user_agent: format!("packswarm/test ({}; {})", role.name(), key.node_id()),
            ..registry::Config::default()
        },
        mirror: mirror::Config::default(),
        node: swarm::node::Config::default(),
        http: httpd::Limits::default(),
        local_access: LocalAccess::Public,
        access_ttl: Duration::from_secs(300),
        access_grace: Duration::ZERO,
        tag_ttl: Duration::from_secs(10),
        buffers: 96 << 20,
        rates: peer::Rates::default(),
        provers: 2,
    };
    let listeners = Listeners {
        data: UdpSocket::bind(LOOPBACK).unwrap(),
        mirror: Some(TcpListener::bind(LOOPBACK).await.unwrap()),
        admin: TcpListener::bind(LOOPBACK).await.unwrap(),
    };
    Peer::start(config, listeners, Arc::new(key), Arc::clone(keys))
        .await
        .unwrap()
}
