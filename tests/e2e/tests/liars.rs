//! A node that serves altered bytes harms nobody.

use std::thread;

use e2e::clients::pull_through;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry, damage, tree};

#[test]
fn altered_pieces_are_refused_and_fetched_elsewhere() {
    let lab = Lab::new("liars");
    let model = Model::one_file(&lab, 96);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 4,
            ..Options::default()
        },
    );
    let reference = model.reference(registry.address());
    let pull = |number: usize| {
        let to = lab.path(format!("pulled-{number}"));
        run(&mut pull_through(&lab, cluster.peers[number].mirror(), &reference, &to));
        tree::assert_same(&model.files(), &to);
    };
    pull(0);
    // What it serves it takes from this file's pages, and has no reason to doubt them.
    let blob = model.largest();
    let liar = &cluster.peers[0];
    damage::alter_every_piece(&liar.setup().data.join("blobs").join(blob.hex()));
    thread::scope(|threads| {
        for number in 1..4 {
            threads.spawn(move || pull(number));
        }
    });
    let victims = &cluster.peers[1..];
    let refused: f64 = victims
        .iter()
        .map(|peer| peer.metric("packswarm_pieces_rejected_total", &[]))
        .sum();
    assert!(refused > 0.0, "nobody was offered an altered piece");
    assert!(
        victims.iter().any(|peer| peer.log().contains(liar.peer_id())),
        "nobody names the liar"
    );
    registry.assert_read_once(&model);
}
