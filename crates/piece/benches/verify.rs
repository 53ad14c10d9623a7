//! What verification costs: 64 MiB in memory, hashed as one digest, verified piece by piece, and verified two pieces at once.
//! After criterion's figures comes a table with GiB/s, CPU-seconds per GiB (which travels better between machines) and the
//! ratio to the plain digest. Run it with `cargo bench -p piece`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use piece::{Blob, Chain, Digest, Link, PrefixHasher, verify, verify_two};
use rustix::time::{ClockId, Timespec, clock_gettime};

const SIZE: usize = 64 << 20;
/// The best of so many passes counts: on shared cores, everything slower is somebody else's work.
const PASSES: usize = 40;

/// One way to check all of the data.
type Way<'a> = (&'static str, Box<dyn Fn() -> bool + 'a>);

fn main() {
    let data: Vec<u8> = (0..SIZE as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let pieces = pieces(&data);
    let ways = ways(&data, &pieces);

    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("verify 64 MiB");
    group
        .throughput(Throughput::Bytes(SIZE as u64))
        .measurement_time(Duration::from_secs(3));
    for (name, check) in &ways {
        group.bench_function(*name, |bencher| bencher.iter(|| assert!(black_box(check()))));
    }
    group.finish();
    // `cargo test --benches` passes `--test`: each way has run once, and nothing is measured.
    if !std::env::args().any(|arg| arg == "--test") {
        table(&ways);
    }
}

fn ways<'a>(data: &'a [u8], pieces: &'a [(Link, &'a [u8])]) -> Vec<Way<'a>> {
    let digest = Digest::of(data);
    vec![
        ("sequential digest (sha2)", Box::new(move || Digest::of(data) == digest)),
        (
            "pieces, one at a time",
            Box::new(|| pieces.iter().all(|(link, bytes)| verify(link, &[bytes]))),
        ),
        (
            "pieces, two interleaved",
            Box::new(|| {
                let (pairs, rest) = pieces.as_chunks::<2>();
                let both = |[a, b]: &[(Link, &[u8]); 2]| verify_two((&a.0, &[a.1]), (&b.0, &[b.1])) == (true, true);
                pairs.iter().all(both) && rest.iter().all(|(link, bytes)| verify(link, &[bytes]))
            }),
        ),
    ]
}

/// The pieces of the data with what proves them.
fn pieces(data: &[u8]) -> Vec<(Link, &[u8])> {
    let blob = Blob {
        digest: Digest::of(data),
        size: data.len() as u64,
    };
    let geometry = blob.geometry();
    let bytes: Vec<&[u8]> = data.chunks(geometry.piece_len() as usize).collect();
    let mut chain = Chain::new(blob);
    let mut hasher = PrefixHasher::new();
    for (boundary, piece) in (1..geometry.count()).zip(&bytes) {
        chain
            .learn(boundary, hasher.piece(piece))
            .expect("nothing else was learnt");
    }
    let link = |piece| chain.link(piece).expect("every boundary was learnt");
    geometry.pieces().map(link).zip(bytes).collect()
}

fn table(ways: &[Way<'_>]) {
    let gib = SIZE as f64 / f64::from(1 << 30);
    let measured: Vec<(f64, f64)> = ways.iter().map(|(_, check)| best(check)).collect();
    println!("{:28}{:>9}{:>12}{:>9}", "", "GiB/s", "CPU-s/GiB", "ratio");
    for ((name, _), (wall, cpu)) in ways.iter().zip(&measured) {
        println!(
            "{name:28}{:>9.2}{:>12.3}{:>9.2}",
            gib / wall,
            cpu / gib,
            measured[0].0 / wall
        );
    }
}

/// Seconds of wall time and of this thread's processor time of the quickest pass.
fn best(check: impl Fn() -> bool) -> (f64, f64) {
    let pass = || {
        let (cpu, wall) = (thread_time(), Instant::now());
        assert!(black_box(check()));
        (wall.elapsed().as_secs_f64(), thread_time() - cpu)
    };
    (0..PASSES)
        .map(|_| pass())
        .fold((f64::MAX, f64::MAX), |best, new| (best.0.min(new.0), best.1.min(new.1)))
}

fn thread_time() -> f64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    tv_sec as f64 + tv_nsec as f64 / 1e9
}
