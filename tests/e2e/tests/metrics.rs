//! Every metric of the contract counts something.

use std::thread;
use std::time::Duration;

use e2e::clients::pull_through;
use e2e::node::sum;
use e2e::process::run;
use e2e::{Cluster, Lab, Model, Options, Registry, damage, wait};

const SOON: Duration = Duration::from_secs(60);

/// The contract's, and the scheduler's own.
const NODES: [(&str, &[&str]); 14] = [
    ("packswarm_registry_bytes_total", &["registry="]),
    ("packswarm_registry_requests_total", &["registry=", "kind="]),
    ("packswarm_received_bytes_total", &["source=\"peer\""]),
    ("packswarm_received_bytes_total", &["source=\"seed\""]),
    ("packswarm_received_bytes_total", &["source=\"registry\""]),
    ("packswarm_sent_bytes_total", &[]),
    ("packswarm_pieces_rejected_total", &["reason="]),
    ("packswarm_mirror_requests_total", &["kind=\"blob\"", "status=\"200\""]),
    ("packswarm_mirror_bytes_total", &[]),
    ("packswarm_blob_seconds_count", &[]),
    ("packswarm_store_bytes", &[]),
    ("packswarm_scrubbed_bytes_total", &[]),
    ("packswarm_damaged_pieces_total", &[]),
    ("packswarm_connections", &[]),
];
const SCHEDULER: [(&str, &[&str]); 3] = [
    ("packswarm_scheduler_nodes", &[]),
    ("packswarm_scheduler_swarms", &[]),
    ("packswarm_scheduler_requests_total", &["kind="]),
];

#[test]
fn every_metric_is_seen_at_work() {
    let lab = Lab::new("metrics");
    let model = Model::one_file(&lab, 96);
    let registry = Registry::start(&lab, &[&model]);
    let cluster = Cluster::start(
        &lab,
        &Options {
            seeds: 1,
            peers: 4,
            // Slow enough for others to be offered what has gone bad before it is found.
            peer_config: "[store]\nscrub_rate = \"1MiB\"\n",
            ..Options::default()
        },
    );
    let reference = model.reference(registry.address());
    let pull = |number: usize| {
        let to = lab.path(format!("pulled-{number}"));
        run(&mut pull_through(&lab, cluster.peers[number].mirror(), &reference, &to));
    };
    // One that will serve altered bytes, for pieces to be rejected; then several that exchange them.
    pull(0);
    damage::alter_every_piece(&cluster.peers[0].setup().data.join("blobs").join(model.largest().hex()));
    thread::scope(|threads| {
        for number in 1..4 {
            threads.spawn(move || pull(number));
        }
    });

    wait::until_true("the damage's discovery", SOON, || {
        cluster.peers[0].metric("packswarm_damaged_pieces_total", &[]) > 0.0
    });

    let of_nodes: String = cluster.nodes().map(|node| node.get("/metrics").text()).collect();
    for (name, labels) in NODES {
        assert!(
            sum(&of_nodes, name, labels) > 0.0,
            "{name}{labels:?} is nowhere more than zero:\n{of_nodes}"
        );
    }
    let of_scheduler = cluster.scheduler.get("/metrics").text();
    for (name, labels) in SCHEDULER {
        assert!(
            sum(&of_scheduler, name, labels) > 0.0,
            "{name}{labels:?} is not more than zero:\n{of_scheduler}"
        );
    }
    // Nothing else is there that no test has seen at work.
    let families = |text: &str| -> Vec<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect()
    };
    for family in families(&of_nodes).into_iter().chain(families(&of_scheduler)) {
        let known = NODES
            .iter()
            .chain(&SCHEDULER)
            .any(|(name, _)| name.strip_suffix("_count").unwrap_or(name) == family);
        assert!(known, "{family} is in no list above");
    }
    // The registry's bytes, as the seed counts them and as the registry has logged them.
    let logged: u64 = registry.requests().iter().map(|entry| entry.bytes).sum();
    assert_eq!(sum(&of_nodes, "packswarm_registry_bytes_total", &[]) as u64, logged);
}
