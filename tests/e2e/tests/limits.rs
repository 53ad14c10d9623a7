//! What does not fit is refused in words, and what fits goes on.

use std::io::Read;

use e2e::clients::pull_through;
use e2e::http::Request;
use e2e::process::{output, run};
use e2e::{Cluster, Lab, Model, Options, Registry, Throttle, tree};

const MIB: u64 = 1 << 20;

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
