//! What a node pays for a blob that a neighbour holds: the whole role at both ends, with verification, store and disk.
//!
//! `cargo bench -p benches --bench exchange_full`. A seed holds a blob; a peer is asked for it through its mirror by a
//! client that hangs up at the first byte, and the clock stops when the peer holds it whole: verified, written, synced
//! and renamed. Both nodes, with a scheduler and a registry that have nothing to do, are in this process, each on a
//! runtime of one thread, and all processor time of the process counts, the kernel's included. The seed's file is in the
//! page cache; the peer's is new in every run, so every page of it is allocated. On `memory` (tmpfs) that is all that
//! writing means; on `disk` there are the file system and its sync as well. Loopback takes packets of any size, so the
//! payload's bound stands for the MTU.

use std::path::Path;

use benches::client::Client;
use benches::cost::{Cost, Stopwatch};
use benches::lab::{self, Lab, Node};
use benches::{GIB, Outcome};
use piece::Digest;
use testbed::Artifact;
use wire::control::Role;

const SIZE: u64 = 1 << 30;
const ROUNDS: usize = 3;
/// Frames on the wire, and the UDP payload that is set for them.
const PAYLOADS: [(u16, u16); 3] = [(1500, 1472), (9000, 6500), (9000, 8952)];
/// Where stores are: what it is called, and the folder.
const PLACES: [(&str, &str); 2] = [("memory", "/dev/shm"), ("disk", env!("CARGO_TARGET_TMPDIR"))];

fn main() -> Outcome<()> {
    let artifact = lab::random_files(1, &[SIZE]);
    println!("a blob of {:.0} GiB, from one node to another", SIZE as f64 / GIB);
    println!("store    MTU   payload  run     GiB/s  CPU-s/GiB");
    for (store, dir) in PLACES {
        for (mtu, payload) in PAYLOADS {
            let name = format!("{store:<8} {mtu:<5} {payload:<8}");
            measure(&name, Path::new(dir), payload, &artifact)?;
        }
    }
    Ok(())
}

fn measure(name: &str, dir: &Path, payload: u16, artifact: &Artifact) -> Outcome<()> {
    let settings = transport::Config {
        max_udp_payload: payload,
        mtu_upper_bound: payload,
        ..transport::Config::default()
    };
    let lab = Lab::start(dir)?.with_scheduler()?;
    lab.publish("v1", artifact);
    let blob = artifact.files()[0].content.digest();
    let path = lab.blob(&blob);
    let holder = lab.node(Role::Seed, &settings)?;
    Client::connect(holder.mirror())?.get(&path, None)?;
    holder.wait_for(&blob)?;
    let mut runs = Vec::new();
    for round in 1..=ROUNDS {
        let receiver = lab.node(Role::Peer, &settings)?;
        runs.push(fetch(&receiver, &path, &blob)?);
        receiver.stop();
        print_row(name, &round.to_string(), &runs[round - 1..]);
    }
    print_row(name, "mean", &runs);
    holder.stop();
    Ok(())
}

/// Has the blob come whole, from the neighbour and nobody else.
fn fetch(receiver: &Node, path: &str, blob: &Digest) -> Outcome<Cost> {
    let watch = Stopwatch::start();
    Client::connect(receiver.mirror())?.peek(path)?;
    receiver.wait_for(blob)?;
    let cost = watch.stop(SIZE)?;
    let received = receiver.received();
    if received.registry > 0 {
        return Err(format!(
            "{} bytes came from the registry, not from the neighbour",
            received.registry
        )
        .into());
    }
    Ok(cost)
}

fn print_row(name: &str, run: &str, runs: &[Cost]) {
    let mean = Cost::mean(runs);
    println!("{name} {run:<6} {:>6.2}  {:>9.2}", mean.gib_per_s, mean.cpu_s_per_gib);
}
