//! Options reach the process, from wherever they are given, and do what they say.

use std::process::{Command, Output};
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::cluster::{keygen, setup};
use e2e::http::Request;
use e2e::lab::binary;
use e2e::process::{output, run};
use e2e::{Lab, Model, Node, Process, Registry, Role, tree, wait};

const SOON: Duration = Duration::from_secs(30);

fn packswarm(arguments: &[&str]) -> Output {
    output(Command::new(binary()).args(arguments))
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "accepted: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn printed_configurations_are_valid_and_misspelt_ones_are_explained() {
    let lab = Lab::new("config");
    for role in ["scheduler", "seed", "peer"] {
        let printed = run(Command::new(binary()).args(["config", "default", role]));
        let file = lab.file(format!("{role}.toml"), &printed);
        run(Command::new(binary()).args(["config", "check"]).arg(file));
    }
    let file = lab.file("peer-misspelt.toml", "[origin]\nread_ahaed = \"1MiB\"\n");
    let said = refused(&packswarm(&["config", "check", &file.to_string_lossy()]));
    assert!(said.contains("read_ahaed") && said.contains("read_ahead"), "{said}");
    // A role refuses it as well, and so does it an unknown variable.
    let said = refused(&packswarm(&["peer", "--config", &file.to_string_lossy()]));
    assert!(said.contains("read_ahead"), "{said}");
    let said = refused(&output(
        Command::new(binary())
            .arg("peer")
            .env("PACKSWARM_ORIGIN_FALBACK", "false"),
    ));
    assert!(said.contains("PACKSWARM_ORIGIN_FALBACK"), "{said}");
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let lab = Lab::new("layers");
    let key = keygen(&lab, "cluster.key");
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("it is bound").port();
    let free = [(); 3].map(|()| std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports"));
    let [in_file, in_environment, in_flag] = free.each_ref().map(port);
    drop(free);
    let text =
        format!("admin = \"127.0.0.1:{in_file}\"\n[log]\nformat = \"json\"\n[mirror]\nlisten = \"127.0.0.1:0\"\n");
    let setup = setup(&lab, Role::Peer, "peer", &text, &key);
    let start = |flag: bool| {
        let mut command = Command::new(binary());
        command
            .arg("peer")
            .arg("--config")
            .arg(&setup.config)
            .arg("--data-dir")
            .arg(&setup.data)
            .arg("--listen")
            .arg("127.0.0.1:0");
        command
            .env("PACKSWARM_CLUSTER_KEY", &setup.key)
            .env("PACKSWARM_ADMIN", format!("127.0.0.1:{in_environment}"));
        if flag {
            command.arg("--admin").arg(format!("127.0.0.1:{in_flag}"));
        }
        Process::start("peer", &mut command, &setup.log)
    };
    let healthy = |port: u16| {
        Request::get(([127, 0, 0, 1], port).into(), "/healthz")
            .try_send()
            .is_ok_and(|answer| answer.status == 200)
    };
    let mut process = start(false);
    wait::until_true("the address of the environment", SOON, || healthy(in_environment));
    assert!(!healthy(in_file) && !healthy(in_flag));
    process.terminate();
    assert!(process.wait(SOON).success());
    for line in process.log().lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "not JSON: {line}"
        );
    }
    let _process = start(true);
    wait::until_true("the address of the flag", SOON, || healthy(in_flag));
    assert!(!healthy(in_file) && !healthy(in_environment));
}

#[test]
fn a_node_that_may_not_read_the_registry_does_not() {
    let lab = Lab::new("fallback");
    let model = Model::small(&lab);
    let registry = Registry::start(&lab, &[&model]);
    let reference = model.reference(registry.address());
    let key = keygen(&lab, "cluster.key");
    let memory = std::sync::Arc::default();
    // All alone, a peer waits a little and then reads for itself, unless it must not.
    let patience = "[origin]\nwait = \"1s\"\n[mirror]\nanswer_timeout = \"5s\"\n";
    let forbidden = patience.replace("wait", "fallback = false\nwait");
    let forbidden = Node::start(setup(&lab, Role::Peer, "forbidden", &forbidden, &key), &memory);
    let path = format!("/v2/{}/manifests/v1?ns={}", model.repository(), registry.address());
    let answer = Request::get(forbidden.mirror(), &path).header("Accept", "*/*").send();
    assert!(
        (500..600).contains(&answer.status),
        "{}: {}",
        answer.status,
        answer.text()
    );
    assert_eq!(registry.requests(), []);
    let alone = Node::start(setup(&lab, Role::Peer, "alone", patience, &key), &memory);
    run(&mut pull_through(&lab, alone.mirror(), &reference, &lab.path("pulled")));
    tree::assert_same(&model.files(), &lab.path("pulled"));
    assert!(
        registry
            .requests()
            .iter()
            .all(|entry| entry.peer_id() == Some(alone.peer_id()))
    );
}
