//! What one would show to a colleague.

use std::process::Command;

use e2e::lab::binary;
use e2e::process::{output, run};
use e2e::{Cluster, Lab, Options};

#[test]
fn the_demo_shows_a_whole_cluster_and_keeps_its_promise() {
    let lab = Lab::new("demo");
    let temporary = lab.dir("tmp");
    let mut command = Command::new(binary());
    command
        .args(["demo", "--peers", "4", "--size", "48MiB", "--registry-rate", "48MiB"])
        .env("TMPDIR", &temporary);
    let shown = run(&mut command);
    for node in ["peer 1", "peer 4", "seed"] {
        assert!(shown.contains(node), "no {node} in\n{shown}");
    }
    assert!(shown.contains("1.00"), "no ratio in\n{shown}");
    let left = std::fs::read_dir(temporary).expect("it is ours").count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[test]
fn the_demo_takes_a_model_of_ones_own() {
    let lab = Lab::new("demo-model");
    let model = e2e::Model::small(&lab);
    let mut command = Command::new(binary());
    let shown = run(command.args(["demo", "--peers", "2", "--model"]).arg(model.files()));
    assert!(shown.contains("1.00"), "no ratio in\n{shown}");
    let nothing = output(Command::new(binary()).args(["demo", "--model"]).arg(lab.dir("empty")));
    assert!(!nothing.status.success(), "an empty directory is no model");
}

#[test]
fn status_shows_every_role() {
    let lab = Lab::new("status");
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 1,
            ..Options::default()
        },
    );
    for node in cluster.nodes().chain([&cluster.scheduler]) {
        let status = |more: &[&str]| {
            run(Command::new(binary())
                .arg("status")
                .arg("--admin")
                .arg(node.admin().to_string())
                .args(more))
        };
        let shown = status(&[]);
        assert!(
            shown.contains(node.peer_id()) && shown.contains(node.setup().role.name()),
            "{shown}"
        );
        let json: serde_json::Value = serde_json::from_str(&status(&["--json"])).expect("it is JSON");
        assert_eq!(
            (&json["role"], &json["peer_id"]),
            (&node.setup().role.name().into(), &node.peer_id().into())
        );
    }
    let nobody = output(Command::new(binary()).args(["status", "--admin", "127.0.0.1:1"]));
    assert!(
        String::from_utf8_lossy(&nobody.stderr).contains("127.0.0.1:1"),
        "{nobody:?}"
    );
}
