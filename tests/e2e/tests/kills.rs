//! Processes are killed at any moment, and pulls finish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::cluster::{keygen, setup};
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Node, Options, Process, Registry, Role, Throttle, tree, wait};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// The registry's link: a pull takes a few seconds.
const RATE: u64 = 48 * MIB;
/// How far a reader may be ahead of what others hold.
const READ_AHEAD: u64 = 16 * MIB;
const NODES: &str = "[origin]\nread_ahead = \"16MiB\"\n";
/// Bytes that the registry has written and nobody has read: in the buffers of a few connections, through a proxy.
const IN_BUFFERS: u64 = 6 * MIB;

#[test]
fn a_killed_peer_keeps_its_pieces_and_fetches_only_the_rest() {
    let lab = Lab::new("killed-peer");
    let model = Model::one_file(&lab, 192);
    let registry = Registry::start(&lab, &[&model]);
    let link = Throttle::start(registry.address(), RATE);
    let mut cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 3,
            ..Options::default()
        },
    );
    let reference = model.reference(link.address());
    let blob = model.largest();
    let dirs = ["a", "b", "c"].map(|name| lab.path(name));
    let kept = thread::scope(|threads| {
        let mut commands = dirs
            .each_ref()
            .map(|dir| pull_through(&lab, cluster.peers[0].mirror(), &reference, dir));
        for (command, peer) in commands.iter_mut().zip(&cluster.peers).skip(1) {
            *command = pull_through(&lab, peer.mirror(), &reference, &lab.path(peer.name()));
        }
        let [mut doomed, rest @ ..] = commands;
        for mut command in rest {
            threads.spawn(move || run(&mut command));
        }
        let mut doomed = doomed
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait::until_true("a third of the pieces", SOON, || {
            cluster.peers[0].pieces(&blob.digest) * 3 > pieces(&cluster.peers[0], &blob.digest)
        });
        let kept = cluster.peers[0].pieces(&blob.digest);
        cluster.peers[0].kill();
        doomed.kill().unwrap();
        doomed.wait().unwrap();
        cluster.peers[0].restart();
        kept
    });
    let peer = &cluster.peers[0];
    let all = pieces(peer, &blob.digest);
    assert!(
        peer.pieces(&blob.digest) >= kept,
        "{} of {kept} pieces are left",
        peer.pieces(&blob.digest)
    );
    run(&mut pull_through(&lab, peer.mirror(), &reference, &dirs[0]));
    tree::assert_same(&model.files(), &dirs[0]);
    let (received, piece) = (
        ["peer", "seed"].map(|source| peer.received(source)).iter().sum::<u64>(),
        blob.size.div_ceil(all),
    );
    let rest = model.size() - kept * piece;
    assert!(
        received <= rest + 4 * piece,
        "{received} bytes received, {rest} were missing"
    );
    registry.assert_read_once(&model);
}

#[test]
fn when_the_reading_seed_dies_another_reads_at_most_the_unpublished_tail_again() {
    let lab = Lab::new("killed-seed");
    let model = Model::one_file(&lab, 160);
    let registry = Registry::start(&lab, &[&model]);
    let mut moments = ChaCha8Rng::seed_from_u64(20_261_123);
    let mut served = 0;
    for round in 0..if e2e::long() { 20 } else { 4 } {
        let at = moments.next_u64() % model.largest().size;
        kill_reader(&lab, &model, &registry, round, at);
        let now = registry.bytes_of(&model.largest().digest);
        let again = (now - served) - model.largest().size;
        println!(
            "round {round}: killed at {} MiB, {} MiB read again",
            at / MIB,
            again / MIB
        );
        assert!(
            again <= READ_AHEAD + IN_BUFFERS,
            "round {round}, killed at {at}: {again} bytes were read again"
        );
        served = now;
    }
    registry.assert_only_seeds();
}

/// A cold pull by two peers, whose reader dies once it has read this much.
fn kill_reader(lab: &Lab, model: &Model, registry: &Registry, round: usize, at: u64) {
    let link = Throttle::start(registry.address(), RATE);
    let options = Options {
        seeds: 2,
        peers: 2,
        seed_config: NODES,
        peer_config: NODES,
        ..Options::default()
    };
    let lab = &lab.part(&format!("round-{round}"));
    let mut cluster = Cluster::start(lab, &options);
    let reference = model.reference(link.address());
    let dirs = ["a", "b"].map(|name| lab.path(name));
    thread::scope(|threads| {
        for (dir, peer) in dirs.iter().zip(&cluster.peers) {
            let mut command = pull_through(lab, peer.mirror(), &reference, dir);
            threads.spawn(move || run(&mut command));
        }
        let seeds = &mut cluster.seeds;
        let reader = wait::until("the reader's progress", SOON, || {
            seeds.iter().position(|seed| seed.received("registry") > at)
        });
        seeds[reader].kill();
    });
    for dir in &dirs {
        tree::assert_same(&model.files(), dir);
    }
    drop(cluster);
    std::fs::remove_dir_all(lab.path("")).expect("nothing uses it any more");
}

