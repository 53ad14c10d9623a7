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
