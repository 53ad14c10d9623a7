//! kill -9 in the middle: a child process writes, the parent kills it, and what is left must be right.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use store::{Config, OpenError, Store};

use crate::sample::{Sample, open};

/// Names the store's directory and the seed to the child.
const DIR: &str = "PACKSWARM_TEST_STORE_DIR";
const SEED: &str = "PACKSWARM_TEST_STORE_SEED";
/// The seed of a child that only holds the store until its input ends.
const HOLD: u64 = u64::MAX;

fn sample() -> Sample {
    Sample::new(42, (6 << 20) + 12_345)
}

/// Does nothing unless the parent started it.
#[test]
fn child() {
    let (Ok(dir), Ok(seed)) = (std::env::var(DIR), std::env::var(SEED)) else {
        return;
    };
    let (store, seed) = (open(Path::new(&dir)), seed.parse().unwrap());
    if seed == HOLD {
        println!("\nholding");
        let ended = std::io::stdin().read(&mut [0]).unwrap();
        assert_eq!(ended, 0);
        return;
    }
    let sample = sample();
    let file = sample.write(&store, []);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = std::io::stdout().lock();
    while !file.is_complete() {
        let number = rng.random_range(0..sample.count());
        let piece = sample.index(number);
        if file.has(piece) {
            continue;
        }
        if rng.random_bool(0.5) {
            file.write(sample.proven(number)).unwrap();
        } else {
            file.stage(sample.offset(number), sample.piece(number)).unwrap();
            file.settle(piece).unwrap();
        }
        writeln!(out, "\nstored {number}").unwrap();
        out.flush().unwrap();
    }
}

fn start(dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .envs([(DIR, dir.to_str().unwrap()), (SEED, &seed.to_string())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets the child report this many pieces, then kills it. Returns what it reported in all, and whether it had not ended yet.
fn run(dir: &Path, seed: u64, pieces: usize) -> (Vec<u32>, bool) {
    let mut child = start(dir, seed);
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut number = || lines.find_map(|line| line.strip_prefix("stored ")?.parse().ok());
    let mut stored: Vec<u32> = std::iter::from_fn(&mut number).take(pieces).collect();
    child.kill().unwrap();
    let killed = child.wait().unwrap().signal().is_some();
    stored.extend(std::iter::from_fn(number));
    (stored, killed)
}

/// Some tens of kills, or two hundred with `tests/run --long`.
#[test]
fn a_killed_process_loses_nothing_that_it_reported() {
    let is_long = std::env::var("PACKSWARM_TEST_LONG").is_ok_and(|value| value == "1");
    let kills = if is_long { 200 } else { 20 };
    let sample = sample();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut seed, mut killed, mut checked) = (0, 0, 0);
    while killed < kills {
        let dir = tempfile::tempdir().unwrap();
        let mut reported: Vec<u32> = Vec::new();
        for turn in 0.. {
            let (stored, was_killed) = run(dir.path(), seed * 100 + turn, rng.random_range(0..10));
            reported.extend(stored);
            killed += usize::from(was_killed);
            let store = open(dir.path());
            let here = store
                .get(&sample.blob.digest)
                .map(|file| sample.check(&file))
                .unwrap_or_default();
            checked += here.len();
            assert!(
                reported.iter().all(|number| here.contains(number)),
                "seed {seed}, turn {turn}"
            );
            // One more than was reported may be here: written, then killed.
            assert!(
                here.len() <= reported.len() + 1 + turn as usize,
                "seed {seed}, turn {turn}"
            );
            if here.len() as u32 == sample.count() {
                assert!(store.held()[0].complete);
                break;
            }
            assert!(turn < 100, "gets nowhere");
            // A store opened and dropped here is one more unclean end.
        }
        seed += 1;
    }
    println!("{killed} kills; {checked} pieces that a store called verified, of which were wrong: 0");
}

#[test]
fn the_lock_is_between_processes_and_dies_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), HOLD);
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line == "holding"));
    let refused = Store::open(Config::at(dir.path())).unwrap_err();
    assert!(
        matches!(refused, OpenError::Locked { pid, .. } if pid == Some(child.id())),
        "{refused}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    open(dir.path());
}