#[test]
fn after_a_blackout_of_all_nodes_the_rest_is_read_and_nothing_twice() {
    let lab = Lab::new("blackout");
    let model = Model::one_file(&lab, 160);
    let registry = Registry::start(&lab, &[&model]);
    let link = Throttle::start(registry.address(), RATE);
    let options = Options {
        seeds: 1,
        peers: 2,
        seed_config: NODES,
        peer_config: NODES,
        ..Options::default()
    };
    let mut cluster = Cluster::start(&lab, &options);
    let reference = model.reference(link.address());
    let blob = model.largest();
    let begin = |peer: &Node| {
        let mut command = pull_through(
            &lab,
            peer.mirror(),
            &reference,
            &lab.path(peer.name().to_owned() + "-pulled"),
        );
        Process::start("doomed", &mut command, &lab.log("doomed"))
    };
    let doomed: Vec<_> = cluster.peers.iter().map(begin).collect();
    wait::until_true("half of it", SOON, || {
        cluster.seeds[0].received("registry") > blob.size / 2
    });
    for node in [&mut cluster.scheduler]
        .into_iter()
        .chain(&mut cluster.seeds)
        .chain(&mut cluster.peers)
    {
        node.kill();
    }
    drop(doomed);
    for node in [&mut cluster.scheduler]
        .into_iter()
        .chain(&mut cluster.seeds)
        .chain(&mut cluster.peers)
    {
        node.restart();
    }
    cluster.wait_joined(3);
    thread::scope(|threads| {
        for peer in &cluster.peers {
            let to = lab.path(format!("{}-pulled", peer.name()));
            let mut command = pull_through(&lab, peer.mirror(), &reference, &to);
            let files = model.files();
            threads.spawn(move || {
                run(&mut command);
                tree::assert_same(&files, &to);
            });
        }
    });
    wait::until_true("the registry's log", SOON, || {
        registry.bytes_of(&blob.digest) >= blob.size
    });
    let again = registry.bytes_of(&blob.digest) - blob.size;
    // What was on its way into the seed, at most: what it had proven is on its disk.
    assert!(again <= READ_AHEAD + IN_BUFFERS, "{again} bytes were read again");
}

#[test]
fn without_a_scheduler_pulls_go_on_and_new_ones_find_each_other() {
    let lab = Lab::new("killed-scheduler");
    let (running, held, cold) = (
        Model::one_file(&lab, 192),
        Model::small(&lab),
        Model::every_layer_type(&lab),
    );
    let registry = Registry::start(&lab, &[&running, &held, &cold]);
    let link = Throttle::start(registry.address(), RATE);
    let mut cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 4,
            ..Options::default()
        },
    );
    let pull = |peer: &Node, model: &Model| {
        let to = lab.path(format!("{}-{}", peer.name(), model.repository().replace('/', "-")));
        run(&mut pull_through(
            &lab,
            peer.mirror(),
            &model.reference(link.address()),
            &to,
        ));
        tree::assert_same(&model.files(), &to);
    };
    pull(&cluster.peers[0], &held);
    // A pull that is running when the scheduler dies.
    thread::scope(|threads| {
        let peers = &cluster.peers;
        threads.spawn(|| pull(&peers[0], &running));
        threads.spawn(|| pull(&peers[1], &running));
        wait::until_true("half of the pull", SOON, || {
            peers[1].received("peer") + peers[1].received("seed") > running.size() / 2
        });
        cluster.scheduler.kill();
    });
    registry.assert_read_once(&running);
    // One of blobs that others hold, and one of blobs that nobody has.
    pull(&cluster.peers[1], &held);
    registry.assert_read_once(&held);
    thread::scope(|threads| {
        for peer in &cluster.peers[1..3] {
            threads.spawn(|| pull(peer, &cold));
        }
    });
    registry.assert_read_once(&cold);
    // It comes back knowing nothing, and is told.
    cluster.scheduler.restart();
    cluster.wait_joined(5);
    // Models may share contents, such as an empty file; a swarm is known by its digest.
    let models = [&running, &held, &cold];
    let blobs: BTreeSet<&str> = models
        .iter()
        .flat_map(|model| model.blobs())
        .map(|blob| blob.digest.as_str())
        .collect();
    let known = || cluster.scheduler.metric("packswarm_scheduler_swarms", &[]) as usize;
    wait::until_true("every blob at the scheduler", SOON, || known() >= blobs.len());
    for model in [&running, &held, &cold] {
        pull(&cluster.peers[3], model);
        registry.assert_read_once(model);
    }
}

#[test]
fn nodes_that_know_no_scheduler_find_each_other_by_one_address() {
    let lab = Lab::new("no-scheduler");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let (key, memory) = (keygen(&lab, "cluster.key"), Arc::default());
    let seed = Node::start(setup(&lab, Role::Seed, "seed", "", &key), &memory);
    let config = format!("bootstrap = [\"{}\"]\n", seed.control());
    let peers = ["a", "b"].map(|name| Node::start(setup(&lab, Role::Peer, name, &config, &key), &memory));
    for peer in &peers {
        peer.wait_log("connected", SOON);
        let to = lab.path(format!("pulled-{}", peer.name()));
        run(&mut pull_through(
            &lab,
            peer.mirror(),
            &model.reference(registry.address()),
            &to,
        ));
        tree::assert_same(&model.files(), &to);
    }
    registry.assert_read_once(&model);
    assert!(peers[1].received("peer") > 0, "the second found the first as well");
}

/// Pieces of a blob, by a node's status.
fn pieces(node: &Node, digest: &str) -> u64 {
    node.blob(digest)
        .and_then(|blob| blob["pieces"].as_u64())
        .unwrap_or(u64::MAX / 4)
}
