//! Nodes stop, crawl, forge and forget in the middle of a pull by several.

use std::time::{Duration, Instant};

use e2e::proxy::Fault;
use e2e::pulling::assert_sound;
use e2e::{Cluster, Lab, Model, Node, Options, Proxy, Pulling, Registry, Role, Throttle, wait};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// The registry's link: a pull of a hundred MiB takes some seconds.
const RATE: u64 = 24 * MIB;
/// A reader that says nothing for so long is followed by another.
const SCHEDULER: &str = "[swarm]\nlease_ttl = \"2s\"\n";
const READ_AHEAD: u64 = 16 * MIB;
const NODES: &str = "[origin]\nread_ahead = \"16MiB\"\n";
/// Bytes that the registry has written and nobody has read.
const IN_BUFFERS: u64 = 6 * MIB;

struct Stage {
    lab: Lab,
    model: Model,
    registry: Registry,
    link: Throttle,
    cluster: Cluster,
}

impl Stage {
    fn new(name: &str, seeds: usize, peers: usize) -> Self {
        let lab = Lab::new(name);
        let registry = Registry::start(&lab, &[]);
        let model = Model::pushed(&lab, &registry, name, 1, &[(96 * MIB) as usize, 500_000]);
        let link = Throttle::start(registry.address(), RATE);
        let options = Options {
            seeds,
            peers,
            scheduler_config: SCHEDULER,
            seed_config: NODES,
            peer_config: NODES,
            ..Options::default()
        };
        let cluster = Cluster::start(&lab, &options);
        Self {
            lab,
            model,
            registry,
            link,
            cluster,
        }
    }

    /// All peers pull, and have got about half of it.
    fn half_way(&self) -> Vec<Pulling> {
        let reference = self.model.reference(self.link.address());
        let pulls = Pulling::begin_all(&self.lab, "pulled", &self.cluster.peers, &reference);
        let half = self.model.size() / 2;
        let got = |peer: &Node| peer.received("peer") + peer.received("seed") > half;
        wait::until_true("half of the pull", SOON, || self.cluster.peers.iter().any(got));
        pulls
    }

    /// Bytes of blobs that the registry has served beyond one of each.
    fn read_again(&self) -> u64 {
        let served = |blob: &e2e::model::Blob| self.registry.bytes_of(&blob.digest);
        let total = || -> u64 { self.model.blobs().iter().map(served).sum() };
        wait::until_true("the registry's log", SOON, || total() >= self.model.size());
        total() - self.model.size()
    }

    fn assert_sound(&self) {
        self.cluster.nodes().for_each(assert_sound);
    }
}

#[test]
fn a_peer_that_stands_still_holds_nobody_up() {
    let stage = Stage::new("stopped-peer", 1, 4);
    let pulls = stage.half_way();
    let stopped = &stage.cluster.peers[0];
    stopped.process().signal(Signal::STOP);
    let began = Instant::now();
    let mut pulls = pulls.into_iter();
    let held = pulls.next().expect("each peer pulls");
    for pull in pulls {
        pull.succeeds(&stage.model);
    }
    let took = began.elapsed();
    // Half of the model at the registry's rate, and what is lost by asking again.
    let smooth = Duration::from_secs_f64(stage.model.size() as f64 / 2.0 / RATE as f64);
    println!("the others were done {took:.1?} later, {smooth:.1?} at the registry's rate");
    assert!(took < smooth + Duration::from_secs(15), "{took:?}");
    stopped.process().signal(Signal::CONT);
    held.succeeds(&stage.model);
    assert_eq!(stage.read_again(), 0);
    stage.assert_sound();
}

#[test]
fn a_reader_that_stands_still_is_followed_by_another() {
    let stage = Stage::new("stopped-reader", 2, 3);
    let pulls = stage.half_way();
    let most = stage.cluster.seeds.iter().max_by_key(|seed| seed.received("registry"));
    let reader = most.expect("there are two");
    reader.process().signal(Signal::STOP);
    for pull in pulls {
        pull.succeeds(&stage.model);
    }
    reader.process().signal(Signal::CONT);
    let again = stage.read_again();
    println!("{} MiB were read again", again / MIB);
    assert!(again <= READ_AHEAD + IN_BUFFERS, "{again} bytes were read again");
    stage.registry_asked_by_seeds_only();
    stage.assert_sound();
}

impl Stage {
    /// Panics if a peer asked the registry for anything. The test itself has pushed the model.
    fn registry_asked_by_seeds_only(&self) {
        let read = |method: &str| method == "GET" || method == "HEAD";
        for entry in self.registry.requests().iter().filter(|entry| read(&entry.method)) {
            assert_eq!(entry.role(), Some("seed"), "{entry:?}");
        }
    }
}

#[test]
fn a_scheduler_that_forgets_everything_knows_it_again_within_seconds() {
    let mut stage = Stage::new("forgetful", 2, 3);
    let pulls = stage.half_way();
    stage.cluster.scheduler.kill();
    stage.cluster.scheduler.restart();
    let began = Instant::now();
    stage.cluster.wait_joined(5);
    let known = || stage.cluster.scheduler.metric("packswarm_scheduler_swarms", &[]) as usize;
    wait::until_true("the swarms", SOON, || known() >= stage.model.blobs().len());
    println!("it knew all nodes and blobs again after {:.1?}", began.elapsed());
    for pull in pulls {
        pull.succeeds(&stage.model);
    }
    assert_eq!(stage.read_again(), 0);
    stage.registry_asked_by_seeds_only();
    stage.assert_sound();
}

/// The first seed's registry gives it other bytes than everybody else's. So what it serves is wrong, and the midstates that
/// it signs fit what it serves.
#[test]
fn a_signer_of_false_midstates_is_found_out_and_the_truth_read_from_another() {
    let lab = Lab::new("forger");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "forged", 1, &[(24 * MIB) as usize, 300_000]);
    let liar = Proxy::start(registry.address());
    liar.when(usize::MAX, |seen| seen.path.contains("/blobs/"), Fault::Altered(1000));
    let link = Throttle::start(registry.address(), 0);
    let lied_to = format!(
        "{NODES}[registry.\"{}\"]\nendpoint = \"{}\"\n",
        link.address(),
        liar.address()
    );
    let options = Options {
        seeds: 1,
        peers: 3,
        seed_config: &lied_to,
        ..Options::default()
    };
    let mut cluster = Cluster::start(&lab, &options);
    let reference = model.reference(link.address());
    let pulls = Pulling::begin_all(&lab, "pulled", &cluster.peers, &reference);
    let forger = &cluster.seeds[0];
    forger.wait_log("the chain does not close", SOON);
    // An honest one comes.
    let honest = cluster.node(&lab, Role::Seed, "honest", NODES);
    for pull in pulls {
        pull.succeeds(&model);
    }
    cluster.seeds.push(honest);
    for peer in &cluster.peers {
        assert_sound(peer);
        assert_eq!(peer.received("registry"), 0, "{}", peer.name());
    }
    let complaints = cluster.scheduler.status()["complaints_forged_midstates"].as_u64();
    assert!(complaints > Some(0), "nobody said anything of it");
}
