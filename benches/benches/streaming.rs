//! How far a client that reads through its node's mirror is behind the download, while a cold blob arrives.
//!
//! `cargo bench -p benches --bench streaming`. The registry, the scheduler, two seeds and the peers are in this process, on
//! loopback; the registry and every node keep to the same rate, as behind links of one speed. All peers' clients ask for the
//! blob at once, and nobody has it. Every few milliseconds what each client has is compared with the pieces that its node has
//! proven. The last columns say what the client waits for at its start and its end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::Outcome;
use benches::client::Client;
use benches::lab::{self, Lab, Node};
use peer::Rates;
use piece::{Digest, Geometry};
use testbed::Options;
use wire::control::Role;

/// Bytes of the blob, and bytes per second of the registry and of each node, up and down.
const RUNS: [(u64, u64); 3] = [(64 << 20, 12_500_000), (256 << 20, 50_000_000), (1 << 30, 100_000_000)];
const PEERS: usize = 4;
const SEEDS: usize = 2;
/// How often a client and its node are compared.
const LOOK: Duration = Duration::from_millis(10);

/// What one peer's client saw.
struct Seen {
    first_byte: Duration,
    /// The most that it was behind, over the blob.
    behind: f64,
    /// From the node's last piece to the client's last byte.
    after: Duration,
    all: Duration,
}

fn main() -> ExitCode {
    println!(
        "  MiB    MB/s   piece times to the first byte   most behind, % of the blob   all, s   ends after its node, ms"
    );
    for (size, rate) in RUNS {
        if let Err(error) = measure(size, rate) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(size: u64, rate: u64) -> Outcome<()> {
    let registry = Options {
        total: Some(rate),
        ..Options::default()
    };
    let lab = Lab::start_with(Path::new(env!("CARGO_TARGET_TMPDIR")), registry)?.with_scheduler()?;
    let rates = Rates {
        upload: rate,
        download: rate,
        ..Rates::default()
    };
    let nodes = |role, count| -> Outcome<Vec<Node>> {
        let node = |_| lab.node_within(role, &transport::Config::default(), rates);
        (0..count).map(node).collect()
    };
    let (seeds, peers) = (nodes(Role::Seed, SEEDS)?, nodes(Role::Peer, PEERS)?);
    let artifact = lab::random_files(size, &[size]);
    lab.publish("streamed", &artifact);
    let blob = artifact.files()[0].content.digest();
    for peer in &peers {
        Client::connect(peer.mirror())?.get(&lab.manifest(&artifact.digest()), None)?;
    }
    let geometry = Geometry::of(size);
    let seen: Outcome<Vec<Seen>> = thread::scope(|threads| {
        let path = lab.blob(&blob);
        let clients: Vec<_> = peers
            .iter()
            .map(|peer| {
                let path = path.clone();
                threads.spawn(move || stream(peer, &path, &blob, &geometry).map_err(|error| error.to_string()))
            })
            .collect();
        let joined = clients
            .into_iter()
            .map(|client| client.join().expect("no client panics"));
        joined.map(|seen| seen.map_err(Into::into)).collect()
    });
    let piece_s = geometry.piece_len() as f64 / rate as f64;
    for seen in seen? {
        println!(
            "{:>5}  {:>6.1}   {:>29.2}   {:>26.1}   {:>6.2}   {:>23}",
            size >> 20,
            rate as f64 / 1e6,
            seen.first_byte.as_secs_f64() / piece_s,
            seen.behind * 100.0,
            seen.all.as_secs_f64(),
            seen.after.as_millis(),
        );
    }
    seeds.into_iter().chain(peers).for_each(Node::stop);
    Ok(())
}

/// Streams the blob through the peer's mirror, and watches both.
fn stream(peer: &Node, path: &str, blob: &Digest, geometry: &Geometry) -> Outcome<Seen> {
    let begun = Instant::now();
    let came = AtomicU64::new(0);
    thread::scope(|threads| {
        let client = threads.spawn(|| {
            let mut client = Client::connect(peer.mirror()).map_err(|error| error.to_string())?;
            let answer = client.follow(path, None, |bytes| came.store(bytes, Ordering::Relaxed));
            answer
                .map(|answer| (answer, begun.elapsed()))
                .map_err(|error| error.to_string())
        });
        let (mut behind, mut whole) = (0.0f64, None);
        while !client.is_finished() {
            let held = peer.pieces_of(blob);
            // The client's count is read after the node's, so that what comes in between does not count against it.
            let proven = (u64::from(held) * geometry.piece_len()).min(geometry.size());
            let late = proven.saturating_sub(came.load(Ordering::Relaxed));
            behind = behind.max(late as f64 / geometry.size() as f64);
            if held == geometry.count() {
                whole.get_or_insert_with(|| begun.elapsed());
            }
            thread::sleep(LOOK);
        }
        let (answer, all) = client.join().expect("the client does not panic")?;
        Ok(Seen {
            first_byte: answer.first_byte,
            behind,
            after: all.saturating_sub(whole.unwrap_or(all)),
            all,
        })
    })
}
