//! One cluster lives through many rounds: in each a model that nobody has seen is pulled by every peer while something dies or
//! stands still, at a moment that a seed decides. Afterwards nothing that a store calls whole is wrong, and those who were
//! never killed have no more files, threads, tasks and memory than before.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::clients::pull_through;
use e2e::lab::binary;
use e2e::process::{output, run};
use e2e::pulling::{assert_sound, assert_store_sound};
use e2e::{Cluster, Lab, Model, Node, Options, Registry, Throttle, memory, tree, wait};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
const SEED: u64 = 20_261_123;
/// Two blobs per round, and a small one.
const SIZES: [usize; 3] = [5 << 20, 2_000_000, 1000];
/// Faults happen within so many milliseconds after a pull has begun: it takes about a second.
const WITHIN: u64 = 1200;
/// The registry's link.
const RATE: u64 = 16 * MIB;
/// A store holds some twenty rounds' models, so that others go while these come.
const NODES: &str = "[store]\ncapacity = \"160MiB\"\n[origin]\nread_ahead = \"2MiB\"\n";
const SCHEDULER: &str = "[swarm]\nlease_ttl = \"2s\"\n";
/// What a dead reader may have read in vain: its read-ahead, and what the sockets held.
const IN_VAIN: u64 = 8 * MIB;
const MINUTE: Duration = Duration::from_secs(60);
/// Rounds before the first look, so that what grows once has grown.
const WARM: usize = 10;
/// Rounds between two lines of what two nodes have.
const TOLD: usize = 20;

/// What happens to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillPeer(usize),
    KillSeed,
    KillScheduler,
    StopPeer(usize),
    StopSeed,
}

impl Fault {
    /// The first peer and the first seed are never killed: they are watched.
    fn draw(random: &mut ChaCha8Rng) -> Self {
        match random.next_u32() % 10 {
            0..=3 => Self::KillPeer(1 + random.next_u32() as usize % 3),
            4 | 5 => Self::KillSeed,
            6 => Self::KillScheduler,
            7 | 8 => Self::StopPeer(random.next_u32() as usize % 4),
            _ => Self::StopSeed,
        }
    }

    const fn kills(self) -> bool {
        matches!(self, Self::KillPeer(_) | Self::KillSeed | Self::KillScheduler)
    }

    fn victim(self, cluster: &mut Cluster) -> &mut Node {
        match self {
            Self::KillPeer(peer) | Self::StopPeer(peer) => &mut cluster.peers[peer],
            Self::KillSeed => &mut cluster.seeds[1],
            Self::StopSeed => &mut cluster.seeds[0],
            Self::KillScheduler => &mut cluster.scheduler,
        }
    }
}

/// What a process has.
#[derive(Debug, Clone, Copy)]
struct Used {
    files: usize,
    threads: usize,
    tasks: u64,
    memory: u64,
}

impl Used {
    fn by(node: &Node) -> Self {
        let list = |what: &str| {
            let path = format!("/proc/{}/{what}", node.process().id());
            fs::read_dir(path).expect("it runs").count()
        };
        Self {
            files: list("fd"),
            threads: list("task"),
            tasks: node.status()["tasks"].as_u64().expect("a count"),
            memory: memory::rss_anon(node.process().id()).expect("it runs"),
        }
    }
}

/// Pulls until it is done: who dies under a client is back soon.
fn pull(lab: &Lab, node: &str, mirror: std::net::SocketAddr, reference: &str, model: &Model) {
    let to = lab.path(format!("pulled-{node}"));
    wait::until_true("a pull's end", SOON * 2, || {
        output(&mut pull_through(lab, mirror, reference, &to)).status.success()
    });
    tree::assert_same(&model.files(), &to);
    fs::remove_dir_all(to).expect("it is ours");
}

