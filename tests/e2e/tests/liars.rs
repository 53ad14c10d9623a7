//! A node that serves altered bytes harms nobody.

use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry, damage, tree, wait};

const SOON: Duration = Duration::from_secs(30);

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
            // It must not find out by itself.
            peer_config: "[store]\nscrub_rate = \"0B\"\n",
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
    for victim in victims
        .iter()
        .filter(|peer| peer.metric("packswarm_pieces_rejected_total", &[]) > 0.0)
    {
        assert!(
            victim.log().contains(liar.peer_id()),
            "{} does not name the liar",
            victim.name()
        );
    }
    // Each of them says so to the scheduler, which keeps the liar from that blob when two have.
    wait::until_true("the scheduler's ban", SOON, || {
        let status = cluster.scheduler.status();
        status["complaints_wrong_bytes"].as_u64() >= Some(1) && status["banned"].as_u64() == Some(1)
    });
    registry.assert_read_once(&model);
}
