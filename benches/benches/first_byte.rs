//! How soon: the first byte of a large blob, a small blob, and an artifact of many small files, on loopback.
//!
//! `cargo bench -p benches --bench first_byte`. The registry, the scheduler, the seed and the peers are in this process,
//! each on a runtime of one thread. A seed holds the blobs; fresh peers are asked for them through their mirrors, one
//! blob after another, each the first time, once they have had the manifest, as clients do. The clock runs from the request
//! to the body's first byte, so what lies between is: asking the scheduler, hearing from the neighbour, one piece, its
//! verification, and its way to the disk and to the client. A peer's first request of all, for the manifest, needs a
//! connection to the neighbour too. The artifact is pulled by `packswarm pull`, a process of its own, through a peer: once
//! while nobody but the registry has it, once while the seed and another peer do.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use benches::Outcome;
use benches::client::Client;
use benches::cost::Spread;
use benches::lab::{self, Lab, Node};
use piece::Digest;
use testbed::Artifact;
use wire::control::Role;

/// Large blobs: how many of which size. Their pieces have 256 KiB, 512 KiB and, as those of any larger blob, 4 MiB.
const LARGE: [(usize, u64); 3] = [(10, 64 << 20), (2, 512 << 20), (1, 2049 << 20)];
/// Small blobs, of one piece each.
const SMALL: [(usize, u64); 2] = [(10, 1 << 10), (10, 200 << 10)];
/// Peers that ask for each of them.
const PEERS: usize = 5;
/// Layers of the artifact, and bytes of each.
const LAYERS: (usize, u64) = (200, 1 << 10);
/// How often another such artifact is pulled.
const PULLS: u64 = 5;
/// How this program calls itself to pull.
const PULL: &str = "pull";

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == PULL) {
        return packswarm::run();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<()> {
    let lab = Lab::start(Path::new(env!("CARGO_TARGET_TMPDIR")))?.with_scheduler()?;
    let seed = lab.node(Role::Seed, &transport::Config::default())?;
    println!("milliseconds                            samples   median      p95  longest");
    for (count, size) in LARGE {
        let name = format!("first byte of {} MiB", size >> 20);
        from_a_neighbour(&lab, &seed, &name, count, size, |client, path| client.peek(path))?;
    }
    for (count, size) in SMALL {
        let name = format!("all of {} KiB", size >> 10);
        from_a_neighbour(&lab, &seed, &name, count, size, whole)?;
    }
    many_small_files(&lab)?;
    seed.stop();
    Ok(())
}

fn whole(mut client: Client, path: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    client.get(path, None)?;
    Ok(begun.elapsed())
}

/// Has fresh peers asked for blobs that the seed holds, and nobody else: each forgets everything when it is done.
fn from_a_neighbour(
    lab: &Lab,
    seed: &Node,
    name: &str,
    count: usize,
    size: u64,
    ask: impl Fn(Client, &str) -> Outcome<Duration>,
) -> Outcome<()> {
    let artifact = lab::random_files(size, &vec![size; count]);
    lab.publish(&format!("of-{size}"), &artifact);
    let blobs: Vec<Digest> = artifact.files().iter().map(|file| file.content.digest()).collect();
    for blob in &blobs {
        Client::connect(seed.mirror())?.get(&lab.blob(blob), None)?;
        seed.wait_for(blob)?;
    }
    Client::connect(seed.mirror())?.get(&lab.manifest(&artifact.digest()), None)?;
    let (mut manifests, mut samples) = (Vec::new(), Vec::new());
    for _ in 0..PEERS {
        let peer = lab.node(Role::Peer, &transport::Config::default())?;
        manifests.push(whole(
            Client::connect(peer.mirror())?,
            &lab.manifest(&artifact.digest()),
        )?);
        for blob in &blobs {
            samples.push(ask(Client::connect(peer.mirror())?, &lab.blob(blob))?);
            // What is measured next must not share the machine with the rest of this one.
            peer.wait_for(blob)?;
        }
        peer.stop();
    }
    print_row("the manifest, with a handshake", manifests);
    print_row(name, samples);
    Ok(())
}

/// Pulls an artifact of many layers, cold, then on a second peer, whose neighbours hold it.
fn many_small_files(lab: &Lab) -> Outcome<()> {
    let (layers, size) = LAYERS;
    let peers = [
        lab.node(Role::Peer, &transport::Config::default())?,
        lab.node(Role::Peer, &transport::Config::default())?,
    ];
    let (mut cold, mut held) = (Vec::new(), Vec::new());
    for number in 0..PULLS {
        let artifact = lab::random_files(u64::MAX - number, &vec![size; layers]);
        let tag = format!("layers-{number}");
        lab.publish(&tag, &artifact);
        cold.push(pull(lab, &peers[0], &tag, &artifact)?);
        held.push(pull(lab, &peers[1], &tag, &artifact)?);
    }
    let name = format!("{layers} layers of {} KiB", size >> 10);
    print_row(&format!("{name}, cold"), cold);
    print_row(&format!("{name}, held"), held);
    peers.into_iter().for_each(Node::stop);
    Ok(())
}

/// `packswarm pull`, from its start to its end.
fn pull(lab: &Lab, peer: &Node, tag: &str, artifact: &Artifact) -> Outcome<Duration> {
    let output = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let begun = Instant::now();
    let pulled = Command::new(std::env::current_exe()?)
        .args([
            PULL,
            &lab.reference(tag),
            "--mirror",
            &format!("http://{}", peer.mirror()),
            "--output",
        ])
        .arg(output.path())
        .output()?;
    let took = begun.elapsed();
    if !pulled.status.success() {
        return Err(String::from_utf8_lossy(&pulled.stderr).into_owned().into());
    }
    for file in artifact.files() {
        let found = Digest::of(&std::fs::read(output.path().join(&file.path))?);
        if found != file.content.digest() {
            return Err(format!("{} is not what was published", file.path).into());
        }
    }
    Ok(took)
}

fn print_row(name: &str, samples: Vec<Duration>) {
    let count = samples.len();
    let Spread { median, p95, longest } = Spread::of(samples);
    println!("{name:<40} {count:>6}  {median:>7.1}  {p95:>7.1}  {longest:>7.1}");
}
