//! Fifty nodes and a scheduler in one thread, with loss, churn and liars, from one seed: every decision is the production
//! code's. First the faults, then the world heals, and then every download must end.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the world cares about few inputs and answers"
)]

mod performing;
mod world;

use std::time::Duration;

use world::{Faults, World};

const SECOND: Duration = Duration::from_secs(1);
/// 40 pieces of 256 KiB.
const SIZE: u64 = 10 << 20;

#[test]
fn fifty_cold_nodes_read_the_registry_once() {
    let mut world = World::new(1, 2, 50, Faults::default());
    world.everybody_wants(SIZE);
    world.run_until_done(60 * SECOND);
    assert_eq!(world.registry_pieces(), 40, "each piece left the registry once");
    assert!(
        world.sent_by_seeds() <= 6 * 40,
        "the seeds sent {} pieces for 50 downloads of 40",
        world.sent_by_seeds()
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(
            seed,
            2,
            20,
            Faults {
                loss: 0.01,
                ..Faults::default()
            },
        );
        world.everybody_wants(SIZE);
        world.run_until_done(120 * SECOND);
        world.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn every_download_ends_after_loss_and_churn() {
    for seed in 0..8 {
        let mut world = World::new(
            seed,
            2,
            50,
            Faults {
                loss: 0.02,
                kills: 20,
                liars: 0,
            },
        );
        world.everybody_wants(SIZE);
        world.run_until_done(180 * SECOND);
        assert!(world.one_reader_per_epoch(), "seed {seed}");
    }
}

#[test]
fn the_seed_that_reads_is_killed_and_another_goes_on() {
    for seed in 0..8 {
        let mut world = World::new(seed, 2, 20, Faults::default());
        world.everybody_wants(SIZE);
        world.run_until(|world| world.registry_pieces() >= 10, 30 * SECOND);
        world.kill_reader();
        world.run_until_done(60 * SECOND);
        let again = world.registry_pieces() - 40;
        assert!(again <= 10, "seed {seed}: {again} pieces were read twice");
        assert!(world.one_reader_per_epoch());
    }
}

#[test]
fn liars_harm_nobody() {
    for seed in 0..4 {
        let mut world = World::new(
            seed,
            2,
            30,
            Faults {
                liars: 3,
                ..Faults::default()
            },
        );
        world.everybody_wants(SIZE);
        world.run_until_done(60 * SECOND);
        assert_eq!(world.registry_pieces(), 40, "seed {seed}");
    }
}

#[test]
fn a_pull_after_the_scheduler_died_ends() {
    let mut world = World::new(3, 2, 10, Faults::default());
    world.all_but_one_want(SIZE);
    world.run_until_done(60 * SECOND);
    world.kill_scheduler();
    world.everybody_wants(SIZE);
    world.run_until_done(120 * SECOND);
    assert_eq!(
        world.registry_pieces(),
        40,
        "the late node found holders without a scheduler"
    );
}

#[test]
fn a_cold_pull_without_any_scheduler_elects_one_reader() {
    let mut world = World::new(4, 0, 8, Faults::default());
    world.kill_scheduler();
    world.everybody_wants(SIZE);
    world.run_until_done(120 * SECOND);
    assert_eq!(world.registry_pieces(), 40, "one reader was elected");
}

#[test]
fn an_empty_scheduler_learns_the_swarm_from_the_nodes() {
    let mut world = World::new(5, 2, 20, Faults::default());
    world.all_but_one_want(SIZE);
    world.run_until_done(60 * SECOND);
    world.restart_scheduler();
    world.everybody_wants(SIZE);
    world.run_until_done(60 * SECOND);
    assert_eq!(world.registry_pieces(), 40, "nothing was read again");
}
