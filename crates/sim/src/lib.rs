//! A deterministic, single-threaded, discrete-event simulator of a packswarm cluster.
//!
//! Every node is a `swarm::node::Node` and the scheduler a `swarm::scheduler::Scheduler`: the runtime's own decisions, no
//! copy of them. What is modelled is the world around them: links that flows share, latency, zones and racks, a registry,
//! verification, and faults. From one seed it gives the same trace, bit for bit.
//!
//! [`Scenario`] says what is simulated, [`simulate`] runs it, [`Figures`] is what came out; [`table`] and [`plot`] show it.
//! `docs/simulator.md` explains the model and its simplifications.

mod connecting;
mod faults;
mod figures;
mod hosts;
mod links;
mod oracle;
mod performing;
pub mod plot;
mod queue;
mod reading;
mod scenario;
mod scheduling;
pub mod table;
mod tally;
mod transfers;
mod world;

pub use figures::{Bound, Figures, Group};
pub use scenario::{Churn, Faults, Model, Network, Outage, Peers, Registry, Scenario, ScenarioError, Seeds, Tuning};

/// Runs a scenario to its end. The same scenario and seed give the same figures.
pub fn simulate(scenario: &Scenario, seed: u64) -> Figures {
    let mut world = world::World::new(scenario, seed);
    world.run();
    Figures::of(&world, seed)
}
