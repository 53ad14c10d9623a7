//! The store of a node, as an operator handles it.

use std::process::Command;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::lab::binary;
use e2e::process::{output, run};
use e2e::{Cluster, Lab, Model, Node, Options, Process, Registry, damage, tree};

const SOON: Duration = Duration::from_secs(30);

/// `packswarm cache` on a running node.
fn cache(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    run(command
        .arg("cache")
        .args(arguments)
        .arg("--admin")
        .arg(format!("http://{}", node.admin())))
}

#[test]
fn a_flipped_bit_is_found_and_its_piece_fetched_again() {
    let lab = Lab::new("verify");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let mut cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            peer_config: "[store]\nscrub_rate = \"0B\"\n",
            ..Options::default()
        },
    );
    let reference = model.reference(registry.address());
    run(&mut pull_through(
        &lab,
        cluster.peers[0].mirror(),
        &reference,
        &lab.path("before"),
    ));
    let blob = model.largest();
    let path = cluster.peers[0].setup().data.join("blobs").join(blob.hex());
    let clean = cache(&cluster.peers[0], &["verify"]);
    assert!(!clean.contains("damaged"), "{clean}");

    // In a running node: it is fetched again before `verify` returns.
    damage::flip_bit(&path, blob.size / 2);
    let received = cluster.peers[0].received("seed");
    let found = cache(&cluster.peers[0], &["verify", &blob.digest]);
    assert!(found.contains("damaged"), "{found}");
    assert!(cluster.peers[0].received("seed") > received, "a piece came again");
    assert_eq!(tree::digest_of(&path), blob.digest);

    // In a stopped one: it is fetched again when it is next wanted.
    cluster.peers[0].stop();
    damage::flip_bit(&path, 7);
    let mut command = Command::new(binary());
    let data = &cluster.peers[0].setup().data;
    let found = output(command.args(["cache", "verify", "--data-dir"]).arg(data));
    assert!(String::from_utf8_lossy(&found.stdout).contains("damaged"), "{found:?}");
    cluster.peers[0].restart();
    run(&mut pull_through(
        &lab,
        cluster.peers[0].mirror(),
        &reference,
        &lab.path("after"),
    ));
    tree::assert_same(&model.files(), &lab.path("after"));
    registry.assert_read_once(&model);
}

#[test]
fn blobs_are_listed_pinned_removed_and_evicted() {
    let lab = Lab::new("evict");
    let (small, types) = (Model::small(&lab), Model::every_layer_type(&lab));
    let registry = Registry::start(&lab, &[&small, &types]);
    // Full above 30 MiB, and then emptied down to 12.
    let config = "[store]\ncapacity = \"60MiB\"\nhigh_water = 0.5\nlow_water = 0.2\n";
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            peer_config: config,
            ..Options::default()
        },
    );
    let peer = &cluster.peers[0];
    let pull = |model: &Model| {
        let to = lab.path(model.repository());
        run(&mut pull_through(
            &lab,
            peer.mirror(),
            &model.reference(registry.address()),
            &to,
        ));
    };
    pull(&small);
    let listed = cache(peer, &["ls", "--json"]);
    for blob in small.blobs() {
        assert!(listed.contains(&blob.digest), "{} is not in {listed}", blob.digest);
    }
    let mut weights = small.blobs().iter().filter(|blob| blob.size > 4 << 20);
    let (kept, removed) = (
        weights.next().expect("there are two"),
        weights.next().expect("there are two"),
    );
    cache(peer, &["pin", &kept.digest]);
    assert_eq!(peer.blob(&kept.digest).expect("it is held")["pinned"], true);
    cache(peer, &["rm", &removed.digest[..20]]);
    assert!(peer.blob(&removed.digest).is_none());
    assert!(!peer.setup().data.join("blobs").join(removed.hex()).exists());
    // It comes from the seed now, not from the registry, and then something has to go: but not what is pinned.
    pull(&small);
    pull(&types);
    cache(peer, &["gc"]);
    assert!(
        peer.blob(&kept.digest).is_some_and(|blob| blob["complete"] == true),
        "the pinned one stays"
    );
    assert!(peer.status()["store_used"].as_u64().expect("a number") <= 30 << 20);
    cache(peer, &["unpin", &kept.digest]);
    assert_eq!(peer.blob(&kept.digest).expect("it is held")["pinned"], false);
    registry.assert_read_once(&small);
}

#[test]
fn a_second_process_on_a_data_directory_is_told_whose_it_is() {
    let lab = Lab::new("second");
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 0,
            peers: 1,
            ..Options::default()
        },
    );
    let mut second = cluster.peers[0].setup().clone();
    second.name = "second".to_owned();
    second.log = lab.log("second");
    let mut process = Process::start("second", &mut e2e::node::command(&second, None), &second.log);
    let status = process.wait(SOON);
    assert!(!status.success(), "it ended with {status}");
    let (said, holder) = (process.log(), cluster.peers[0].process().id().to_string());
    assert!(
        said.contains(&holder) && said.contains(&*second.data.to_string_lossy()),
        "{said}"
    );
    assert_eq!(
        cluster.peers[0].get("/healthz").status,
        200,
        "the first is not disturbed"
    );
}
