//! Small worlds: what a run promises whatever its seed.

use sim::{Figures, Scenario, simulate};

/// A scenario of 16 MiB (64 pieces) on 1 Gbit/s links, with `more` lines of TOML.
fn scenario(peers: u32, more: &str) -> Scenario {
    let text = format!(
        r#"
        name = "test"
        about = "a test"
        limit_s = 600
        model = {{ mib = 16 }}
        registry = {{ up_gbit = 1 }}
        seeds = {{ count = 2, up_gbit = 1, down_gbit = 1 }}
        [[peers]]
        count = {peers}
        up_gbit = 1
        down_gbit = 1
        {more}
        "#
    );
    Scenario::parse(&text, &[]).expect("the tests' scenarios are right")
}

fn good(figures: &Figures) {
    assert!(figures.is_good(), "{figures:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let scenario = scenario(20, "[faults]\nloss = 0.02");
    let [first, again, other] = [7, 7, 8].map(|seed| simulate(&scenario, seed));
    assert_eq!(first, again);
    assert_ne!(first.trace, other.trace);
    good(&first);
}

#[test]
fn the_registry_is_read_once() {
    let figures = simulate(&scenario(30, ""), 1);
    good(&figures);
    assert_eq!(figures.registry_ratio, 1.0);
    assert_eq!(figures.main.nodes, 30);
}

#[test]
fn a_hundred_nodes_stay_near_the_bound() {
    let figures = simulate(&scenario(100, ""), 3);
    good(&figures);
    assert_eq!(figures.registry_ratio, 1.0);
    assert!(
        figures.main.median >= 1.0,
        "nothing beats the bound: {}",
        figures.main.median
    );
    assert!(figures.main.last < 8.0, "{}", figures.main.last);
    assert!(figures.seed_ratio >= 1.0);
    let spent = figures.requests_ratio;
    assert!((1.0..2.0).contains(&spent), "{spent} requests for each piece");
}

#[test]
fn those_who_have_it_spare_the_registry() {
    let scenario = scenario(20, "[[peers]]\ncount = 2\nup_gbit = 1\ndown_gbit = 1\nholds = true");
    let figures = simulate(&scenario, 1);
    good(&figures);
    assert_eq!(figures.registry_ratio, 0.0);
}

#[test]
fn a_model_of_many_blobs_arrives_whole() {
    let mut scenario = scenario(10, "");
    scenario.model.blobs = 20;
    scenario.model.mib = 1.0;
    let figures = simulate(&scenario, 1);
    good(&figures);
    assert_eq!((figures.registry_ratio, figures.pieces), (1.0, 80));
}

#[test]
fn a_streaming_client_is_never_far_behind() {
    let mut scenario = scenario(12, "streaming = true");
    scenario.model.mib = 256.0;
    let figures = simulate(&scenario, 1);
    good(&figures);
    assert!(figures.main.quarter < 0.6 * figures.main.median, "{figures:?}");
    assert!(figures.main.lag <= 0.2, "{figures:?}");
}

#[test]
fn the_next_seed_reads_on_where_the_last_one_died() {
    let figures = simulate(&scenario(20, "[faults]\nreader_killed_s = 0.15"), 1);
    good(&figures);
    assert!(
        (1.0..2.0).contains(&figures.registry_ratio),
        "{}",
        figures.registry_ratio
    );
}

#[test]
fn without_a_scheduler_downloads_finish() {
    let figures = simulate(&scenario(20, "[faults.scheduler]\nafter_s = 0"), 1);
    good(&figures);
    assert!(figures.lookups > 0);
}

/// Lines for a second group of one node that comes `after_s` after the others.
fn late(after_s: f64) -> String {
    format!("[[peers]]\ncount = 1\nup_gbit = 1\ndown_gbit = 1\nafter_s = {after_s}")
}

#[test]
fn a_node_that_comes_after_the_scheduler_died_finds_the_others() {
    let more = format!("{}\n[faults.scheduler]\nafter_s = 5", late(6.0));
    let figures = simulate(&scenario(10, &more), 1);
    good(&figures);
    assert_eq!((figures.registry_ratio, figures.main.nodes), (1.0, 11));
    assert!(figures.lookups > 0);
}

#[test]
fn an_empty_scheduler_learns_the_swarm_from_the_nodes() {
    let more = format!("{}\n[faults.scheduler]\nafter_s = 5\ndown_s = 1", late(10.0));
    let figures = simulate(&scenario(20, &more), 1);
    good(&figures);
    assert_eq!(figures.registry_ratio, 1.0, "nothing was read again");
}

#[test]
fn without_scheduler_and_seeds_one_reader_is_elected() {
    let mut scenario = scenario(8, "[faults.scheduler]\nafter_s = 0");
    scenario.seeds.count = 0;
    let figures = simulate(&scenario, 1);
    good(&figures);
    assert_eq!(figures.registry_ratio, 1.0);
}

#[test]
fn a_reader_that_dies_after_the_scheduler_leaves_nobody_waiting() {
    let more = "over_s = 1\n[faults]\nreader_killed_s = 0.1\n[faults.scheduler]\nafter_s = 0.09";
    for seed in 0..8 {
        good(&simulate(&scenario(8, more), seed));
    }
}

#[test]
fn a_slow_node_does_not_hold_up_the_others() {
    let mut scenario = scenario(38, "");
    scenario.model.mib = 256.0;
    let alone = simulate(&scenario, 1);
    let slow = sim::Peers {
        name: "slow".into(),
        count: 2,
        up_gbit: 0.1,
        down_gbit: 0.1,
        apart: true,
        ..scenario.peers[0].clone()
    };
    scenario.peers.push(slow);
    let figures = simulate(&scenario, 1);
    good(&figures);
    let (with, without) = (figures.main.last_s, alone.main.last_s);
    assert!(with <= 1.25 * without, "{with} s, and {without} s without slow nodes");
}

#[test]
fn the_model_crosses_into_a_zone_about_once() {
    let mut scenario = scenario(80, "[network]\nzones = 8\nzone_gbit = 1");
    scenario.model.mib = 64.0;
    let figures = simulate(&scenario, 1);
    good(&figures);
    let most = figures.zone_ratios.iter().copied().fold(0.0, f64::max);
    assert!(most <= 1.5, "{:?}", figures.zone_ratios);
}

#[test]
fn a_zone_whose_importers_die_gets_the_model_all_the_same() {
    let mut scenario = scenario(40, "[network]\nzones = 2\nzone_gbit = 1\nnotice_s = 3");
    scenario.model.mib = 64.0;
    scenario.faults.churn = Some(sim::Churn {
        share: 0.9,
        from_s: 0.0,
        over_s: 0.3,
        down_s: 60.0,
    });
    for seed in 0..4 {
        good(&simulate(&scenario, seed));
    }
}

#[test]
fn every_shipped_scenario_is_read() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let scenario = Scenario::parse(&text, &[]).unwrap_or_else(|error| panic!("{:?}: {error}", entry.path()));
        assert_eq!(entry.path().file_stem().unwrap().to_str(), Some(scenario.name.as_str()));
        count += 1;
    }
    assert!(count >= 17, "{count} scenarios");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 24, ..Default::default() })]

    /// First the faults, then they stop, and then every download ends; the oracles watch all the while: nothing unverified
    /// is stored, announced, served or published, and no lease has two holders in one epoch.
    #[test]
    fn whatever_goes_wrong_nothing_is_false_and_everything_ends(
        seed in 0u64..1 << 32,
        peers in 2u32..30,
        liars in 0u32..3,
        loss in 0.0f64..0.1,
        churn in 0.0f64..0.9,
        down_s in 0.1f64..5.0,
        over_s in 0.0f64..2.0,
        scheduler in proptest::option::of((0.0f64..1.0, proptest::option::of(0.1f64..5.0))),
        reader in proptest::option::of(0.0f64..0.5),
    ) {
        let mut scenario = scenario(peers, "[network]\nzones = 2\nracks = 2\nzone_gbit = 1\nnotice_s = 3");
        scenario.model.mib = 8.0;
        scenario.model.blobs = 2;
        scenario.peers[0].over_s = over_s;
        scenario.faults.loss = loss;
        scenario.faults.churn = Some(sim::Churn { share: churn, from_s: 0.0, over_s: 1.0, down_s });
        scenario.faults.scheduler = scheduler.map(|(after_s, down_s)| sim::Outage { after_s, down_s });
        scenario.faults.reader_killed_s = reader;
        let honest = scenario.peers[0].clone();
        scenario.peers.push(sim::Peers { name: "liars".into(), count: liars, liars: true, apart: true, ..honest });
        let figures = simulate(&scenario, seed);
        proptest::prop_assert!(figures.is_good(), "seed {seed}: {figures:?}");
    }
}
