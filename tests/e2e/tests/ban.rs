//! A node that its operator expels gets nothing more, from anybody, until it is let back in.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use e2e::lab::binary;
use e2e::process::run;
use e2e::pulling::assert_sound;
use e2e::{Cluster, Lab, Model, Node, Options, Pulling, Registry, Throttle, wait};
use identity::{ClusterKeys, NodeKey};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// An expelled node is left to itself: here it is not to ask the registry either.
const PEERS: &str = "[origin]\nfallback = false\n";

/// `packswarm node ...` at the scheduler.
fn node_command(scheduler: &Node, args: &[&str]) -> String {
    let admin = format!("http://{}", scheduler.admin());
    run(Command::new(binary()).arg("node").args(args).arg("--admin").arg(admin))
}

/// Connects to a node's data plane as another node, whose key lies in its data directory: what it says, if it refuses.
fn connect_as(who: &Node, to: &Node, cluster: &Cluster) -> Result<(), String> {
    let key = |node: &Node| NodeKey::load_or_create(&node.setup().data.join("node.key")).expect("the node has made it");
    let keys = Arc::new(ClusterKeys::load(cluster.key()).expect("keygen writes keys"));
    let (myself, target) = (Arc::new(key(who)), key(to).node_id());
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    runtime.block_on(async {
        let (transport, _events) = transport::Transport::bind(transport::Config::default(), socket, myself, keys)
            .expect("it is a good socket");
        let connected = transport.connect(target, to.data()).await;
        connected.map_err(|error| error.to_string())
    })
}

/// Bytes of blobs that a node has got from others.
fn got(node: &Node) -> u64 {
    node.received("peer") + node.received("seed")
}

#[test]
fn an_expelled_node_gets_nothing_more_until_it_is_let_back_in() {
    let lab = Lab::new("ban");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "banned", 1, &[(64 * MIB) as usize, 300_000]);
    let link = Throttle::start(registry.address(), 12 * MIB);
    let options = Options {
        seeds: 1,
        peers: 4,
        peer_config: PEERS,
        ..Options::default()
    };
    let mut cluster = Cluster::start(&lab, &options);
    let reference = model.reference(link.address());
    let mut pulls = Pulling::begin_all(&lab, "pulled", &cluster.peers, &reference);
    let stolen = &cluster.peers[0];
    wait::until_true("a quarter of it", SOON, || got(stolen) > model.size() / 4);
    let id = stolen.peer_id().to_owned();
    let said = node_command(&cluster.scheduler, &["ban", &id, "--reason", "stolen in May"]);
    assert!(said.contains("is expelled"), "{said}");
    // Everybody lets go of it, and it knows why.
    wait::until_true("its own word of it", SOON, || stolen.status()["expelled"] == true);
    wait::until_true("the end of its connections", SOON, || {
        stolen.status()["connections"] == 0
    });
    let had = got(stolen);
    assert!(had < model.size(), "it had all of it before it was expelled");
    stolen.wait_log("this node was expelled from the cluster by its operator", SOON);
    let doomed = pulls.remove(0);
    for pull in pulls {
        pull.succeeds(&model);
    }
    drop(doomed);
    assert_eq!(got(stolen), had, "it was given more");
    for other in cluster.seeds.iter().chain(&cluster.peers[1..]) {
        other.wait_log("a node was expelled by the operator", SOON);
    }
    // It stays out when everybody forgets what can be forgotten, and while no scheduler answers.
    cluster.scheduler.kill();
    cluster.peers[1].kill();
    cluster.peers[1].restart();
    let refused = connect_as(&cluster.peers[0], &cluster.peers[1], &cluster).expect_err("it is let in");
    assert!(refused.contains("banned"), "{refused}");
    cluster.scheduler.restart();
    cluster.wait_joined(4);
    let listed = node_command(&cluster.scheduler, &["list"]);
    assert!(listed.contains(&id) && listed.contains("stolen in May"), "{listed}");
    cluster.peers[0].kill();
    cluster.peers[0].restart();
    cluster.peers[0].wait_log("the scheduler refuses this node", SOON);
    cluster.peers[0].wait_log("stolen in May", SOON);
    assert_eq!(cluster.scheduler.metric("packswarm_scheduler_nodes", &[]) as usize, 4);

    let said = node_command(&cluster.scheduler, &["unban", &id]);
    assert!(said.contains("may come back"), "{said}");
    cluster.wait_joined(5);
    let back = &cluster.peers[0];
    wait::until_true("its own word of it", SOON, || back.status()["expelled"] == false);
    Pulling::begin(&lab, "back", back, &reference).succeeds(&model);
    assert!(node_command(&cluster.scheduler, &["list"]).contains("nobody"));
    for blob in model.blobs() {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
    }
    cluster.nodes().for_each(assert_sound);
}
