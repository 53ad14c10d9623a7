//! A seed and peers that have no scheduler at all: they find each other through Kademlia, and the registry is still read
//! once, by the seed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node;

use std::sync::Arc;

use identity::ClusterKeys;
use peer::Peer;
use piece::Digest;
use testbed::{Artifact, Registry};
use tokio::net::TcpListener;
use wire::control::Role;

use node::{LOOPBACK, start};

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
async fn a_cold_pull_goes_through_the_seed() {
    let keys = Arc::new(ClusterKeys::parse(&ClusterKeys::generate()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let artifact = Artifact::generate(1, 24 << 20);
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let registry = Registry::start(listener, testbed::Options::default()).unwrap();
    registry.publish("org/model", "v1", &artifact);

    let seed = start(Role::Seed, &dir, Vec::new(), &keys).await;
    let bootstrap = vec![seed.addresses().control.to_string()];
    let first = start(Role::Peer, &dir, bootstrap.clone(), &keys).await;
    let second = start(Role::Peer, &dir, bootstrap, &keys).await;
    let pull = async |peer: &Peer| {
        let mirror = peer.addresses().mirror.unwrap();
        let upstream = registry.address();
        let repository = format!("http://{mirror}/v2/{}__{}/org/model", upstream.ip(), upstream.port());
        let manifest = get(format!("{repository}/manifests/v1")).await;
        assert_eq!(Digest::of(&manifest), artifact.digest());
        let blobs = artifact
            .blobs()
            .into_iter()
            .filter(|blob| blob.digest != artifact.digest());
        let checks = blobs.map(async |blob| {
            let bytes = get(format!("{repository}/blobs/{}", blob.digest)).await;
            assert_eq!(Digest::of(&bytes), blob.digest);
        });
        futures::future::join_all(checks).await;
    };
    tokio::join!(pull(&first), pull(&second));

    for blob in artifact.blobs() {
        assert_eq!(
            registry.served().get(&blob.digest).copied().unwrap_or(0),
            blob.size,
            "{} was read once",
            blob.digest
        );
    }
    let asked_by_peers = registry
        .log()
        .iter()
        .filter(|entry| entry.user_agent.contains("(peer;"))
        .count();
    assert_eq!(asked_by_peers, 0, "peers ask the registry nothing while a seed lives");
    for node in [first, second, seed] {
        node.stop().await;
    }
}
