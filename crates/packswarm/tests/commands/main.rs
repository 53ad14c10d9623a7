//! Every command against real processes.
#![allow(clippy::unwrap_used, reason = "the line of a failed unwrap says all in a test")]

mod cluster;

use std::fs;

use cluster::{Cluster, log_of, packswarm, printed, refused, run, until};
use serde_json::Value;

#[test]
fn roles_say_when_they_are_ready_and_end_when_told() {
    let mut cluster = Cluster::start();
    let ready = &cluster.peer.ready;
    let keys: Vec<&String> = ready.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["admin", "control", "data", "mirror", "peer_id", "role"],
        "and nothing else"
    );
    assert_eq!(
        cluster.peer.address("control").port(),
        cluster.peer.address("data").port()
    );
    assert_eq!(
        (&cluster.seed.ready["mirror"], &cluster.scheduler.ready["data"]),
        (&Value::Null, &Value::Null)
    );

    let connected = || {
        let status: Value =
            serde_json::from_str(&printed(&["status", "--json", "--admin", &cluster.peer.admin()])).unwrap();
        (status["scheduler"] == cluster.scheduler.ready["peer_id"]).then_some(())
    };
    until("the peer to find the scheduler", connected);
    let table = printed(&["status", "--admin", &cluster.peer.admin()]);
    assert!(
        table.starts_with("peer ") && table.contains(cluster.peer.ready["peer_id"].as_str().unwrap()),
        "{table}"
    );
    let nodes = || {
        printed(&["status", "--admin", &cluster.scheduler.admin()])
            .contains("1 seeds, 1 peers")
            .then_some(())
    };
    until("the scheduler to know both", nodes);

    for role in [&mut cluster.peer, &mut cluster.seed, &mut cluster.scheduler] {
        assert_eq!(role.stop().code(), Some(0));
    }
}

/// The keys of a JSON object, which docs/cli.md must name.
fn documented_keys(object: &Value) -> Vec<&str> {
    let documentation = include_str!("../../../../docs/cli.md");
    let keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    for key in &keys {
        let named = [format!("\"{key}\""), format!("`{key}`")]
            .iter()
            .any(|name| documentation.contains(name));
        assert!(named, "docs/cli.md does not name {key}");
    }
    keys
}

#[test]
fn the_json_of_status_and_cache_is_what_the_documentation_says() {
    let cluster = Cluster::start();
    let (reference, to, mirror) = (cluster.reference(), cluster.path("pulled"), cluster.peer.mirror());
    printed(&["pull", &reference, "-o", to.to_str().unwrap(), "--mirror", &mirror]);
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&printed(arguments)).unwrap() };
    let status = json(&["status", "--json", "--admin", &cluster.peer.admin()]);
    let node = [
        "blobs",
        "connections",
        "expelled",
        "peer_id",
        "received",
        "role",
        "scheduler",
        "schedulers",
        "sent",
        "settings",
        "store_capacity",
        "store_used",
        "tasks",
        "version",
    ];
    assert_eq!(documented_keys(&status), node);
    assert_eq!(documented_keys(&status["received"]), ["peer", "registry", "seed"]);
    let blob = [
        "complete",
        "digest",
        "held",
        "last_used",
        "media_type",
        "pieces",
        "pinned",
        "size",
    ];
    assert_eq!(documented_keys(&status["blobs"][0]), blob);
    let listed = json(&["cache", "ls", "--json", "--admin", &cluster.peer.admin()]);
    assert_eq!(
        documented_keys(&listed[0]),
        ["complete", "digest", "held", "media_type", "pieces", "pinned", "size"]
    );
    let status = json(&["status", "--json", "--admin", &cluster.scheduler.admin()]);
    assert_eq!(documented_keys(&status).len(), 17);
}

#[test]
fn a_configuration_is_read_again_without_a_stop() {
    let mut cluster = Cluster::start();
    let logged = |text: &str| until(text, || log_of(cluster.dir.path(), "peer").contains(text).then_some(()));
    fs::write(&cluster.peer.config, "[exchange]\nupload_slots = 3").unwrap();
    cluster.peer.signal("HUP");
    logged("the configuration was read again");
    fs::write(&cluster.peer.config, "[exchange]\nupload_slot = 3").unwrap();
    cluster.peer.signal("HUP");
    logged("exchange.upload_slots");
    cluster.scheduler.signal("HUP");
    until("the scheduler's answer", || {
        log_of(cluster.dir.path(), "scheduler")
            .contains("restart it")
            .then_some(())
    });
    assert!(cluster.peer.is_running() && cluster.scheduler.is_running());
}

