//! No scheduler from the start, and several of which one is lost and comes back.

use std::sync::Arc;
use std::time::Duration;

use e2e::cluster::{keygen, setup};
use e2e::pulling::assert_sound;
use e2e::{Cluster, Lab, Model, Node, Options, Pulling, Registry, Role, Throttle, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

/// Panics unless each of the model's blobs was read once, all of it by one node. Returns who read the largest.
fn assert_one_reader(registry: &Registry, model: &Model) -> String {
    let mut reader = String::new();
    for blob in model.blobs() {
        wait::until_true("the registry's log", SOON, || {
            registry.bytes_of(&blob.digest) >= blob.size
        });
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
        let requests = registry.requests();
        let of_it = requests.iter().filter(|entry| entry.reads_blob(&blob.digest));
        let mut readers: Vec<&str> = of_it.filter_map(|entry| entry.peer_id()).collect();
        readers.dedup();
        assert_eq!(readers.len(), 1, "{} was read by {readers:?}", blob.digest);
        if blob == model.largest() {
            readers[0].clone_into(&mut reader);
        }
    }
    reader
}

#[test]
fn peers_that_know_one_address_and_no_scheduler_elect_one_reader() {
    let lab = Lab::new("cold-start");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "cold", 1, &[(24 * MIB) as usize, 300_000]);
    let link = Throttle::start(registry.address(), 16 * MIB);
    let (key, memory) = (keygen(&lab, "cluster.key"), Arc::default());
    let first = Node::start(setup(&lab, Role::Peer, "first", "", &key), &memory);
    let config = format!("bootstrap = [\"{}\"]\n", first.control());
    let start = |name| Node::start(setup(&lab, Role::Peer, name, &config, &key), &memory);
    let others = ["second", "third", "fourth"].map(start);
    for node in &others {
        node.wait_log("connected", SOON);
    }
    let nodes = || [&first].into_iter().chain(&others);
    let reference = model.reference(link.address());
    for pull in Pulling::begin_all(&lab, "pulled", nodes(), &reference) {
        pull.succeeds(&model);
    }
    let reader = assert_one_reader(&registry, &model);
    assert!(nodes().any(|node| node.peer_id() == reader));
    nodes().for_each(assert_sound);
}

#[test]
fn of_three_schedulers_one_is_lost_in_the_middle_of_a_pull_and_comes_back() {
    let lab = Lab::new("three-schedulers");
    let registry = Registry::start(&lab, &[]);
    let models: Vec<Model> = (0..3)
        .map(|number| {
            let sizes = [(32 * MIB) as usize, 300_000, 5_000_000];
            Model::pushed(&lab, &registry, &format!("m{number}"), number, &sizes)
        })
        .collect();
    let link = Throttle::start(registry.address(), 16 * MIB);
    let mut cluster = Cluster::start(&lab, &Options::default());
    let more = ["second", "third"].map(|name| {
        let setup = setup(&lab, Role::Scheduler, name, "", cluster.key());
        Node::start(setup, &cluster.memory)
    });
    let schedulers = [&cluster.scheduler, &more[0], &more[1]].map(Node::control);
    let (key, memory) = (cluster.key().to_owned(), Arc::clone(&cluster.memory));
    let start = |role, name: &str| {
        let mut setup = setup(&lab, role, name, "", &key);
        setup.schedulers.extend(schedulers);
        Node::start(setup, &memory)
    };
    let seeds = ["seed-0", "seed-1"].map(|name| start(Role::Seed, name));
    let peers = ["a", "b", "c"].map(|name| start(Role::Peer, name));
    for node in seeds.iter().chain(&peers) {
        wait::until_true("a scheduler", SOON, || !node.status()["scheduler"].is_null());
    }
    let begin = |number: usize| {
        let reference = models[number].reference(link.address());
        Pulling::begin_all(&lab, &format!("m{number}"), &peers, &reference)
    };
    let half = |number: usize| {
        let digest = &models[number].largest().digest;
        wait::until_true("half of it", SOON, || peers[0].pieces(digest) > 16);
    };
    let pulls = begin(0);
    half(0);
    cluster.scheduler.kill();
    pulls.into_iter().for_each(|pull| pull.succeeds(&models[0]));
    // A cold pull while it is away, in the middle of which it comes back; and one after that.
    let pulls = begin(1);
    half(1);
    cluster.scheduler.restart();
    pulls.into_iter().for_each(|pull| pull.succeeds(&models[1]));
    begin(2).into_iter().for_each(|pull| pull.succeeds(&models[2]));
    for model in &models {
        for blob in model.blobs() {
            assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
        }
    }
    // When all have gone back to the first one, it knows what they hold; a node that comes now asks it as well.
    for node in seeds.iter().chain(&peers) {
        let first = || node.status()["scheduler"] == cluster.scheduler.peer_id();
        wait::until_true("the way back to the first scheduler", SOON, first);
    }
    let late = start(Role::Peer, "late");
    Pulling::begin(&lab, "late", &late, &models[0].reference(link.address())).succeeds(&models[0]);
    for blob in models[0].blobs() {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
    }
    seeds.iter().chain(&peers).for_each(assert_sound);
}