/// One round. Returns how many bytes the registry served beyond the model's.
fn round(
    lab: &Lab,
    cluster: &mut Cluster,
    stage: &(Registry, Throttle),
    number: usize,
    random: &mut ChaCha8Rng,
) -> (Fault, u64) {
    let (registry, link) = stage;
    let lab = lab.part("round");
    let model = Model::pushed(&lab, registry, &format!("m{number}"), number as u64, &SIZES);
    let fault = Fault::draw(random);
    let moment = Duration::from_millis(u64::from(random.next_u32()) % WITHIN);
    let pause = Duration::from_millis(100 + u64::from(random.next_u32()) % 500);
    let reference = model.reference(link.address());
    let mirrors: Vec<_> = cluster
        .peers
        .iter()
        .map(|peer| (peer.name().to_owned(), peer.mirror()))
        .collect();
    thread::scope(|threads| {
        // The one whose node is killed has another mirror afterwards, and begins then.
        let killed = |name: &str| matches!(fault, Fault::KillPeer(peer) if mirrors[peer].0 == name);
        let others: Vec<_> = mirrors.iter().filter(|(name, _)| !killed(name)).collect();
        for (name, mirror) in others {
            let (lab, reference, model) = (&lab, &reference, &model);
            threads.spawn(move || pull(lab, name, *mirror, reference, model));
        }
        let doomed = mirrors.iter().find(|(name, _)| killed(name)).map(|(name, mirror)| {
            let to = lab.path(format!("doomed-{name}"));
            let mut command = pull_through(&lab, *mirror, &reference, &to);
            e2e::Process::start(name, &mut command, &lab.log("doomed"))
        });
        // The moment is the test's input, not something to be waited for.
        thread::sleep(moment);
        let victim = fault.victim(cluster);
        if fault.kills() {
            victim.kill();
            drop(doomed);
            victim.restart();
        } else {
            victim.process().signal(Signal::STOP);
            thread::sleep(pause);
            victim.process().signal(Signal::CONT);
        }
        if let Fault::KillPeer(peer) = fault {
            let node = &cluster.peers[peer];
            pull(&lab, node.name(), node.mirror(), &reference, &model);
        }
    });
    let served = || -> u64 { model.blobs().iter().map(|blob| registry.bytes_of(&blob.digest)).sum() };
    wait::until_true("the registry's log", SOON, || served() >= model.size());
    let again = served() - model.size();
    fs::remove_dir_all(lab.path("")).expect("it is ours");
    (fault, again)
}

/// Forty rounds, or as many as a minute holds; two hundred and forty with `tests/run --long`.
#[test]
fn a_cluster_lives_through_rounds_of_kills_and_loses_nothing() {
    let lab = Lab::new("soak");
    let rounds = if e2e::long() { 240 } else { 40 };
    let registry = Registry::start(&lab, &[]);
    let link = Throttle::start(registry.address(), RATE);
    let stage = (registry, link);
    let options = Options {
        seeds: 2,
        peers: 4,
        scheduler_config: SCHEDULER,
        seed_config: NODES,
        peer_config: NODES,
        ..Options::default()
    };
    let mut cluster = Cluster::start(&lab, &options);
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let began = Instant::now();
    let (mut kills, mut stops, mut in_vain, mut before) = (0, 0, 0, Vec::new());
    let mut done = 0;
    for number in 0..rounds {
        if !e2e::long() && number > 2 * WARM && began.elapsed() > MINUTE {
            break;
        }
        done = number + 1;
        if number == WARM {
            before = [&cluster.seeds[0], &cluster.peers[0]].map(Used::by).to_vec();
        }
        if number.is_multiple_of(TOLD) {
            let [seed, peer] = [&cluster.seeds[0], &cluster.peers[0]].map(Used::by);
            println!("before round {number}: seed-0 {seed:?}, peer-0 {peer:?}");
        }
        let (fault, again) = round(&lab, &mut cluster, &stage, number, &mut random);
        assert!(
            again <= IN_VAIN,
            "round {number}, {fault:?}: {again} bytes were read in vain"
        );
        in_vain += again;
        if fault.kills() {
            kills += 1;
        } else {
            stops += 1;
        }
    }
    let took = began.elapsed();
    cluster.nodes().for_each(assert_sound);
    cluster.wait_joined(6);
    for (node, before) in [&cluster.seeds[0], &cluster.peers[0]].into_iter().zip(before) {
        let what = format!("{} with no more than it had in round {WARM}: {before:?}", node.name());
        // Connections and files that are no longer used go after a while.
        let mut after = Used::by(node);
        wait::until_ok(&what, SOON, || {
            after = Used::by(node);
            let is_right = after.files <= before.files + 16
                && after.threads <= before.threads + 4
                && after.tasks <= before.tasks + 16
                && after.memory <= before.memory + 24 * MIB;
            if is_right { Ok(()) } else { Err(format!("{after:?}")) }
        });
        println!(
            "{}: {before:?} after {WARM} rounds, {after:?} after {done}",
            node.name()
        );
    }
    let moved: u64 = cluster
        .nodes()
        .map(|node| {
            node.metric("packswarm_mirror_bytes_total", &[]) as u64
                + node.metric("packswarm_sent_bytes_total", &[]) as u64
        })
        .sum();
    let mut lost = 0;
    let mut stored = 0;
    for node in cluster.seeds.iter_mut().chain(&mut cluster.peers) {
        let logged = node.log();
        assert!(!logged.contains("panicked"), "{}", node.name());
        node.stop();
        let data = node.setup().data.clone();
        stored += assert_store_sound(&data);
        let said = run(Command::new(binary())
            .args(["cache", "verify", "--data-dir"])
            .arg(&data));
        lost += said.lines().filter(|line| line.contains("damaged")).count();
    }
    println!(
        "{done} rounds in {took:.0?}, seed {SEED}: {kills} kills, {stops} stops; {} MiB given to clients and neighbours since \
         the last restarts, {} MiB read from the registry in vain, {} MiB in stores at the end; damaged blobs: {lost}",
        moved / MIB,
        in_vain / MIB,
        stored / MIB
    );
    assert_eq!(lost, 0);
}
