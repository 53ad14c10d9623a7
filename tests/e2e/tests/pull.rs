//! `packswarm pull`, as whoever waits for a model sees it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use e2e::clients::{pull, pull_through};
use e2e::process::{output, run};
use e2e::{Cluster, Lab, Model, Options, Registry, Throttle, tree, wait};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn pair(lab: &Lab) -> Cluster {
    Cluster::start(
        lab,
        &Options {
            seeds: 1,
            peers: 1,
            ..Options::default()
        },
    )
}

/// The events of `--json`.
fn events(output: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    output.lines().map(parse).collect()
}

fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {event}"))
}

#[test]
fn a_pull_tells_its_events_and_a_repeated_one_does_nothing() {
    let lab = Lab::new("events");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = pair(&lab);
    let (reference, to) = (model.reference(registry.address()), lab.path("pulled"));
    let pull = || {
        events(&run(
            pull_through(&lab, cluster.peers[0].mirror(), &reference, &to).arg("--json")
        ))
    };

    let first = pull();
    let kinds: Vec<_> = first
        .iter()
        .map(|event| event["event"].as_str().expect("every event has a kind"))
        .collect();
    assert_eq!(
        (kinds[0], kinds[1], kinds.last()),
        ("resolved", "planned", Some(&"done")),
        "{kinds:?}"
    );
    assert_eq!(first[0]["digest"], model.digest().as_str());
    let files = tree::files(&model.files());
    let layers: u64 = files.values().sum();
    assert_eq!(
        (number(&first[1], "items"), number(&first[1], "bytes")),
        (files.len() as u64, layers)
    );
    for kind in ["started", "placed"] {
        assert_eq!(
            kinds.iter().filter(|known| **known == kind).count(),
            files.len(),
            "{kind}"
        );
    }
    let done = first.last().expect("there are events");
    assert_eq!(
        (number(done, "bytes"), number(done, "streamed"), number(done, "reused")),
        (layers, layers, 0)
    );
    tree::assert_same(&model.files(), &to);

    let before = fs::metadata(to.join(model.largest().path.as_ref().expect("a raw layer"))).expect("it is there");
    let sent = cluster.peers[0].metric("packswarm_mirror_bytes_total", &[]);
    let second = pull();
    let done = second.last().expect("there are events");
    assert_eq!((number(done, "streamed"), number(done, "reused")), (0, layers));
    let sent = (cluster.peers[0].metric("packswarm_mirror_bytes_total", &[]) - sent) as u64;
    assert!(sent < MIB, "{sent} bytes for a manifest and a config");
    let after = fs::metadata(to.join(model.largest().path.as_ref().expect("a raw layer"))).expect("it is there");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    registry.assert_read_once(&model);
}

#[test]
fn a_killed_pull_goes_on_where_it_stopped() {
    let lab = Lab::new("resume");
    let model = Model::one_file(&lab, 192);
    let registry = Registry::start(&lab, &[&model]);
    let link = Throttle::start(registry.address(), 48 * MIB);
    let cluster = pair(&lab);
    let (reference, to) = (model.reference(link.address()), lab.path("pulled"));
    let mut command = pull_through(&lab, cluster.peers[0].mirror(), &reference, &to);
    let mut first = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait::until_true("half of the pull", SOON, || {
        cluster.peers[0].metric("packswarm_mirror_bytes_total", &[]) as u64 > model.size() / 2
    });
    first.kill().expect("it runs");
    first.wait().expect("it is ours");
    assert!(
        !to.join(model.largest().path.as_ref().expect("a raw layer")).exists(),
        "nothing unproven has its final name"
    );
    let events = events(&run(
        pull_through(&lab, cluster.peers[0].mirror(), &reference, &to).arg("--json")
    ));
    let done = events.last().expect("there are events");
    assert!(
        number(done, "streamed") < model.size() * 3 / 4,
        "{done}: half of it was there"
    );
    tree::assert_same(&model.files(), &to);
    registry.assert_read_once(&model);
}

#[test]
fn only_what_is_included_is_fetched() {
    let lab = Lab::new("include");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = pair(&lab);
    let to = lab.path("pulled");
    let mut command = pull_through(
        &lab,
        cluster.peers[0].mirror(),
        &model.reference(registry.address()),
        &to,
    );
    run(command.args(["--include", "*.md", "--include", "/configs/"]));
    let all: Vec<_> = tree::files(&model.files()).into_keys().collect();
    let named = |path: &&PathBuf| path.starts_with("configs") || path.extension().is_some_and(|found| found == "md");
    let found: Vec<_> = tree::files(&to).into_keys().collect();
    assert_eq!(
        found.iter().collect::<Vec<_>>(),
        all.iter().filter(named).collect::<Vec<_>>()
    );
    assert!(!found.is_empty());
    assert_eq!(
        registry.bytes_of(&model.largest().digest),
        0,
        "weights were not asked for"
    );
    let mut command = pull_through(
        &lab,
        cluster.peers[0].mirror(),
        &model.reference(registry.address()),
        &to,
    );
    let said = output(command.args(["--include", "*.nothing"]));
    assert!(!said.status.success(), "including nothing is a mistake");
}

#[test]
fn a_passing_peer_pulls_where_no_mirror_runs() {
    let lab = Lab::new("passing");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = pair(&lab);
    let to = lab.path("pulled");
    let mut command = pull(&lab, &model.reference(registry.address()), &to);
    command
        .arg("--scheduler")
        .arg(cluster.scheduler.control().to_string())
        .arg("--cluster-key")
        .arg(cluster.key());
    run(&mut command);
    tree::assert_same(&model.files(), &to);
    registry.assert_read_once(&model);
    assert!(!to.join(".packswarm/peer").exists(), "its store is gone with it");
}

#[test]
fn a_linked_file_is_the_stores_own_and_a_copied_one_is_not() {
    let lab = Lab::new("link");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = pair(&lab);
    let peer = &cluster.peers[0];
    let inode = |path: PathBuf| fs::metadata(path).expect("it is there").ino();
    let blob = model.largest();
    let path = blob.path.as_ref().expect("a raw layer");
    let place = |options: &[&str], name: &str| {
        let to = lab.path(name);
        let mut command = pull_through(&lab, peer.mirror(), &model.reference(registry.address()), &to);
        run(command.arg("--store").arg(&peer.setup().data).args(options));
        tree::assert_same_bytes(&model.files().join(path), &to.join(path));
        inode(to.join(path))
    };
    let linked = place(&["--link"], "linked");
    let stored = inode(peer.setup().data.join("blobs").join(blob.hex()));
    assert_eq!(linked, stored);
    assert_ne!(place(&[], "copied"), stored);
    registry.assert_read_once(&model);
}
