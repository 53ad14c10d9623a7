//! The network parts in the middle of a pull by several nodes, and heals.
//!
//! What the registry may serve then: each byte once to each side that must read it for itself. A side that has somebody
//! who reads already reads nothing twice; one whose reader is on the other side reads again what it does not hold. Once the
//! parts meet again, what either of them holds is read no more.

use std::time::{Duration, Instant};

use e2e::pulling::assert_sound;
use e2e::registry::Service;
use e2e::{Cluster, Host, Lab, Link, Model, Network, Node, Options, Pulling, Registry, tree, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// The registry's link, in megabits: a pull takes some ten seconds, the half of it five.
const RATE: u64 = 40;
const BLOB: u64 = 48 * MIB;
const SMALL: usize = 700_000;
/// Silence is noticed soon, so that the test need not wait for long.
const SCHEDULER: &str = "[swarm]\nlease_ttl = \"2s\"\n[control]\nping_interval = \"2s\"\n";
const READ_AHEAD: u64 = 8 * MIB;
const NODES: &str = "[origin]\nread_ahead = \"8MiB\"\nwait = \"10s\"\n[control]\nping_interval = \"2s\"\n\
                     [transport]\nidle_timeout = \"6s\"\nkeep_alive = \"2s\"\n";
/// Bytes that the registry has written and nobody has read.
const IN_BUFFERS: u64 = 6 * MIB;

struct Stage {
    lab: Lab,
    network: Network,
    model: Model,
    registry: Registry,
    cluster: Cluster,
    reference: String,
}

impl Stage {
    /// A scheduler, two seeds and four peers, each on its host, and a slow registry.
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let model = Model::weights(&lab, name, &[BLOB as usize, SMALL]);
        let network = Network::new(Link::OPEN);
        let at = network.host_with("registry", Link::mbit(RATE));
        let registry = Registry::in_host(&lab, "registry", &[&model], Service::Open, &at);
        let config = format!("{NODES}{}", registry.insecure());
        let options = Options {
            seeds: 2,
            peers: 4,
            scheduler_config: SCHEDULER,
            seed_config: &config,
            peer_config: &config,
            network: Some(&network),
        };
        let cluster = Cluster::start(&lab, &options);
        let reference = model.reference(registry.address());
        Self {
            lab,
            network,
            model,
            registry,
            cluster,
            reference,
        }
    }

    /// All peers pull. Returns when half of the large blob has been read, with the seed that reads it and the one that does not.
    fn half_way(&self) -> (Vec<Pulling>, &Node, &Node) {
        let pulls = Pulling::begin_all(&self.lab, "pulled", &self.cluster.peers, &self.reference);
        let far = |node: &Node| node.received("registry") > BLOB / 2;
        let seeds = &self.cluster.seeds;
        wait::until_true("half of the pull", SOON, || seeds.iter().any(far));
        let everybody = || {
            let peers = &self.cluster.peers;
            peers.iter().all(|peer| self.held(peer) > BLOB / 4)
        };
        wait::until_true("a share of it everywhere", SOON, everybody);
        if far(&seeds[0]) {
            (pulls, &seeds[0], &seeds[1])
        } else {
            (pulls, &seeds[1], &seeds[0])
        }
    }

    fn host(&self, node: &Node) -> Host {
        self.network.host(node.name())
    }

    /// Parts `seed` and the last two peers from the other seed, the first two peers and the scheduler; and from the registry,
    /// unless they keep it.
    fn part(&self, seed: &Node, keeps_registry: bool) {
        let (scheduler, peers) = (&self.cluster.scheduler, &self.cluster.peers);
        let other = self
            .cluster
            .seeds
            .iter()
            .find(|other| other.peer_id() != seed.peer_id());
        let other = other.expect("there are two");
        let mut one = [scheduler, other, &peers[0], &peers[1]]
            .map(|node| self.host(node))
            .to_vec();
        if !keeps_registry {
            one.push(self.network.host("registry"));
        }
        let two = [seed, &peers[2], &peers[3]].map(|node| self.host(node));
        self.network
            .part(&one.iter().collect::<Vec<_>>(), &two.iter().collect::<Vec<_>>());
    }

    /// Bytes of the large blob that a node holds, about.
    fn held(&self, node: &Node) -> u64 {
        let Some(blob) = node.blob(&self.model.largest().digest) else {
            return 0;
        };
        let of = |field: &str| blob[field].as_u64().unwrap_or(0);
        BLOB * of("held") / of("pieces").max(1)
    }

    /// Bytes of all blobs that the registry has served beyond one of each.
    fn read_again(&self) -> u64 {
        let served = |blob: &e2e::model::Blob| self.registry.bytes_of(&blob.digest);
        let total = || -> u64 { self.model.blobs().iter().map(served).sum() };
        wait::until_true("the registry's log", SOON, || total() >= self.model.size());
        total() - self.model.size()
    }

    /// After healing: a peer that held nothing gets everything, the registry serves no more of it, and all is right.
    fn assert_whole_again(&self) {
        self.cluster.wait_joined(6);
        // The registry's log may have yet to say what a reader that was cut off was sent: here the readers' own count is exact.
        let read = || self.cluster.nodes().map(|node| node.received("registry")).sum::<u64>();
        let before = read();
        let config = format!("{NODES}{}", self.registry.insecure());
        let late = self.cluster.node(&self.lab, e2e::Role::Peer, "late", &config);
        Pulling::begin(&self.lab, "late", &late, &self.reference).succeeds(&self.model);
        assert_eq!(
            late.received("registry") + read(),
            before,
            "what is held is not read again"
        );
        self.cluster.nodes().chain([&late]).for_each(assert_sound);
    }
}

