//! Nodes start, stop and move to other schedulers while clients pull.

use std::fs;
use std::io::Read;
use std::net::Ipv6Addr;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::cluster::{keygen, setup};
use e2e::http::Request;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Node, Options, Registry, Role, tree, wait};

const SOON: Duration = Duration::from_secs(60);

/// Pulls through a node, and looks at what came.
fn pull(lab: &Lab, peer: &Node, registry: &Registry, model: &Model) {
    let to = lab.path(format!("{}-{}", peer.name(), model.repository().replace('/', "-")));
    run(&mut pull_through(
        lab,
        peer.mirror(),
        &model.reference(registry.address()),
        &to,
    ));
    tree::assert_same(&model.files(), &to);
    fs::remove_dir_all(to).expect("it is ours");
}

#[test]
fn a_stopping_peer_finishes_what_clients_are_being_sent() {
    let lab = Lab::new("drain");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let mut cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            ..Options::default()
        },
    );
    pull(&lab, &cluster.peers[0], &registry, &model);
    let blob = model.largest();
    let path = format!(
        "/v2/{}/blobs/{}?ns={}",
        model.repository(),
        blob.digest,
        registry.address()
    );
    let open = |peer: &Node| {
        let mut answer = Request::get(peer.mirror(), &path).open().expect("it answers");
        answer.read_exact(&mut [0; 1]).expect("the first byte comes");
        answer
    };
    let mut under_way = open(&cluster.peers[0]);
    cluster.peers[0].process().terminate();
    wait::until_true("no new clients", SOON, || {
        Request::get(cluster.peers[0].mirror(), "/v2/").try_send().is_err()
    });
    let mut rest = Vec::new();
    under_way.read_to_end(&mut rest).expect("it is sent to its end");
    assert_eq!(rest.len() as u64, blob.size - 1);
    assert!(cluster.peers[0].wait_ended(SOON).success());
    // Who does not want to wait for a client that does not read, says so twice.
    cluster.peers[0].restart();
    let _idle = open(&cluster.peers[0]);
    cluster.peers[0].process().terminate();
    wait::until_true("the first signal's effect", SOON, || {
        Request::get(cluster.peers[0].mirror(), "/v2/").try_send().is_err()
    });
    cluster.peers[0].process().terminate();
    let status = cluster.peers[0].wait_ended(Duration::from_secs(2));
    assert!(!status.success(), "something was cut off");
}

#[test]
fn nodes_move_to_another_scheduler_when_theirs_dies() {
    let lab = Lab::new("two-schedulers");
    let (held, cold) = (Model::small(&lab), Model::every_layer_type(&lab));
    let registry = Registry::start(&lab, &[&held, &cold]);
    let mut cluster = Cluster::start(&lab, &Options::default());
    let second = Node::start(
        setup(&lab, Role::Scheduler, "second", "", cluster.key()),
        &cluster.memory,
    );
    let node = |role, name: &str| {
        let mut setup = cluster.setup(&lab, role, name, "");
        setup.schedulers.push(second.control());
        Node::start(setup, &cluster.memory)
    };
    let nodes = [node(Role::Seed, "seed"), node(Role::Peer, "a"), node(Role::Peer, "b")];
    pull(&lab, &nodes[1], &registry, &held);
    cluster.scheduler.kill();
    wait::until_true("every node at the second scheduler", SOON, || {
        second.metric("packswarm_scheduler_nodes", &[]) as usize == nodes.len()
    });
    pull(&lab, &nodes[2], &registry, &held);
    pull(&lab, &nodes[1], &registry, &cold);
    registry.assert_read_once(&held);
    registry.assert_read_once(&cold);
}

#[test]
fn a_cluster_on_ipv6_is_a_cluster() {
    let lab = Lab::new("ipv6");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let key = keygen(&lab, "cluster.key");
    let memory = std::sync::Arc::default();
    let start = |role, name: &str, scheduler: Option<&Node>| {
        let mut setup = setup(&lab, role, name, "", &key);
        setup.ip = Ipv6Addr::LOCALHOST.into();
        setup.schedulers.extend(scheduler.map(Node::control));
        Node::start(setup, &memory)
    };
    let scheduler = start(Role::Scheduler, "scheduler", None);
    let seed = start(Role::Seed, "seed", Some(&scheduler));
    let peers = ["a", "b"].map(|name| start(Role::Peer, name, Some(&scheduler)));
    for peer in &peers {
        pull(&lab, peer, &registry, &model);
    }
    assert!(seed.data().is_ipv6() && peers[0].mirror().is_ipv6());
    registry.assert_read_once(&model);
}
