//! The registry refuses, stalls, cuts and lies while three nodes pull.

use std::thread;
use std::time::{Duration, Instant};

use e2e::http::Request;
use e2e::model::Blob;
use e2e::proxy::{Fault, Seen};
use e2e::pulling::assert_sound;
use e2e::{Cluster, Lab, Model, Options, Proxy, Pulling, Registry, wait};

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(30);
/// Three readings' worth of ranges, so that a fault at the end has some before it.
const SIZES: [usize; 2] = [12 * MIB + 345, 300_000];
/// Waits short enough for a test, in the places where the defaults have patience.
const NODES: &str = "[registry]\nanswer_timeout = \"1s\"\nread_timeout = \"1s\"\nretries = 3\nbackoff = \"50ms\"\n\
                     max_wait = \"5s\"\n[origin]\nrange_bytes = \"1MiB\"\n";
/// What is on its way when a body is put aside: what the sockets hold of it, and of those beside it.
const ON_ITS_WAY: u64 = 10 * MIB as u64;

struct Stage {
    lab: Lab,
    registry: Registry,
    proxy: Proxy,
    cluster: Cluster,
}

impl Stage {
    fn new(name: &str) -> Self {
        Self::with(name, NODES)
    }

    fn with(name: &str, config: &str) -> Self {
        let lab = Lab::new(name);
        let registry = Registry::start(&lab, &[]);
        let proxy = Proxy::start(registry.address());
        let options = Options {
            seeds: 2,
            peers: 3,
            seed_config: config,
            peer_config: config,
            ..Options::default()
        };
        let cluster = Cluster::start(&lab, &options);
        Self {
            lab,
            registry,
            proxy,
            cluster,
        }
    }

    /// A model that nobody has seen yet.
    fn model(&self, name: &str, seed: u64) -> Model {
        Model::pushed(&self.lab, &self.registry, name, seed, &SIZES)
    }

    fn begin(&self, name: &str, model: &Model) -> Vec<Pulling> {
        let reference = model.reference(self.proxy.address());
        Pulling::begin_all(&self.lab, name, &self.cluster.peers, &reference)
    }

    /// All three peers pull while this goes wrong. Returns how many bytes of the large blob were read in vain.
    fn all_succeed(&self, name: &str, model: &Model) -> u64 {
        for pull in self.begin(name, model) {
            pull.succeeds(model);
        }
        self.assert_sound();
        self.proxy.assert_only_seeds();
        let [large, small] = blobs(model);
        assert_eq!(
            self.proxy.bytes_of(&small.digest),
            small.size,
            "{name}: the blob that nothing happened to"
        );
        self.proxy.bytes_of(&large.digest) - large.size
    }

    fn assert_sound(&self) {
        self.cluster.nodes().for_each(assert_sound);
        assert_eq!(self.cluster.scheduler.get("/healthz").status, 200);
    }
}

/// The large and the small one.
fn blobs(model: &Model) -> [&Blob; 2] {
    let of_size = |size: usize| model.blobs().iter().find(|blob| blob.size == size as u64);
    SIZES.map(|size| of_size(size).expect("it was pushed"))
}

/// Whether a request asks for the last byte of the large blob, and so ends a pull of which most has come: who resumes asks
/// for that byte again, wherever ranges begin.
fn last(model: &Model) -> impl Fn(&Seen) -> bool + Send + use<> {
    let blob = blobs(model)[0].clone();
    move |seen| seen.reads(&blob, blob.size - 1)
}

#[test]
fn what_passes_is_waited_for_and_no_byte_is_read_twice() {
    let stage = Stage::new("passing-faults");
    let some = 100_000;
    let cases = [
        ("500", Fault::Status(500, None)),
        ("502", Fault::Status(502, None)),
        ("503", Fault::Status(503, Some(1))),
        ("429", Fault::Status(429, None)),
        ("429-later", Fault::Status(429, Some(1))),
        ("silence", Fault::Silence),
        ("stall", Fault::StallAfter(some)),
        ("cut", Fault::CutAfter(some)),
        ("cut-at-once", Fault::CutAfter(0)),
        ("range-ignored", Fault::RangeIgnored),
    ];
    thread::scope(|threads| {
        for (seed, (name, fault)) in cases.into_iter().enumerate() {
            let stage = &stage;
            threads.spawn(move || {
                let model = stage.model(name, seed as u64);
                let rule = stage.proxy.when(2, last(&model), fault);
                let again = stage.all_succeed(name, &model);
                let hits = stage.proxy.end(rule);
                assert!(hits > 0, "{name}");
                let in_vain = if fault == Fault::RangeIgnored {
                    // A whole blob where a part was asked for is put aside when its head is seen, but by then the sockets
                    // have taken some or all of it.
                    hits as u64 * blobs(&model)[0].size
                } else if matches!(fault, Fault::Silence | Fault::StallAfter(_)) {
                    // Whoever waits no longer than a second gives up on slow answers, too, while so many pull at once.
                    MIB as u64
                } else {
                    0
                };
                assert!(again <= in_vain, "{name}: {again} bytes were read twice");
                println!("{name}: {again} bytes in vain");
            });
        }
    });
    // Who is told when to come again does not come earlier.
    let model = stage.model("patient", 100);
    stage.proxy.when(1, last(&model), Fault::Status(429, Some(2)));
    stage.all_succeed("patient", &model);
    let of_last = last(&model);
    let times: Vec<Instant> = stage
        .proxy
        .seen()
        .iter()
        .filter(|seen| of_last(seen))
        .map(|seen| seen.at)
        .collect();
    assert!(
        times[1] - times[0] >= Duration::from_secs(2),
        "{:?}",
        times[1] - times[0]
    );
}

