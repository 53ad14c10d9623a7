//! Who does not have the cluster key is kept out, and is told why.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use e2e::clients::{pull, pull_through};
use e2e::cluster::{keygen, setup};
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Node, Options, Registry, Role};
use identity::{ClusterKeys, NodeKey};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_node_with_another_key_is_refused_on_the_control_plane() {
    let lab = Lab::new("control-admission");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            ..Options::default()
        },
    );
    let other = keygen(&lab, "other.key");
    let mut stranger = setup(&lab, Role::Peer, "stranger", "", &other);
    stranger.schedulers.push(cluster.scheduler.control());
    let stranger = Node::start(stranger, &cluster.memory);
    stranger.wait_log("another cluster key", SOON);
    cluster.scheduler.wait_log("another cluster key", SOON);
    assert_eq!(stranger.status()["scheduler"], serde_json::Value::Null);
    assert_eq!(
        cluster.scheduler.metric("packswarm_scheduler_nodes", &[]) as u64,
        2,
        "the two that belong"
    );
    // Neither does a passing peer get anything from the cluster.
    let mut passing = pull(&lab, &model.reference(registry.address()), &lab.path("stolen"));
    passing
        .arg("--scheduler")
        .arg(cluster.scheduler.control().to_string())
        .arg("--cluster-key")
        .arg(&other);
    passing.env("PACKSWARM_ORIGIN_FALLBACK", "false");
    let mut passing = e2e::Process::start("passing", &mut passing, &lab.log("passing"));
    let said = e2e::wait::until("the passing peer's word of the key", SOON, || {
        (passing.log().contains("another cluster key") || passing.ended().is_some()).then(|| passing.log())
    });
    assert!(said.contains("another cluster key"), "{said}");
    assert_eq!(registry.requests(), [], "nothing was asked for");
    // Those inside go on as if nothing had been.
    run(&mut pull_through(
        &lab,
        cluster.peers[0].mirror(),
        &model.reference(registry.address()),
        &lab.path("pulled"),
    ));
}

#[test]
fn a_node_with_another_key_is_refused_on_the_data_plane() {
    let lab = Lab::new("data-admission");
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 0,
            peers: 1,
            ..Options::default()
        },
    );
    let peer = &cluster.peers[0];
    let target = NodeKey::load_or_create(&peer.setup().data.join("node.key"))
        .expect("the peer has made it")
        .node_id();
    let knock = |key: &std::path::Path| {
        let keys = Arc::new(ClusterKeys::load(key).expect("keygen writes keys"));
        let myself = Arc::new(NodeKey::generate());
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
        runtime.block_on(async {
            let (transport, _events) = transport::Transport::bind(transport::Config::default(), socket, myself, keys)
                .expect("it is a good socket");
            transport.connect(target, peer.data()).await
        })
    };
    let refused = knock(&keygen(&lab, "other.key")).expect_err("the peer takes strangers in");
    assert!(refused.to_string().contains("this cluster's key"), "{refused}");
    peer.wait_log("does not have this cluster's key", SOON);
    knock(cluster.key()).expect("with the cluster's key it is let in");
}
