//! The main promise: a model leaves the registry once, however many nodes and whatever clients pull it.

use std::thread;

use e2e::clients::{Containerd, curl, pull_through, skopeo};
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry, tree};

/// A length that is no multiple of a piece's, so that ranges and pieces cross.
const RANGE: u64 = 9_000_001;

#[test]
fn eight_nodes_pull_a_model_at_once_and_the_registry_serves_it_once() {
    let lab = Lab::new("cold-pull");
    let model = Model::large(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 2,
            peers: 8,
            ..Options::default()
        },
    );
    let mirrors: Vec<_> = cluster.peers.iter().map(e2e::Node::mirror).collect();
    let reference = model.reference(registry.address());
    let containerd = Containerd::start(&lab, "containerd", registry.address(), mirrors[4]);
    let (dirs, copied) = (["a", "b", "c", "d"].map(|name| lab.path(name)), lab.path("skopeo"));
    let fetched = ["curl-0", "curl-1"].map(|name| lab.path(name));

    thread::scope(|threads| {
        for (dir, mirror) in dirs.iter().zip(&mirrors) {
            let mut command = pull_through(&lab, *mirror, &reference, dir);
            threads.spawn(move || run(&mut command));
        }
        threads.spawn(|| run(&mut containerd.fetch(&reference)));
        let mut command = skopeo(&lab, registry.address(), mirrors[5], &reference, &copied);
        threads.spawn(move || run(&mut command));
        for (to, mirror) in fetched.iter().zip(&mirrors[6..]) {
            let mut command = curl(&lab, *mirror, registry.address(), &model, RANGE, to);
            threads.spawn(move || run(&mut command));
        }
    });

    registry.assert_read_once(&model);
    for dir in &dirs {
        tree::assert_same(&model.files(), dir);
    }
    model.assert_blobs(|blob| containerd.blob(blob));
    model.assert_blobs(|blob| copied.join(blob.hex()));
    for to in &fetched {
        assert_eq!(tree::digest_of(&to.join("manifest")), model.digest());
        model.assert_blobs(|blob| curl::join(to, blob));
    }
    // Every node has all of it, and read no more than its share of the registry.
    for peer in &cluster.peers {
        assert_eq!(peer.received("registry"), 0, "{}", peer.name());
        assert!(
            peer.blob(&model.largest().digest)
                .is_some_and(|blob| blob["complete"] == true),
            "{}",
            peer.name()
        );
    }
    let read: u64 = cluster.seeds.iter().map(|seed| seed.received("registry")).sum();
    assert_eq!(read, model.size(), "bytes of blobs that the seeds count");
    cluster.memory.assert_below(256 << 20);
}

#[test]
fn all_twenty_layer_types_arrive_as_they_were_packed() {
    let lab = Lab::new("layer-types");
    let model = Model::every_layer_type(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 2,
            peers: 3,
            ..Options::default()
        },
    );
    let reference = model.reference(registry.address());
    let dirs = ["a", "b", "c"].map(|name| lab.path(name));
    thread::scope(|threads| {
        for (dir, peer) in dirs.iter().zip(&cluster.peers) {
            let mut command = pull_through(&lab, peer.mirror(), &reference, dir);
            threads.spawn(move || run(&mut command));
        }
    });
    registry.assert_read_once(&model);
    for dir in &dirs {
        tree::assert_same(&model.files(), dir);
    }
}
