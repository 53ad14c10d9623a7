//! A model that is fetched before anybody asks.

use std::process::Command;

use e2e::clients::pull_through;
use e2e::lab::binary;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry, tree};

#[test]
fn seeds_and_then_peers_fetch_ahead_of_their_clients() {
    let lab = Lab::new("preheat");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 2,
            peers: 2,
            ..Options::default()
        },
    );
    let reference = model.reference(registry.address());
    let preheat = |to: &str| {
        let mut command = Command::new(binary());
        command.args(["preheat", &reference, "--to", to, "--wait", "--timeout", "60s"]);
        command
            .arg("--mirror")
            .arg(format!("http://{}", cluster.peers[0].mirror()));
        command.arg("--scheduler").arg(cluster.scheduler.control().to_string());
        command
            .arg("--admin")
            .arg(format!("http://{}", cluster.scheduler.admin()));
        run(command.arg("--cluster-key").arg(cluster.key()));
    };
    preheat("seeds");
    let weights = model.largest();
    let held = |nodes: &[e2e::Node]| {
        nodes
            .iter()
            .filter(|node| node.blob(&weights.digest).is_some_and(|blob| blob["complete"] == true))
            .count()
    };
    assert_eq!(
        (held(&cluster.seeds), held(&cluster.peers)),
        (1, 0),
        "one seed has read it"
    );
    preheat("peers");
    assert_eq!(held(&cluster.peers), 2);
    registry.assert_read_once(&model);
    for (number, peer) in cluster.peers.iter().enumerate() {
        let (to, received) = (lab.path(format!("pulled-{number}")), peer.received("seed"));
        run(&mut pull_through(&lab, peer.mirror(), &reference, &to));
        tree::assert_same(&model.files(), &to);
        assert_eq!(peer.received("seed"), received, "everything was here");
    }
}
