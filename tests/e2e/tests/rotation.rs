//! Cluster keys are replaced in three steps while the cluster works and transfers run.

use std::fs;
use std::time::Duration;

use e2e::cluster::keygen;
use e2e::{Cluster, Lab, Model, Node, Options, Pulling, Registry, Throttle, wait};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// The registry's link while nodes are restarted: no pull ends meanwhile.
const RATE: u64 = MIB;
/// What a reader that stops may have read that nobody else has: what its connections and the link hold.
const UNPUBLISHED: u64 = 8 * MIB;

/// The key file's contents in the order of the three steps, and the two keys.
fn steps(lab: &Lab, cluster: &Cluster) -> ([String; 3], [String; 2]) {
    let [old, new] = [cluster.key().to_owned(), keygen(lab, "new.key")]
        .map(|path| fs::read_to_string(path).expect("keygen wrote it"));
    ([format!("{old}{new}"), format!("{new}{old}"), new.clone()], [old, new])
}

fn restart(node: &mut Node) {
    node.stop();
    node.restart();
}

fn assert_no_key_in_logs(cluster: &Cluster, keys: &[String; 2]) {
    for node in cluster.nodes() {
        let log = node.log();
        assert!(!keys.iter().any(|key| log.contains(key.trim())), "a key is in a log");
    }
}

#[test]
fn keys_change_while_the_cluster_works() {
    let lab = Lab::new("rotation");
    let (model, cold) = (Model::small(&lab), Model::every_layer_type(&lab));
    let registry = Registry::start(&lab, &[&model, &cold]);
    let mut cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 2,
            ..Options::default()
        },
    );
    let (steps, keys) = steps(&lab, &cluster);
    let pull = |peer: &Node, model: &Model| {
        Pulling::begin(&lab, "pull", peer, &model.reference(registry.address())).succeeds(model);
    };
    pull(&cluster.peers[0], &model);
    // Accept the new one everywhere; use it everywhere; forget the old one everywhere. After each node, all go on.
    for step in steps {
        fs::write(cluster.key(), &step).expect("the lab is writable");
        for number in 0..4 {
            let node = match number {
                0 => &mut cluster.scheduler,
                1 => &mut cluster.seeds[0],
                number => &mut cluster.peers[number - 2],
            };
            restart(node);
            cluster.wait_joined(3);
            for peer in &cluster.peers {
                pull(peer, &model);
            }
        }
    }
    pull(&cluster.peers[1], &cold);
    registry.assert_read_once(&cold);
    assert_no_key_in_logs(&cluster, &keys);
}

#[test]
fn transfers_run_on_while_keys_are_replaced() {
    let lab = Lab::new("rotation-under-way");
    let registry = Registry::start(&lab, &[]);
    let link = Throttle::start(registry.address(), RATE);
    let mut cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 2,
            peers: 3,
            ..Options::default()
        },
    );
    let (steps, keys) = steps(&lab, &cluster);
    for (number, step) in steps.iter().enumerate() {
        fs::write(cluster.key(), step).expect("the lab is writable");
        let name = format!("step-{number}");
        let model = Model::pushed(&lab, &registry, &name, number as u64, &[(48 * MIB) as usize]);
        let blob = model.largest();
        link.set_rate(RATE);
        let pulls = Pulling::begin_all(&lab, &name, &cluster.peers[..2], &model.reference(link.address()));
        for number in 0..4 {
            let held = |peer: &Node| peer.pieces(&blob.digest);
            let before: Vec<u64> = cluster.peers[..2].iter().map(held).collect();
            let node = match number {
                0 => &mut cluster.scheduler,
                1 | 2 => &mut cluster.seeds[number - 1],
                _ => &mut cluster.peers[2],
            };
            restart(node);
            cluster.wait_joined(5);
            wait::until_true("both pulls go on", SOON, || {
                cluster.peers[..2]
                    .iter()
                    .map(held)
                    .zip(&before)
                    .all(|(now, before)| now > *before)
            });
        }
        let pieces = blob.size.div_ceil(256 << 10);
        let all_under_way = cluster.peers[..2].iter().all(|peer| peer.pieces(&blob.digest) < pieces);
        assert!(all_under_way, "the pulls outlast the restarts");
        link.set_rate(0);
        pulls.into_iter().for_each(|pull| pull.succeeds(&model));
        let again = registry.bytes_of(&blob.digest) - blob.size;
        assert!(
            again <= 2 * UNPUBLISHED,
            "two seeds stopped, and {again} bytes were read again"
        );
        // Those that pulled follow, each between two pulls of its own.
        for number in 0..2 {
            restart(&mut cluster.peers[number]);
            cluster.wait_joined(5);
        }
    }
    let asked_by_peers = registry.requests().iter().any(|entry| entry.role() == Some("peer"));
    assert!(!asked_by_peers, "a seed lived throughout");
    assert_no_key_in_logs(&cluster, &keys);
}
