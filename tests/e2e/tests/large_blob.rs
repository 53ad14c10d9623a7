//! Memory is bounded, whatever the size of a blob.

use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::http::Request;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry, memory, tree, wait};

const MIB: u64 = 1 << 20;
const WHILE_WORKING: u64 = 256 * MIB;
const IDLE: u64 = 64 * MIB;
const SOON: Duration = Duration::from_secs(60);

/// With `tests/run --long`, 6 GiB.
#[test]
fn a_blob_of_a_gigabyte_and_more_takes_no_process_over_256_mib() {
    let lab = Lab::new("large-blob");
    let model = Model::one_file(&lab, if e2e::long() { 6 << 10 } else { 1 << 10 });
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 4,
            ..Options::default()
        },
    );
    assert_idle(&cluster);
    let dir = lab.path("pulled");
    thread::scope(|threads| {
        let mut command = pull_through(
            &lab,
            cluster.peers[0].mirror(),
            &model.reference(registry.address()),
            &dir,
        );
        if e2e::long() {
            // One copy less on the disk.
            command.arg("--link").arg("--store").arg(&cluster.peers[0].setup().data);
        }
        threads.spawn(move || run(&mut command));
        for peer in &cluster.peers[1..] {
            let path = format!(
                "/v2/{}/blobs/{}?ns={}",
                model.repository(),
                model.largest().digest,
                registry.address()
            );
            threads.spawn(move || {
                let answer = Request::get(peer.mirror(), &path).open().expect("the mirror answers");
                assert_eq!(answer.status, 200);
                assert_eq!(tree::digest(answer), model_digest(&path), "through {}", peer.name());
            });
        }
    });
    let path = model.largest().path.as_ref().expect("a raw layer");
    tree::assert_same_bytes(&model.files().join(path), &dir.join(path));
    registry.assert_read_once(&model);
    for (name, most) in cluster.memory.most() {
        println!("{name}: at most {} MiB of anonymous memory", most / MIB);
    }
    cluster.memory.assert_below(WHILE_WORKING);
    assert_idle(&cluster);
}

/// The digest that a blob's path names.
fn model_digest(path: &str) -> String {
    let (_, rest) = path.split_once("/blobs/").expect("it is a blob's path");
    rest.split('?').next().unwrap_or_default().to_owned()
}

/// Panics unless every process soon has no more memory than one that does nothing.
fn assert_idle(cluster: &Cluster) {
    for node in cluster.nodes().chain([&cluster.scheduler]) {
        let what = format!("{} at less than {} MiB of anonymous memory", node.name(), IDLE / MIB);
        wait::until_true(&what, SOON, || {
            memory::rss_anon(node.process().id()).expect("it runs") < IDLE
        });
    }
}
