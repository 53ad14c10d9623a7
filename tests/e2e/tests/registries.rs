//! Registries of other kinds, and what changes in them.

use std::time::Duration;

use e2e::clients::pull_through;
use e2e::http::Request;
use e2e::process::{output, run};
use e2e::registry::Service;
use e2e::{Cluster, Lab, Model, Options, Registry, Role, tree, wait};

const SOON: Duration = Duration::from_secs(30);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn a_registry_with_tls_is_read_by_who_trusts_it() {
    let lab = Lab::new("tls");
    let model = Model::small(&lab);
    let registry = Registry::named(&lab, "registry", &[&model], Service::Encrypted);
    let name = format!("localhost:{}", registry.address().port());
    let trusting = format!("[registry.{name:?}]\nca_file = {:?}\n", registry.certificate());
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            seed_config: &trusting,
            ..Options::default()
        },
    );
    let to = lab.path("pulled");
    run(&mut pull_through(
        &lab,
        cluster.peers[0].mirror(),
        &model.reference(&name),
        &to,
    ));
    tree::assert_same(&model.files(), &to);
    registry.assert_read_once(&model);

    let lab = lab.part("doubting");
    let system = lab.file("system.pem", "");
    let config = format!("[registry.{name:?}]\nca_file = {system:?}\n");
    let refused = lab.file("seed.toml", &config);
    let said = output(
        std::process::Command::new(e2e::lab::binary())
            .args(["config", "check"])
            .arg(refused),
    );
    assert!(!said.status.success(), "a file without a certificate is none");
}

#[test]
fn what_two_registries_have_is_read_from_one() {
    let lab = Lab::new("two-registries");
    let model = Model::small(&lab);
    let [first, second] = ["first", "second"].map(|name| Registry::named(&lab, name, &[&model], Service::Open));
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 2,
            ..Options::default()
        },
    );
    for (number, registry) in [&first, &second].into_iter().enumerate() {
        let to = lab.path(format!("pulled-{number}"));
        let reference = model.reference(registry.address());
        run(&mut pull_through(&lab, cluster.peers[number].mirror(), &reference, &to));
        tree::assert_same(&model.files(), &to);
    }
    first.assert_read_once(&model);
    let sent: u64 = model.blobs().iter().map(|blob| second.bytes_of(&blob.digest)).sum();
    assert_eq!(
        sent, 0,
        "the second was asked whether it would serve them, and that is all"
    );
    second.assert_only_seeds();
}

#[test]
fn a_tag_that_moved_is_noticed_within_its_time() {
    let lab = Lab::new("moved-tag");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let [nodes, scheduler] = ["[registry]\ntag_ttl = \"2s\"\n", "[swarm]\ntag_ttl = \"2s\"\n"];
    let options = Options {
        seeds: 1,
        peers: 2,
        scheduler_config: scheduler,
        seed_config: nodes,
        peer_config: nodes,
        ..Options::default()
    };
    let cluster = Cluster::start(&lab, &options);
    let path = format!("/v2/{}/manifests/v1?ns={}", model.repository(), registry.address());
    let digest = |peer: &e2e::Node| {
        let answer = Request::get(peer.mirror(), &path).header("Accept", MANIFEST).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            Some(tree::digest(answer.body.as_slice()).as_str()),
            answer.header("docker-content-digest")
        );
        tree::digest(answer.body.as_slice())
    };
    assert_eq!(digest(&cluster.peers[0]), model.digest());
    // The same layers under another manifest.
    let mut moved: serde_json::Value = serde_json::from_slice(model.manifest()).expect("it is JSON");
    moved["annotations"]["moved"] = "yes".into();
    let body = moved.to_string();
    let put = format!("/v2/{}/manifests/v1", model.repository());
    let pushed = Request::new("PUT", registry.address(), &put)
        .header("Content-Type", MANIFEST)
        .body(body.as_bytes())
        .send();
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    let new = tree::digest(body.as_bytes());
    for peer in &cluster.peers {
        wait::until_true("the tag's new place", SOON, || digest(peer) == new);
    }
    // Each manifest was read once for all nodes. All else was asked by HEAD, which Docker Hub does not count.
    let by_tag = |method: &str| {
        let requests = registry.requests();
        let asked = requests
            .iter()
            .filter(|entry| entry.role().is_some() && entry.asks_manifest());
        asked.filter(|entry| entry.method == method).count()
    };
    wait::until_true("the log of the second manifest", SOON, || by_tag("GET") >= 2);
    assert_eq!(by_tag("GET"), 2, "{:#?}", registry.requests());
    assert!(by_tag("HEAD") >= 1, "{:#?}", registry.requests());
    // The old one is still there by its digest, and none of it was read again.
    let old = format!(
        "/v2/{}/manifests/{}?ns={}",
        model.repository(),
        model.digest(),
        registry.address()
    );
    let answer = Request::get(cluster.peers[1].mirror(), &old).send();
    assert_eq!(answer.body, model.manifest());
}

#[test]
fn without_seeds_a_peer_reads_for_all() {
    let lab = Lab::new("no-seeds");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 0,
            peers: 3,
            ..Options::default()
        },
    );
    std::thread::scope(|threads| {
        for peer in &cluster.peers {
            let to = lab.path(format!("pulled-{}", peer.name()));
            let mut command = pull_through(&lab, peer.mirror(), &model.reference(registry.address()), &to);
            let files = model.files();
            threads.spawn(move || {
                run(&mut command);
                tree::assert_same(&files, &to);
            });
        }
    });
    for blob in model.blobs() {
        assert_eq!(registry.bytes_of(&blob.digest), blob.size, "bytes of {}", blob.digest);
    }
    assert!(
        registry
            .requests()
            .iter()
            .all(|entry| entry.role() == Some(Role::Peer.name()))
    );
}
