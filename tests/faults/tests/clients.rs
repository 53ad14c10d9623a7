//! Clients that are many, slow, or say nothing.

use std::io::Read;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use e2e::http::Request;
use e2e::pulling::assert_sound;
use e2e::{Cluster, Lab, Model, Node, Options, Pulling, Registry, Throttle, memory, tree, wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn blob_path(model: &Model, at: std::net::SocketAddr) -> String {
    format!("/v2/{}/blobs/{}?ns={at}", model.repository(), model.largest().digest)
}

#[test]
fn a_hundred_clients_for_a_cold_blob_on_one_node_are_one_download() {
    let lab = Lab::new("hundred-clients");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "wanted", 1, &[(16 * MIB) as usize]);
    let link = Throttle::start(registry.address(), 16 * MIB);
    let options = Options {
        seeds: 1,
        peers: 1,
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let (peer, blob) = (&cluster.peers[0], model.largest());
    let path = blob_path(&model, link.address());
    thread::scope(|threads| {
        for client in 0..100 {
            let path = &path;
            threads.spawn(move || {
                let answer = Request::get(peer.mirror(), path).open().expect("it answers");
                assert_eq!(answer.status, 200, "client {client}");
                assert_eq!(tree::digest(answer), blob.digest, "client {client}");
            });
        }
    });
    let received: u64 = ["peer", "seed", "registry"]
        .map(|source| peer.received(source))
        .iter()
        .sum();
    assert!(
        received < blob.size + MIB,
        "{received} bytes came for a blob of {}",
        blob.size
    );
    assert_eq!(registry.bytes_of(&blob.digest), blob.size);
    cluster.memory.assert_below(256 * MIB);
}

#[test]
fn slow_readers_hold_neither_memory_nor_anybody_up() {
    let lab = Lab::new("slow-readers");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "slow", 1, &[(64 * MIB) as usize]);
    let options = Options {
        seeds: 1,
        peers: 1,
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let (peer, blob) = (&cluster.peers[0], model.largest());
    let path = blob_path(&model, registry.address());
    let begin = |_| {
        let mut answer = Request::get(peer.mirror(), &path).open().expect("it answers");
        let mut head = vec![0; 1000];
        answer.read_exact(&mut head).expect("it begins");
        (head, answer)
    };
    let slow: Vec<_> = (0..64).map(begin).collect();
    let answer = Request::get(peer.mirror(), &path).open().expect("it answers");
    assert_eq!(tree::digest(answer), blob.digest, "a quick one among slow ones");
    let used = memory::rss_anon(peer.process().id()).expect("it runs");
    println!("{} MiB for 64 clients that do not read", used / MIB);
    assert!(used < 160 * MIB, "{} MiB", used / MIB);
    for (head, rest) in slow.into_iter().take(4) {
        assert_eq!(tree::digest(head.as_slice().chain(rest)), blob.digest);
    }
    assert_eq!(registry.bytes_of(&blob.digest), blob.size);
    assert_sound(peer);
}

/// How many files a process has open.
fn descriptors(node: &Node) -> usize {
    let path = format!("/proc/{}/fd", node.process().id());
    std::fs::read_dir(path).expect("it runs").count()
}

#[test]
fn a_thousand_idle_connections_are_borne_and_then_closed() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("a process may have as many files as its limit says");
    let lab = Lab::new("idle-connections");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "idle", 1, &[(4 * MIB) as usize]);
    let config = "[http]\nhead = \"10s\"\n";
    let options = Options {
        seeds: 1,
        peers: 1,
        peer_config: config,
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let peer = &cluster.peers[0];
    let before = descriptors(peer);
    let connect = |_| TcpStream::connect(peer.mirror()).expect("it listens");
    let idle: Vec<TcpStream> = (0..1000).map(connect).collect();
    wait::until_true("a thousand connections", SOON, || descriptors(peer) >= before + 1000);
    let used = memory::rss_anon(peer.process().id()).expect("it runs");
    println!("{} MiB with a thousand idle connections", used / MIB);
    assert!(used < 128 * MIB, "{} MiB", used / MIB);
    let reference = model.reference(registry.address());
    Pulling::begin(&lab, "pulled", peer, &reference).succeeds(&model);
    // They never say what they want, and so they go.
    wait::until_true("the end of the idle connections", SOON, || {
        descriptors(peer) < before + 100
    });
    drop(idle);
    assert_sound(peer);
}

/// With `tests/run --long`, ten thousand.
#[test]
fn a_model_of_very_many_small_files_is_pulled_by_several_nodes() {
    let lab = Lab::new("small-blobs");
    let registry = Registry::start(&lab, &[]);
    let count = if e2e::long() { 10_000 } else { 200 };
    let sizes: Vec<usize> = (0..count).map(|number| 100 + number * 7 % 9000).collect();
    let model = Model::pushed(&lab, &registry, "many", 1, &sizes);
    let options = Options {
        seeds: 2,
        peers: 3,
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let began = std::time::Instant::now();
    let reference = model.reference(registry.address());
    for pull in Pulling::begin_all(&lab, "pulled", &cluster.peers, &reference) {
        pull.succeeds(&model);
    }
    println!("{count} blobs at three nodes in {:.1?}", began.elapsed());
    for blob in model.blobs() {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
    }
    cluster.nodes().for_each(assert_sound);
    cluster.memory.assert_below(256 * MIB);
}