#[test]
fn a_model_is_pulled_and_its_blobs_are_handled() {
    let mut cluster = Cluster::start();
    let (reference, to) = (cluster.reference(), cluster.path("pulled"));
    let mirror = cluster.peer.mirror();
    let pull = ["pull", &reference, "-o", to.to_str().unwrap(), "--mirror", &mirror];
    printed(&pull);
    cluster.assert_is_model(&to);

    let admin = ["--admin", &cluster.peer.admin()];
    let cache = |arguments: &[&str]| printed(&[&["cache"], arguments, &admin].concat());
    let blobs: Vec<Value> = serde_json::from_str(&cache(&["ls", "--json"])).unwrap();
    assert_eq!(blobs.len(), cluster.model.blobs().len());
    assert!(blobs.iter().all(|blob| blob["complete"] == true));
    assert!(cache(&["ls"]).ends_with(&format!("{} blobs, 2.86 MiB\n", blobs.len())));
    assert!(cache(&["verify"]).contains("all as they should be"));
    let weights = cluster
        .model
        .files()
        .iter()
        .map(|file| &file.content)
        .max_by_key(|content| content.size())
        .unwrap();
    let digest = weights.digest().to_string();
    cache(&["pin", &digest[..20]]);
    assert!(cache(&["ls"]).contains("yes"));
    cache(&["unpin", &digest]);
    assert!(!cache(&["ls"]).contains("yes"));
    assert!(cache(&["gc"]).starts_with("0 blobs"));
    cache(&["rm", &digest]);
    assert!(refused(&["cache", "rm", &digest, admin[0], admin[1]]).contains("no blob here"));

    let data = cluster.path("peer-data");
    let direct = ["cache", "ls", "--data-dir", data.to_str().unwrap()];
    assert!(refused(&direct).contains("--admin"), "the node runs");
    cluster.peer.stop();
    assert!(printed(&direct).contains(&format!("{} blobs", blobs.len() - 1)));
    assert!(refused(&pull).contains(&mirror), "nobody answers there now");
}

#[test]
fn a_passing_peer_pulls_through_the_swarm() {
    let mut cluster = Cluster::start();
    cluster.peer.stop();
    let (reference, to) = (cluster.reference(), cluster.path("pulled"));
    let scheduler = cluster.scheduler.address("control").to_string();
    let mut command = packswarm();
    command
        .args(["pull", &reference, "--scheduler", &scheduler, "-o"])
        .arg(&to);
    command.arg("--cluster-key").arg(&cluster.key).arg("--json");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.assert_is_model(&to);
    assert!(!to.join(".packswarm/peer").exists());
    let served: u64 = cluster.registry.served().values().sum();
    assert_eq!(
        served,
        cluster.model.blobs().iter().map(|blob| blob.size).sum::<u64>(),
        "each byte once"
    );
    let last = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .last()
        .unwrap()
        .to_owned();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&last["event"], last["files"].as_u64()),
        (&Value::from("done"), Some(3))
    );
}

#[test]
fn a_preheat_waits_until_the_seed_has_it() {
    let cluster = Cluster::start();
    let (scheduler, admin) = (
        cluster.scheduler.address("control").to_string(),
        cluster.scheduler.admin(),
    );
    let nodes = || {
        printed(&["status", "--admin", &admin])
            .contains("1 seeds, 1 peers")
            .then_some(())
    };
    until("the scheduler to know both", nodes);
    let (key, mirror) = (cluster.key.to_str().unwrap(), cluster.peer.mirror());
    let preheat = |to: &str| {
        let reference = cluster.reference();
        let who = [
            "--scheduler",
            &scheduler,
            "--cluster-key",
            key,
            "--admin",
            &admin,
            "--mirror",
            &mirror,
        ];
        printed(
            &[
                &["preheat", &reference, "--to", to, "--wait", "--timeout", "20s"][..],
                &who,
            ]
            .concat(),
        )
    };
    assert!(preheat("seeds").ends_with("done\n"));
    let whole = |role: &cluster::Role| {
        let blobs: Vec<Value> =
            serde_json::from_str(&printed(&["cache", "ls", "--json", "--admin", &role.admin()])).unwrap();
        blobs.iter().filter(|blob| blob["complete"] == true).count()
    };
    let all = cluster.model.blobs().len();
    assert_eq!(whole(&cluster.seed), all);
    assert!(whole(&cluster.peer) < all, "the peer has the manifest at most");
    assert!(preheat("peers").ends_with("done\n"));
    assert_eq!(whole(&cluster.peer), all);
}

#[test]
fn mistakes_are_told_apart_from_failures() {
    assert_eq!(run(&["pull"]).status.code(), Some(2));
    assert_eq!(run(&["pull", "http://x/y", "-o", "/tmp"]).status.code(), Some(2));
    assert_eq!(run(&["peer", "--listen", "nowhere"]).status.code(), Some(2));
    let said = refused(&[
        "peer",
        "--cluster-key",
        "/nonexistent/key",
        "--data-dir",
        "/nonexistent",
    ]);
    assert!(said.contains("cannot read the key file /nonexistent/key"), "{said}");
    let said = refused(&["status", "--admin", "127.0.0.1:1"]);
    assert!(said.contains("nobody answers at http://127.0.0.1:1/"), "{said}");
    let said = refused(&[
        "pull",
        "r.example/m:v",
        "-o",
        "/tmp/nowhere",
        "--mirror",
        "127.0.0.1:1",
        "--include",
        "a[z-b]",
    ]);
    assert!(said.contains("a[z-b]"), "{said}");
}

#[test]
fn a_key_is_64_hex_digits() {
    let (one, other) = (printed(&["keygen"]), printed(&["keygen"]));
    assert_eq!(one.len(), 65);
    assert!(one.ends_with('\n') && one.trim_end().chars().all(|c| c.is_ascii_hexdigit()));
    assert_ne!(one, other);
}
