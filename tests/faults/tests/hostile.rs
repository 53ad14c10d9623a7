//! Bytes that mean harm, on every port of every node, in the middle of a pull by several.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use e2e::pulling::assert_sound;
use e2e::{Cluster, Lab, Model, Options, Pulling, Registry, Throttle, memory};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const MIB: u64 = 1 << 20;
/// What nodes have that do nothing, and room for what a flood may make them hold.
const MEMORY: u64 = 160 * MIB;
/// A server that neither answers nor closes is left alone.
const PATIENCE: Duration = Duration::from_millis(300);

/// Openings that parsers have stumbled over.
fn openings(random: &[u8]) -> Vec<Vec<u8>> {
    let long = vec![b'a'; 200_000];
    let texts: [&[u8]; 9] = [
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/x/blobs/sha256:%00%ff?ns=%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/../../etc/passwd HTTP/1.1\r\nHost: x\r\nRange: bytes=18446744073709551615-0\r\n\r\n",
        b"POST /api/v1/gc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff\xff\xff",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\nX: ",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    all.push([b"GET /v2/", long.as_slice(), b" HTTP/1.1\r\n\r\n"].concat());
    all.push([b"GET / HTTP/1.1\r\n", "X: y\r\n".repeat(5000).as_bytes(), b"\r\n"].concat());
    all.push(random.to_vec());
    all
}

/// Throws bytes at a TCP port. Whether the other end still listens, and when it closes, is its affair.
fn throw(port: SocketAddr, bytes: &[u8]) -> u64 {
    let Ok(mut stream) = TcpStream::connect_timeout(&port, PATIENCE) else {
        return 0;
    };
    let sent = stream
        .set_write_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(bytes));
    let mut answer = [0; 4096];
    // An answer may be long; its beginning is enough.
    let _ = sent.and_then(|()| stream.read(&mut answer));
    bytes.len() as u64
}

fn attack(seed: u64, ports: &[SocketAddr], data: &[SocketAddr], over: &AtomicBool, thrown: &AtomicU64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    while !over.load(Ordering::Relaxed) {
        let mut noise = vec![0; 1 + random.next_u32() as usize % 60_000];
        random.fill_bytes(&mut noise);
        for opening in openings(&noise) {
            let port = ports[random.next_u32() as usize % ports.len()];
            thrown.fetch_add(throw(port, &opening), Ordering::Relaxed);
        }
        for datagram in noise.chunks_mut(1200) {
            // Half of them look like a QUIC handshake's first packet.
            if random.next_u32() % 2 == 0 && datagram.len() > 20 {
                let first = 0xc0 | (datagram[0] & 0x0f);
                datagram[..6].copy_from_slice(&[first, 0, 0, 0, 1, 8]);
            }
            let target = data[random.next_u32() as usize % data.len()];
            // The socket's buffer may be full; then there is enough noise as it is.
            let _ = socket.send_to(datagram, target);
        }
    }
}

#[test]
fn noise_on_every_port_neither_stops_a_pull_nor_fills_memory() {
    let lab = Lab::new("hostile");
    let registry = Registry::start(&lab, &[]);
    let model = Model::pushed(&lab, &registry, "hostile", 1, &[(64 * MIB) as usize, 300_000]);
    // Some six seconds, in the test command; a minute at length.
    let rate = if e2e::long() { MIB } else { 10 * MIB };
    let link = Throttle::start(registry.address(), rate);
    let options = Options {
        seeds: 1,
        peers: 3,
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let mut ports = vec![cluster.scheduler.control(), cluster.scheduler.admin()];
    for node in cluster.nodes() {
        ports.extend([node.control(), node.admin()]);
    }
    ports.extend(cluster.peers.iter().map(e2e::Node::mirror));
    let data: Vec<SocketAddr> = cluster.nodes().map(e2e::Node::data).collect();
    let (over, thrown) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|threads| {
        for seed in 0..3 {
            let (ports, data, over, thrown) = (&ports, &data, &over, &thrown);
            threads.spawn(move || attack(seed, ports, data, over, thrown));
        }
        let reference = model.reference(link.address());
        let pulls = Pulling::begin_all(&lab, "pulled", &cluster.peers, &reference);
        // Whatever comes of them, the noise must end before the scope does.
        let pulled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pulls.into_iter().for_each(|pull| pull.succeeds(&model));
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = pulled {
            std::panic::resume_unwind(panic);
        }
    });
    println!("{} MiB of noise", thrown.load(Ordering::Relaxed) / MIB);
    assert!(thrown.load(Ordering::Relaxed) > MIB);
    cluster.nodes().for_each(assert_sound);
    for node in cluster.nodes().chain([&cluster.scheduler]) {
        let used = memory::rss_anon(node.process().id()).expect("it runs");
        println!("{}: {} MiB", node.name(), used / MIB);
        assert!(!node.log().contains("panicked"), "{}", node.name());
    }
    cluster.memory.assert_below(MEMORY);
    for blob in model.blobs() {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size);
    }
}
