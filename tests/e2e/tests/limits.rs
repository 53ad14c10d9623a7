//! What does not fit is refused in words, and what fits goes on.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use e2e::clients::pull_through;
use e2e::http::Request;
use e2e::process::{output, run};
use e2e::{Cluster, Lab, Model, Options, Registry, Throttle, tree, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_blob_larger_than_the_store_is_refused_and_others_are_served() {
    let lab = Lab::new("small-store");
    let (large, fitting) = (Model::one_file(&lab, 96), Model::every_layer_type(&lab));
    let registry = Registry::start(&lab, &[&large, &fitting]);
    let small = "[store]\ncapacity = \"40MiB\"\n";
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 2,
            peer_config: small,
            ..Options::default()
        },
    );
    let peer = &cluster.peers[0];
    let path = format!(
        "/v2/{}/blobs/{}?ns={}",
        large.repository(),
        large.largest().digest,
        registry.address()
    );
    let to = lab.path("large");
    let said = output(&mut pull_through(
        &lab,
        peer.mirror(),
        &large.reference(registry.address()),
        &to,
    ));
    assert!(!said.status.success(), "96 MiB in a store of 40");
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(words.contains("store"), "{words}");
    // By its status, and not by a body that is cut: nobody else has begun either.
    for peer in &cluster.peers {
        let refused = Request::get(peer.mirror(), &path).send();
        assert_eq!(refused.status, 507, "{}", refused.text());
    }
    assert!(!to.join(large.largest().path.as_ref().expect("a raw layer")).exists());
    for peer in &cluster.peers {
        let to = lab.path(format!("fitting-{}", peer.name()));
        run(&mut pull_through(
            &lab,
            peer.mirror(),
            &fitting.reference(registry.address()),
            &to,
        ));
        tree::assert_same(&fitting.files(), &to);
    }
    registry.assert_read_once(&fitting);
}

#[test]
fn too_many_requests_are_told_to_go_elsewhere() {
    let lab = Lab::new("overload");
    let model = Model::one_file(&lab, 96);
    let registry = Registry::start(&lab, &[&model]);
    let link = Throttle::start(registry.address(), 16 * MIB);
    let config = "[mirror]\nmax_requests = 2\n";
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            peer_config: config,
            ..Options::default()
        },
    );
    let mirror = cluster.peers[0].mirror();
    let blob = format!(
        "/v2/{}/blobs/{}?ns={}",
        model.repository(),
        model.largest().digest,
        link.address()
    );
    let manifest = format!("/v2/{}/manifests/v1?ns={}", model.repository(), link.address());
    let ask = |path: &str| {
        Request::get(mirror, path)
            .header("Accept", "*/*")
            .open()
            .expect("it answers")
    };
    let status = |path: &str| ask(path).status;
    assert_eq!(status(&manifest), 200);
    let mut readers = [ask(&blob), ask(&blob)];
    // 429 would make containerd wait here instead of asking the registry.
    let refused = Request::get(mirror, &manifest).header("Accept", "*/*").send();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["errors"][0]["code"], "UNAVAILABLE");
    // Who has the manifest already gets its blobs: it can go nowhere else.
    readers[0].read_exact(&mut [0; 1000]).expect("it is being sent");
    assert_eq!(ask(&blob).status, 200);
    drop(readers);
    e2e::wait::until_true("room for another", std::time::Duration::from_secs(30), || {
        status(&manifest) == 200
    });
}

#[test]
fn rates_are_kept_and_can_be_changed_while_bytes_flow() {
    let lab = Lab::new("rates");
    let model = Model::one_file(&lab, 96);
    let registry = Registry::start(&lab, &[&model]);
    let slow = "[rates]\nregistry = \"1MiB\"\n";
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            seed_config: slow,
            ..Options::default()
        },
    );
    let (seed, peer) = (&cluster.seeds[0], &cluster.peers[0]);
    let limits = |node: &e2e::Node, change: &str| {
        let answer = Request::new("POST", node.admin(), "/api/v1/limits")
            .body(change.as_bytes())
            .send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    assert_eq!(limits(seed, "{}")["registry"], MIB);
    let to = lab.path("pulled");
    let begun = Instant::now();
    thread::scope(|threads| {
        let mut command = pull_through(&lab, peer.mirror(), &model.reference(registry.address()), &to);
        threads.spawn(move || run(&mut command));
        wait::until_true("the first bytes", SOON, || seed.received("registry") > 2 * MIB);
        // What passed was allowed in this time, or in the first burst and what was on its way.
        let most = (begun.elapsed().as_secs_f64() + 1.0) * MIB as f64 + 2.0 * MIB as f64;
        let passed = seed.received("registry");
        assert!(
            passed as f64 <= most,
            "{passed} bytes at 1 MiB/s in {:?}",
            begun.elapsed()
        );
        let changed = limits(seed, r#"{"registry": 0, "upload": 2000000000, "upload_slots": 4}"#);
        assert_eq!((&changed["registry"], &changed["upload_slots"]), (&0.into(), &4.into()));
        limits(peer, r#"{"download": 1000000000, "requests_per_neighbour": 2}"#);
    });
    tree::assert_same(&model.files(), &to);
    let refused = Request::new("POST", seed.admin(), "/api/v1/limits")
        .body(br#"{"upload_slots": 0}"#)
        .send();
    assert_eq!(refused.status, 400, "{}", refused.text());
}
