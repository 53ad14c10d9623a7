//! What a run has shown: times against the fluid bound, bytes against the model's, messages.

use serde::Serialize;

use crate::scenario::Scenario;
use crate::world::World;

/// Points of a completion curve at most.
const CURVE: usize = 256;

/// The outcome of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// The scenario.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// The run's seed.
    pub seed: u64,
    /// Seeds and peers.
    pub nodes: u32,
    /// Pieces of the model.
    pub pieces: u64,
    /// What no exchange can beat.
    pub bound: Bound,
    /// The peers that are not shown apart.
    pub main: Group,
    /// The groups that are.
    pub apart: Vec<Group>,
    /// Bytes that left the registry, over the model's.
    pub registry_ratio: f64,
    /// Bytes that left seeds, over the model's.
    pub seed_ratio: f64,
    /// Bytes that came into each zone from others, over the model's; the registry's own are not among them.
    pub zone_ratios: Vec<f64>,
    /// Bytes moved between nodes for nothing, over all that were wanted.
    pub waste: f64,
    /// Messages per node: to neighbours, to and from the scheduler.
    pub messages_per_node: f64,
    /// Of these, those of the scheduler.
    pub scheduler_messages_per_node: f64,
    /// Piece requests, over the pieces wanted.
    pub requests_ratio: f64,
    /// Requests to the scheduler per second, from the first want on.
    pub scheduler_requests_per_second: f64,
    /// Requests that it refused.
    pub refused_by_scheduler: u64,
    /// Lookups without a scheduler.
    pub lookups: u64,
    /// Events.
    pub events: u64,
    /// Digest of the trace: equal for equal runs.
    pub trace: u64,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// The share of the main peers that were done after so many times their bound.
    pub curve: Vec<(f64, f64)>,
}

/// The fluid bound: the largest of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bound {
    /// Seconds for the registry to send the model once.
    pub registry_s: f64,
    /// Seconds for the slowest of the main peers to receive it.
    pub down_s: f64,
    /// Seconds for all nodes' uplinks together to send it to all peers.
    pub up_s: f64,
    /// Seconds for a zone's link to let it in once; 0 without limits.
    pub zone_s: f64,
}

/// Times of one group of peers, each from its own want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many they are.
    pub nodes: u32,
    /// How many have not got the model.
    pub unfinished: u32,
    /// The median's time over its bound; each peer's bound has its own downlink in it.
    pub median: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The last.
    pub last: f64,
    /// The median's seconds until a quarter of the model was there from its beginning on, over its bound.
    pub quarter: f64,
    /// The most that any one's bytes in order were behind all that it had, over the model.
    pub lag: f64,
    /// The median's seconds.
    pub median_s: f64,
    /// The last one's seconds.
    pub last_s: f64,
}

impl Bound {
    /// Seconds.
    pub fn seconds(&self) -> f64 {
        self.shared().max(self.down_s)
    }

    /// What is the same for every peer.
    fn shared(&self) -> f64 {
        self.registry_s.max(self.up_s).max(self.zone_s)
    }

    fn of(scenario: &Scenario) -> Self {
        let bits = scenario.model_bytes() as f64 * 8e-9;
        let wanting: Vec<_> = scenario.peers.iter().filter(|peers| !peers.holds).collect();
        let total: f64 = wanting.iter().map(|peers| f64::from(peers.count)).sum();
        let up: f64 = scenario
            .peers
            .iter()
            .filter(|peers| !peers.liars)
            .map(|peers| f64::from(peers.count) * peers.up_gbit)
            .sum();
        let seeds = f64::from(scenario.seeds.count) * scenario.seeds.up_gbit;
        let slowest = wanting
            .iter()
            .filter(|peers| !peers.apart)
            .map(|peers| peers.down_gbit)
            .fold(f64::MAX, f64::min);
        let held = scenario.peers.iter().any(|peers| peers.holds && peers.count > 0);
        let zones = scenario.network.zone_gbit.filter(|_| scenario.network.zones > 1);
        Self {
            registry_s: if held { 0.0 } else { bits / scenario.registry.up_gbit },
            down_s: bits / slowest,
            up_s: total * bits / (up + seeds),
            zone_s: zones.map_or(0.0, |gbit| bits / gbit),
        }
    }
}

