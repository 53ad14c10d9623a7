//! A node without a scheduler.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use identity::{ClusterKeys, NodeKey};
use peer::{Config, Listeners, Peer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use wire::control::Role;

/// Any free port.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Starts one.
pub(crate) async fn start(role: Role, dir: &TempDir, bootstrap: Vec<String>, keys: &Arc<ClusterKeys>) -> Peer {
    let key = NodeKey::generate();
    let config = Config {
        role,
        registry: registry::Config {
            user_agent: format!("packswarm/test ({}; {})", role.name(), key.node_id()),
            ..registry::Config::default()
        },
        ..Config::new(
            store::Config::at(dir.path().join(key.node_id().to_string())),
            control::Config {
                bootstrap,
                ..control::Config::new(LOOPBACK)
            },
        )
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
