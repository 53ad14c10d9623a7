//! A piece that has gone bad on the disk is found by a verification, and comes back from a neighbour.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterKeys, NodeKey};
use peer::{Config, Listeners, Peer};
use piece::Digest;
use tempfile::TempDir;
use testbed::{Artifact, Registry};
use tokio::net::TcpListener;
use wire::control::Role;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn node(role: Role, dir: &TempDir, schedulers: Vec<String>, keys: &Arc<ClusterKeys>) -> Peer {
    let key = NodeKey::generate();
    let config = Config {
        role,
        registry: registry::Config {
            user_agent: format!("packswarm/test ({}; {})", role.name(), key.node_id()),
            ..registry::Config::default()
        },
        ..Config::new(
            store::Config {
                // The damage is to be found by the one who asks.
                scrub_rate: 0,
                ..store::Config::at(dir.path().join(key.node_id().to_string()))
            },
            control::Config {
                schedulers,
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

fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}

async fn get(url: String) -> Vec<u8> {
    let response = client().get(&url).send().await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    response.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_piece_comes_back() {
    let keys = Arc::new(ClusterKeys::parse(&ClusterKeys::generate()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let artifact = Artifact::generate(1, 24 << 20);
    let registry = Registry::start(TcpListener::bind(LOOPBACK).await.unwrap(), testbed::Options::default()).unwrap();
    registry.publish("org/model", "v1", &artifact);
    let listeners = scheduler::Listeners {
        admin: TcpListener::bind(LOOPBACK).await.unwrap(),
    };
    let config = scheduler::Config::new(control::Config::new(LOOPBACK));
    let key = Arc::new(NodeKey::generate());
    let scheduler = scheduler::Scheduler::start(config, listeners, key, Arc::clone(&keys))
        .await
        .unwrap();
    let schedulers = vec![scheduler.addresses().control.to_string()];
    let seed = node(Role::Seed, &dir, schedulers.clone(), &keys).await;
    let peer = node(Role::Peer, &dir, schedulers, &keys).await;

    let upstream = registry.address();
    let mirror = peer.addresses().mirror.unwrap();
    let repository = format!("http://{mirror}/v2/{}__{}/org/model", upstream.ip(), upstream.port());
    get(format!("{repository}/manifests/v1")).await;
    let blob = artifact.blobs().into_iter().max_by_key(|blob| blob.size).unwrap();
    get(format!("{repository}/blobs/{}", blob.digest)).await;

    let file = find(dir.path(), &blob.digest.hex(), "blobs")
        .into_iter()
        .find(|path| is_of(path, &peer))
        .unwrap();
    std::os::unix::fs::FileExt::write_at(
        &std::fs::OpenOptions::new().write(true).open(file).unwrap(),
        b"bit rot",
        1 << 20,
    )
    .unwrap();
    let verify = format!("http://{}/api/v1/blobs/{}/verify", peer.addresses().admin, blob.digest);
    let answer = client()
        .post(verify)
        .timeout(Duration::from_secs(30))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let answer = answer.text().await.unwrap();
    assert!(answer.contains(r#""damaged":[4]"#), "{answer}");
    assert_eq!(
        Digest::of(&get(format!("{repository}/blobs/{}", blob.digest)).await),
        blob.digest
    );
    assert_eq!(
        registry.served()[&blob.digest],
        blob.size,
        "the registry was not needed"
    );
    for node in [peer, seed] {
        node.stop().await;
    }
    scheduler.stop().await;
}

/// Files below `dir` whose path has `name` and `part` in it.
fn find(dir: &std::path::Path, name: &str, part: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(find(&path, name, part));
        } else if path.to_string_lossy().contains(part)
            && path.file_name().unwrap().to_string_lossy().contains(&name[2..])
        {
            found.push(path);
        }
    }
    found
}

fn is_of(path: &std::path::Path, peer: &Peer) -> bool {
    let mirror = peer.handle().status().peer_id;
    path.to_string_lossy().contains(&identity_hex(&mirror))
}

/// The node id in a data directory's name.
fn identity_hex(peer_id: &str) -> String {
    identity::node_id(&peer_id.parse().unwrap()).unwrap().to_string()
}