impl Figures {
    pub(crate) fn of(world: &World, seed: u64) -> Self {
        let (scenario, tally) = (&world.scenario, &world.tally);
        let bound = Bound::of(scenario);
        let model = scenario.model_bytes() as f64;
        let pieces: u64 = world.blobs.iter().map(|blob| u64::from(blob.geometry().count())).sum();
        let is_main = |group: usize| !scenario.peers[group].apart;
        let main = Times::of(world, &bound, is_main);
        let wanting = scenario.peers.iter().filter(|peers| !peers.holds);
        let wanted = wanting.map(|peers| f64::from(peers.count)).sum::<f64>();
        let nodes = scenario.nodes();
        let per_node = |count: u64| count as f64 / f64::from(nodes);
        let elapsed = (world.now as f64 / 1e9 - scenario.warm_up_s).max(1e-9);
        let before = tally.requests_before_wants;
        Self {
            name: scenario.name.clone(),
            about: scenario.about.clone(),
            seed,
            nodes,
            pieces,
            bound,
            curve: main.curve(),
            main: main.group("peers".into()),
            apart: (0..scenario.peers.len())
                .filter(|group| !is_main(*group) && !scenario.peers[*group].holds)
                .map(|group| Times::of(world, &bound, |other| other == group).group(scenario.peers[group].name.clone()))
                .collect(),
            registry_ratio: tally.registry_bytes as f64 / model,
            seed_ratio: tally.seed_bytes as f64 / model,
            zone_ratios: tally.zone_bytes.iter().map(|bytes| *bytes as f64 / model).collect(),
            waste: tally.wasted as f64 / (model * wanted),
            messages_per_node: per_node(tally.neighbour_messages + tally.scheduler_messages),
            scheduler_messages_per_node: per_node(tally.scheduler_messages),
            requests_ratio: tally.requests as f64 / (pieces as f64 * wanted),
            scheduler_requests_per_second: (tally.scheduler_requests - before) as f64 / elapsed,
            refused_by_scheduler: tally.refused_by_scheduler,
            lookups: tally.lookups,
            events: tally.events,
            trace: tally.trace,
            violations: tally.violations.clone(),
        }
    }

    /// Whether every peer got the model and nothing happened that must not.
    pub fn is_good(&self) -> bool {
        let groups = std::iter::once(&self.main).chain(&self.apart);
        self.violations.is_empty() && groups.map(|group| group.unfinished).sum::<u32>() == 0
    }
}

/// The times of some peers, sorted.
struct Times {
    nodes: u32,
    /// Over each one's own bound.
    done: Vec<f64>,
    quarter: Vec<f64>,
    seconds: Vec<f64>,
    lag: f64,
}

impl Times {
    fn of(world: &World, bound: &Bound, of_group: impl Fn(usize) -> bool) -> Self {
        let bits = world.scenario.model_bytes() as f64 * 8e-9;
        let mut times = Self {
            nodes: 0,
            done: Vec::new(),
            quarter: Vec::new(),
            seconds: Vec::new(),
            lag: 0.0,
        };
        let pieces: u64 = world.blobs.iter().map(|blob| u64::from(blob.geometry().count())).sum();
        for host in &world.hosts {
            let Some(group) = host.group.filter(|group| of_group(*group)) else {
                continue;
            };
            let peers = &world.scenario.peers[group];
            if peers.holds {
                continue;
            }
            times.nodes += 1;
            times.lag = times.lag.max(f64::from(host.progress.lag) / pieces as f64);
            let own = bound.shared().max(bits / peers.down_gbit);
            let (Some(wanted), progress) = (host.progress.wanted, &host.progress) else {
                continue;
            };
            let after = |at: u64| (at - wanted) as f64 / 1e9;
            times.done.extend(progress.done.map(|at| after(at) / own));
            times.seconds.extend(progress.done.map(after));
            times.quarter.extend(progress.quarter.map(|at| after(at) / own));
        }
        for list in [&mut times.done, &mut times.quarter, &mut times.seconds] {
            list.sort_unstable_by(f64::total_cmp);
        }
        times
    }

    fn group(&self, name: String) -> Group {
        Group {
            name,
            nodes: self.nodes,
            unfinished: self.nodes - self.done.len() as u32,
            median: quantile(&self.done, 0.5),
            p99: quantile(&self.done, 0.99),
            last: quantile(&self.done, 1.0),
            quarter: quantile(&self.quarter, 0.5),
            lag: self.lag,
            median_s: quantile(&self.seconds, 0.5),
            last_s: quantile(&self.seconds, 1.0),
        }
    }

    fn curve(&self) -> Vec<(f64, f64)> {
        let count = self.done.len();
        let step = count.div_ceil(CURVE).max(1);
        let points = (0..count).filter(|index| (index + 1) % step == 0 || index + 1 == count || *index == 0);
        points
            .map(|index| (self.done[index], (index + 1) as f64 / f64::from(self.nodes)))
            .collect()
    }
}

/// The smallest value that at least so large a share of the sorted values does not exceed; 0 of none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 100.0);
        assert_eq!(quantile(&values, 0.99), 198.0);
        assert_eq!(quantile(&values, 1.0), 200.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
