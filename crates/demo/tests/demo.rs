//! The demo is the shortest whole cluster there is: production roles, real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use demo::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_leaves_the_registry_once() {
    let options = Options {
        peers: 3,
        size: 40 << 20,
        model: None,
        registry_rate: 500_000_000,
    };
    let report = run(options).await.unwrap();
    assert_eq!(report.registry_bytes, report.model_bytes);
    assert_eq!(report.peer_requests, 0);
    assert!(report.is_kept());
    assert_eq!(
        report.straight_bytes,
        3 * report.model_bytes,
        "without the swarm each client costs the registry a model"
    );
    let peers: Vec<_> = report.nodes.iter().filter(|node| node.took.is_some()).collect();
    assert_eq!(peers.len(), 3);
    for peer in peers {
        assert_eq!(peer.received.registry, 0, "{}", peer.name);
        assert!(
            peer.received.seed + peer.received.peer >= report.model_bytes,
            "{}",
            peer.name
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_can_be_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/weights.safetensors"), vec![7; 3 << 20]).unwrap();
    std::fs::write(dir.path().join("README.md"), "a model").unwrap();
    let model = Some(dir.path().to_path_buf());
    let report = run(Options {
        peers: 1,
        size: 0,
        model,
        registry_rate: 500_000_000,
    })
    .await
    .unwrap();
    assert!(report.is_kept());
    assert!(report.model_bytes > 3 << 20);
}
