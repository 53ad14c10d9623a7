//! Every decoder, over its corpus and over as many cases made from it as fit into a second; a minute with `tests/run --long`.
//!
//! What fails can be seen again by `PACKSWARM_TEST_SEED=SEED cargo test -p fuzz NAME`, and its bytes are kept in `fuzz/artifacts`.
#![allow(clippy::unwrap_used, reason = "the line of a failed unwrap says all in a test")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use fuzz::cases::Cases;
use fuzz::corpus;
use fuzz::{DECODERS, Decoder};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
/// What is allocated is counted for the whole process, so one decoder runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// How long one decoder is tried in the ordinary test command, and by `--long`.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
/// Characters of a failed case that are printed.
const SHOWN: usize = 200;

fn is_long() -> bool {
    std::env::var("PACKSWARM_TEST_LONG").is_ok_and(|value| value == "1")
}

/// The same in every ordinary run, so that a change is what breaks it; another in each long one.
fn seed() -> u64 {
    let chosen = std::env::var("PACKSWARM_TEST_SEED").map(|seed| seed.parse().expect("a seed is a number"));
    let fresh = || SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
    chosen.unwrap_or_else(|_| if is_long() { fresh() } else { 1 })
}

fn holds(name: &str) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let decoder = DECODERS.iter().find(|decoder| decoder.name == name).unwrap();
    let inputs = corpus::inputs(name);
    for (file, bytes) in &inputs {
        tried(decoder, bytes, &format!("fuzz/corpus/{name}/{file}"));
    }
    let corpus: Vec<_> = inputs.into_iter().map(|(_, bytes)| bytes).collect();
    let cases = Cases {
        seed: seed(),
        corpus: &corpus,
        words: decoder.words,
        max_len: decoder.max_len,
    };
    let (began, time) = (Instant::now(), if is_long() { LONG } else { SHORT });
    let mut number = corpus.len() as u64;
    while began.elapsed() < time {
        tried(
            decoder,
            &cases.case(number),
            &format!("seed {}, case {number}", cases.seed),
        );
        number += 1;
    }
    println!("{name}: {number} cases of seed {}", cases.seed);
    assert!(
        number > corpus.len() as u64 + 20,
        "{name}: only {number} cases in {time:?}"
    );
}

fn tried(decoder: &Decoder, bytes: &[u8], which: &str) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let kept = catch_unwind(AssertUnwindSafe(|| (decoder.check)(bytes)));
    let took = MEMORY.peak_usage().saturating_sub(before);
    if let Err(panic) = kept {
        eprintln!("{}", story(decoder, bytes, which));
        resume_unwind(panic);
    }
    let most = decoder.memory;
    assert!(
        took <= most,
        "{took} bytes of memory are over {most}: {}",
        story(decoder, bytes, which)
    );
}

/// What failed, and where its bytes are now: where cargo-fuzz keeps such.
fn story(decoder: &Decoder, bytes: &[u8], which: &str) -> String {
    let folder = corpus::folder(decoder.name).join("../../artifacts").join(decoder.name);
    let file = folder.join(format!("failed-{}", std::process::id()));
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, bytes));
    let shown: String = bytes.escape_ascii().map(char::from).take(SHOWN).collect();
    let place = kept.map_or_else(|error| error.to_string(), |()| file.display().to_string());
    format!(
        "{}: {which}, {} bytes, kept as {place}: \"{shown}\"",
        decoder.name,
        bytes.len()
    )
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

each! {
    exchange control frames signed_run side_file manifest archive mirror reference challenge credentials token answer config
    cluster_key
}

#[test]
fn every_decoder_has_a_test_a_fuzz_target_and_seeds() {
    let names: BTreeSet<_> = DECODERS.iter().map(|decoder| decoder.name.to_owned()).collect();
    assert_eq!(names, NAMES.iter().map(ToString::to_string).collect());
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let listed = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("corpus"), names);
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "fuzz/Cargo.toml has no {name}"
        );
        let target = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            target.contains(&format!("fuzz::check(\"{name}\"")),
            "the target {name} checks something else"
        );
        assert!(corpus::inputs(name).len() >= 3, "{name} has too few seeds");
    }
}