#[test]
fn lies_are_seen_through_and_the_truth_is_read_afresh() {
    let stage = Stage::new("lies");
    let cases = [
        ("too-few", Fault::TooFew(1000)),
        ("too-many", Fault::TooMany(1000)),
        ("loop", Fault::Loop),
        ("altered", Fault::Altered(77)),
    ];
    for (seed, (name, fault)) in cases.into_iter().enumerate() {
        let model = stage.model(name, 200 + seed as u64);
        stage.proxy.when(1, last(&model), fault);
        let again = stage.all_succeed(name, &model);
        // Altered bytes are found when the chain does not close, and nothing tells which they were.
        let large = blobs(&model)[0].size;
        let allowed = if fault == Fault::Altered(77) {
            large + ON_ITS_WAY
        } else {
            ON_ITS_WAY
        };
        assert!(again <= allowed, "{name}: {again} bytes were read twice");
        println!("{name}: {again} bytes in vain");
    }
    // The reader that was lied to has signed what was false, and said so first.
    assert_eq!(stage.cluster.scheduler.status()["banned"], 0);
}

#[test]
fn a_registry_without_ranges_is_read_once_all_the_same() {
    let stage = Stage::new("no-ranges");
    let model = stage.model("no-ranges", 300);
    stage
        .proxy
        .when(usize::MAX, |seen| seen.range.is_some(), Fault::RangeIgnored);
    assert_eq!(stage.all_succeed("no-ranges", &model), 0);
}

#[test]
fn storage_that_a_registry_redirects_to_is_read_once_and_gets_no_token() {
    let stage = Stage::new("redirects");
    let model = stage.model("redirects", 400);
    let storage = Proxy::start(stage.registry.address());
    let of_blobs = |seen: &Seen| seen.path.contains("/blobs/");
    stage
        .proxy
        .when(usize::MAX, of_blobs, Fault::Redirect(storage.address()));
    // It has its own moods.
    storage.when(2, last(&model), Fault::CutAfter(100_000));
    for pull in stage.begin("redirects", &model) {
        pull.succeeds(&model);
    }
    stage.assert_sound();
    for blob in model.blobs() {
        assert_eq!(storage.bytes_of(&blob.digest), blob.size, "{}", blob.digest);
    }
    assert!(storage.seen().iter().all(|seen| seen.authorization.is_none()));
    let resolved = stage
        .proxy
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/blobs/"))
        .count();
    assert!(
        resolved <= 2 * model.blobs().len(),
        "{resolved} redirects for {} blobs",
        model.blobs().len()
    );
}

#[test]
fn what_does_not_pass_is_told_by_the_registrys_own_status() {
    let stage = Stage::with("lasting-faults", &NODES.replace("retries = 3", "retries = 1"));
    let cases = [
        (Fault::Status(401, None), 401),
        (Fault::Status(403, None), 403),
        (Fault::Status(404, None), 404),
        // On a 429 containerd would ask here again instead of moving on.
        (Fault::Status(429, Some(60)), 503),
        (Fault::Status(500, None), 500),
        (Fault::Silence, 504),
        (Fault::Loop, 502),
    ];
    thread::scope(|threads| {
        for (number, (fault, status)) in cases.into_iter().enumerate() {
            let stage = &stage;
            threads.spawn(move || {
                let name = format!("lasting-{status}");
                refused(stage, &name, &stage.model(&name, 500 + number as u64), fault, status);
            });
        }
    });
    stage.proxy.assert_only_seeds();
}

/// The registry does this to all of a model, then to its large blob alone, and then nothing.
fn refused(stage: &Stage, name: &str, model: &Model, fault: Fault, status: u16) {
    let at = stage.proxy.address();
    let of_model = format!("/v2/{}/", model.repository());
    let rule = stage
        .proxy
        .when(usize::MAX, move |seen| seen.path.starts_with(&of_model), fault);
    let manifest = format!("/v2/{}/manifests/v1?ns={at}", model.repository());
    assert_status(stage, &manifest, status, name);
    stage.proxy.end(rule);
    wait_for(stage, &manifest);

    let blob = blobs(model)[0].clone();
    let path = format!("/v2/{}/blobs/{}?ns={at}", model.repository(), blob.digest);
    let rule = stage
        .proxy
        .when(usize::MAX, move |seen| seen.path.contains(&blob.digest), fault);
    assert_status(stage, &path, status, name);
    // What may pass is asked for again by `pull`, which takes its time; what is final it says at once.
    if status < 500 {
        for pull in stage.begin(name, model) {
            let said = pull.fails(model);
            assert!(said.contains(&status.to_string()), "{name}: {said}");
        }
    }
    stage.assert_sound();
    stage.proxy.end(rule);
    wait_for(stage, &path);
    for pull in stage.begin(name, model) {
        pull.succeeds(model);
    }
}

/// Waits until a peer has it. A registry's refusal is repeated for a while to whoever asks.
fn wait_for(stage: &Stage, path: &str) {
    wait::until_true("an answer, now that all is well", SOON, || {
        let request = Request::get(stage.cluster.peers[0].mirror(), path).header("Accept", "*/*");
        request.try_send().is_ok_and(|answer| answer.status == 200)
    });
}

/// Panics unless every peer's clients are told this status.
fn assert_status(stage: &Stage, path: &str, status: u16, name: &str) {
    thread::scope(|threads| {
        for peer in &stage.cluster.peers {
            threads.spawn(move || {
                let answer = Request::get(peer.mirror(), path).header("Accept", "*/*").send();
                assert_eq!(answer.status, status, "{name}: {path}: {}", answer.text());
                assert!(
                    answer.json()["errors"][0]["code"].is_string(),
                    "{name}: {}",
                    answer.text()
                );
            });
        }
    });
}