/// No file of a pull that has not ended is there under its name unless it is as it was pushed.
fn assert_nothing_half_done(pull: &Pulling, model: &Model) {
    for path in tree::files(pull.to())
        .keys()
        .filter(|path| model.files().join(path).exists())
    {
        tree::assert_same_bytes(&model.files().join(path), &pull.to().join(path));
    }
}

/// The side without the reader, the scheduler and the registry can do nothing but share what it holds. The rest comes when it is
/// back, and the registry notices nothing of it all.
#[test]
fn a_side_without_a_registry_shares_what_it_holds_and_gets_the_rest_afterwards() {
    let stage = Stage::new("parted-without-registry");
    let (mut pulls, _, idle) = stage.half_way();
    stage.part(idle, false);
    let cut_off = pulls.split_off(2);
    for pull in pulls {
        pull.succeeds(&stage.model);
    }
    let lost = &stage.cluster.peers[2..];
    let alike = || stage.held(&lost[0]) == stage.held(&lost[1]);
    wait::until_true("the cut off have what either has", SOON, alike);
    assert!(
        lost.iter().all(|peer| stage.held(peer) < BLOB),
        "it came through a wall"
    );
    cut_off
        .iter()
        .for_each(|pull| assert_nothing_half_done(pull, &stage.model));
    let healed = Instant::now();
    stage.network.rejoin();
    finish(&stage, cut_off, lost);
    println!("the cut off were done {:.1?} after healing", healed.elapsed());
    assert_eq!(stage.read_again(), 0);
    stage.assert_whole_again();
}

/// The reader is on the side without the scheduler and the registry. The other seed goes on from what the scheduler has heard of.
#[test]
fn a_reader_that_is_cut_off_is_followed_and_reads_no_more_afterwards() {
    let stage = Stage::new("parted-reader");
    let (mut pulls, reader, _) = stage.half_way();
    stage.part(reader, false);
    let cut_off = pulls.split_off(2);
    for pull in pulls {
        pull.succeeds(&stage.model);
    }
    cut_off
        .iter()
        .for_each(|pull| assert_nothing_half_done(pull, &stage.model));
    stage.network.rejoin();
    finish(&stage, cut_off, &stage.cluster.peers[2..]);
    let again = stage.read_again();
    println!("{} KiB were read again", again / 1024);
    assert!(again <= READ_AHEAD + IN_BUFFERS, "{again} bytes were read again");
    stage.assert_whole_again();
}

/// Both sides reach the registry: the one without the scheduler finds itself a reader, which reads what that side does not hold.
#[test]
fn two_sides_that_reach_the_registry_both_finish_and_read_nothing_when_they_meet() {
    let stage = Stage::new("parted-twice");
    let (pulls, _, idle) = stage.half_way();
    stage.part(idle, true);
    let two = [&stage.cluster.peers[2], &stage.cluster.peers[3]];
    let held = two.map(|node| stage.held(node)).into_iter().max().unwrap_or(0);
    for pull in pulls {
        pull.succeeds(&stage.model);
    }
    let again = stage.read_again();
    println!(
        "{} MiB were read twice, {} MiB were missing on one side",
        again / MIB,
        (BLOB - held) / MIB
    );
    assert!(
        again <= BLOB - held + IN_BUFFERS,
        "{again} bytes were read again, of which a side had {held}"
    );
    stage.network.rejoin();
    stage.assert_whole_again();
}

/// Ends pulls that were cut off: a client that has lost patience meanwhile asks again.
fn finish(stage: &Stage, pulls: Vec<Pulling>, peers: &[Node]) {
    for (mut pull, peer) in pulls.into_iter().zip(peers) {
        if pull.has_failed() {
            pull.fails(&stage.model);
            pull = Pulling::begin(&stage.lab, "again", peer, &stage.reference);
        }
        pull.succeeds(&stage.model);
    }
}
