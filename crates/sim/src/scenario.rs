//! What is simulated: a model, a registry, nodes, links and faults, read from TOML. Unknown keys are errors.

use std::time::Duration;

use serde::Deserialize;
use swarm::{node, scheduler};
use wire::control::Role;

/// More nodes than any run has memory for.
const MAX_NODES: u32 = 200_000;

/// One simulated world and what happens in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name in tables and files.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// What everybody wants.
    pub model: Model,
    /// Where it comes from.
    pub registry: Registry,
    /// The nodes that may read the registry.
    pub seeds: Seeds,
    /// The nodes that want the model, in groups.
    pub peers: Vec<Peers>,
    /// How they are connected.
    #[serde(default)]
    pub network: Network,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Faults,
    /// Settings of nodes and scheduler that differ from the defaults.
    #[serde(default)]
    pub tuning: Tuning,
    /// Seconds that nodes have to register before the first of them wants the model.
    #[serde(default = "five")]
    pub warm_up_s: f64,
    /// Seconds after the first want at which the run is given up.
    pub limit_s: f64,
}

/// What everybody wants.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// MiB of each blob.
    pub mib: f64,
    /// How many blobs.
    #[serde(default = "one")]
    pub blobs: u32,
}

/// Where the model comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Its uplink, shared by all who read.
    pub up_gbit: f64,
    /// Milliseconds until its first byte.
    #[serde(default = "five")]
    pub rtt_ms: f64,
}

/// The nodes that may read the registry. They stand in zone 0, beside it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// How many.
    pub count: u32,
    /// Uplink of each.
    pub up_gbit: f64,
    /// Downlink of each.
    pub down_gbit: f64,
}

/// A group of nodes that want the model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// What the group is called where groups are shown apart.
    #[serde(default = "peers")]
    pub name: String,
    /// How many.
    pub count: u32,
    /// Uplink of each.
    pub up_gbit: f64,
    /// Downlink of each.
    pub down_gbit: f64,
    /// Gigabytes per second that each verifies. The default is two cores with SHA-NI (`measured.md`).
    #[serde(default = "two_cores")]
    pub verify_gbyte: f64,
    /// Seconds after the warm-up at which the first of them wants the model.
    #[serde(default)]
    pub after_s: f64,
    /// Seconds over which their wants are spread.
    #[serde(default = "tenth")]
    pub over_s: f64,
    /// Whether they have the model already, and only serve.
    #[serde(default)]
    pub holds: bool,
    /// Whether every piece they serve is wrong.
    #[serde(default)]
    pub liars: bool,
    /// Whether a client streams the model from them from its first byte, as fast as it comes.
    #[serde(default)]
    pub streaming: bool,
    /// Whether their times are kept out of the main figures, and shown beside them.
    #[serde(default)]
    pub apart: bool,
}

/// How the nodes are connected. Peers are dealt to the zones, and in each zone to its racks, in turn.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Milliseconds to a node of the same zone and back.
    pub rtt_ms: f64,
    /// How many zones.
    pub zones: u32,
    /// Milliseconds to a node of another zone and back.
    pub zone_rtt_ms: f64,
    /// What each zone can send to all others together, and as much again what it can receive. Absent: no limit.
    pub zone_gbit: Option<f64>,
    /// Racks per zone.
    pub racks: u32,
    /// Seconds after which a killed node's neighbours notice (quinn's idle timeout).
    pub notice_s: f64,
}

/// What goes wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Share of piece transfers that break off.
    pub loss: f64,
    /// Peers that are killed.
    pub churn: Option<Churn>,
    /// When the scheduler is away.
    pub scheduler: Option<Outage>,
    /// When the seed that reads the registry is killed for good: seconds after the warm-up.
    pub reader_killed_s: Option<f64>,
}

/// Peers that are killed, and come back with what their disks hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Share of the peers.
    pub share: f64,
    /// Seconds after the warm-up from which they are killed.
    pub from_s: f64,
    /// Seconds over which.
    pub over_s: f64,
    /// Seconds until each is back.
    pub down_s: f64,
}

/// The scheduler goes away.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// Seconds after the warm-up.
    pub after_s: f64,
    /// Seconds until an empty one takes its place. Absent: never.
    pub down_s: Option<f64>,
}

/// Settings that differ from the defaults of `swarm::node::Config` and `swarm::scheduler::Config`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    missing_docs,
    reason = "the fields are the options of the two configurations, and named like them"
)]
pub struct Tuning {
    pub neighbours: Option<usize>,
    pub lonely_below: Option<usize>,
    pub in_flight_mib: Option<u64>,
    pub in_flight_per_neighbour: Option<usize>,
    /// `window_pieces`.
    pub window_pieces: Option<usize>,
    pub upload_slots: Option<usize>,
    pub seed_slots: Option<usize>,
    pub upload_queue: Option<usize>,
    pub have_interval_ms: Option<u64>,
    pub patience_ms: Option<u64>,
    pub read_ahead_mib: Option<u64>,
    pub origin_ranges: Option<usize>,
    pub origin_range_mib: Option<u64>,
    pub named_neighbours: Option<usize>,
    pub most_neighbours: Option<usize>,
    pub importers: Option<usize>,
    pub seed_fanout: Option<usize>,
    pub reports_per_second: Option<u32>,
}

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML, has unknown keys, or lacks some.
    #[error("this is no scenario: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value makes no sense.
    #[error("scenario `{name}`: {what}")]
    Value {
        /// The scenario.
        name: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl Scenario {
    /// Reads a scenario, with `overrides` (`key.key=value`) in place of what it says.
    ///
    /// # Errors
    /// If the text is not TOML, has unknown keys, lacks some, or has values out of range.
    pub fn parse(text: &str, overrides: &[(String, toml::Value)]) -> Result<Self, ScenarioError> {
        let scenario: Self = if overrides.is_empty() {
            // Straight from the text, for errors that show the line.
            toml::from_str(text)?
        } else {
            let mut table: toml::Table = toml::from_str(text)?;
            overrides.iter().for_each(|(path, value)| put(&mut table, path, value));
            table.try_into()?
        };
        scenario.check().map_err(|what| ScenarioError::Value {
            name: scenario.name.clone(),
            what,
        })?;
        Ok(scenario)
    }

    /// Bytes of each blob.
    pub fn blob_bytes(&self) -> u64 {
        (self.model.mib * f64::from(1 << 20)) as u64
    }

    /// Bytes of the model.
    pub fn model_bytes(&self) -> u64 {
        self.blob_bytes() * u64::from(self.model.blobs)
    }

    /// The settings of a seed or a peer.
    pub fn node_config(&self, role: Role) -> node::Config {
        let tuning = &self.tuning;
        let mut config = match role {
            Role::Seed => node::Config::seed(),
            Role::Peer | Role::Scheduler => node::Config::default(),
        };
        let millis = |value: Option<u64>| value.map(Duration::from_millis);
        let mib = |value: Option<u64>| value.map(|value| value << 20);
        set(&mut config.neighbours, tuning.neighbours);
        set(&mut config.lonely_below, tuning.lonely_below);
        set(&mut config.in_flight_bytes, mib(tuning.in_flight_mib));
        set(&mut config.window_pieces, tuning.window_pieces);
        set(&mut config.in_flight_per_neighbour, tuning.in_flight_per_neighbour);
        let slots = if role == Role::Seed {
            tuning.seed_slots
        } else {
            tuning.upload_slots
        };
        set(&mut config.upload_slots, slots);
        set(&mut config.upload_queue, tuning.upload_queue);
        set(&mut config.have_interval, millis(tuning.have_interval_ms));
        set(&mut config.patience, millis(tuning.patience_ms));
        set(&mut config.read_ahead, mib(tuning.read_ahead_mib));
        set(&mut config.origin_ranges, tuning.origin_ranges);
        set(&mut config.origin_range_bytes, mib(tuning.origin_range_mib));
        config
    }

    /// The scheduler's settings.
    pub fn scheduler_config(&self) -> scheduler::Config {
        let (mut config, tuning) = (scheduler::Config::default(), &self.tuning);
        set(&mut config.neighbours, tuning.named_neighbours);
        set(&mut config.most_neighbours, tuning.most_neighbours);
        set(&mut config.importers, tuning.importers);
        set(&mut config.seed_fanout, tuning.seed_fanout);
        set(&mut config.reports_per_second, tuning.reports_per_second);
        config.limits.nodes = config.limits.nodes.max(self.nodes() as usize + 1);
        config
    }

    /// Seeds and peers.
    pub fn nodes(&self) -> u32 {
        self.seeds.count + self.peers.iter().map(|peers| peers.count).sum::<u32>()
    }

    fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(what.to_owned());
        let links = self
            .peers
            .iter()
            .flat_map(|peers| [peers.up_gbit, peers.down_gbit, peers.verify_gbyte]);
        let fixed = [self.registry.up_gbit, self.seeds.up_gbit, self.seeds.down_gbit];
        let rates = links.chain(fixed).chain(self.network.zone_gbit);
        if !rates.into_iter().all(|rate| rate.is_finite() && rate > 0.0) {
            return wrong("every rate must be above 0");
        }
        if self.blob_bytes() == 0 || self.model.blobs == 0 {
            return wrong("the model must have bytes: set `model.mib` and `model.blobs` above 0");
        }
        if self.nodes() > MAX_NODES || self.peers.iter().all(|peers| peers.holds || peers.count == 0) {
            return wrong("between one and 200,000 nodes must want the model");
        }
        if self.network.zones == 0 || self.network.racks == 0 {
            return wrong("`network.zones` and `network.racks` must be at least 1");
        }
        let shares = [
            Some(self.faults.loss),
            self.faults.churn.as_ref().map(|churn| churn.share),
        ];
        if !shares.into_iter().flatten().all(|share| (0.0..1.0).contains(&share)) {
            return wrong("`faults.loss` and `faults.churn.share` are shares: at least 0 and below 1");
        }
        let churn = self
            .faults
            .churn
            .iter()
            .flat_map(|churn| [churn.from_s, churn.over_s, churn.down_s]);
        let outage = self
            .faults
            .scheduler
            .iter()
            .flat_map(|outage| [Some(outage.after_s), outage.down_s]);
        let arrivals = self.peers.iter().flat_map(|peers| [peers.after_s, peers.over_s]);
        let waits = [
            self.registry.rtt_ms,
            self.network.rtt_ms,
            self.network.zone_rtt_ms,
            self.network.notice_s,
        ];
        let times = churn.chain(outage.flatten()).chain(arrivals).chain(waits);
        let times = times
            .chain([self.warm_up_s, self.limit_s])
            .chain(self.faults.reader_killed_s);
        if !times.into_iter().all(|time| (0.0..1e8).contains(&time)) {
            return wrong("times must be at least 0 and below 1e8");
        }
        Ok(())
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            rtt_ms: 1.0,
            zones: 1,
            zone_rtt_ms: 10.0,
            zone_gbit: None,
            racks: 1,
            notice_s: 15.0,
        }
    }
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}

/// Puts a value at a dotted path; tables on the way are made, and a number on the way indexes an array.
fn put(table: &mut toml::Table, path: &str, value: &toml::Value) {
    let Some((first, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value.clone());
        return;
    };
    let entry = table.entry(first).or_insert_with(|| toml::Table::new().into());
    if let (Some(array), Some((index, rest))) = (entry.as_array_mut(), rest.split_once('.')) {
        let element = index.parse::<usize>().ok().and_then(|index| array.get_mut(index));
        if let Some(element) = element.and_then(toml::Value::as_table_mut) {
            put(element, rest, value);
        }
        return;
    }
    if let Some(inner) = entry.as_table_mut() {
        put(inner, rest, value);
    }
}

const fn five() -> f64 {
    5.0
}

const fn one() -> u32 {
    1
}

const fn tenth() -> f64 {
    0.1
}

const fn two_cores() -> f64 {
    5.8
}

fn peers() -> String {
    "peers".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        name = "small"
        about = "two nodes"
        limit_s = 60
        model = { mib = 16 }
        registry = { up_gbit = 1 }
        seeds = { count = 1, up_gbit = 1, down_gbit = 1 }
        [[peers]]
        count = 2
        up_gbit = 1
        down_gbit = 1
    "#;

    #[test]
    fn a_small_scenario_is_read() {
        let scenario = Scenario::parse(SMALL, &[]).unwrap();
        assert_eq!((scenario.nodes(), scenario.model_bytes()), (3, 16 << 20));
        assert_eq!(scenario.node_config(Role::Peer), node::Config::default());
    }

    #[test]
    fn unknown_keys_are_errors() {
        let wrong = format!("{SMALL}\n upload = 3");
        let error = Scenario::parse(&wrong, &[]).unwrap_err().to_string();
        assert!(error.contains("upload"), "{error}");
        let wrong = vec![("tuning.slots".to_owned(), toml::Value::Integer(3))];
        let error = Scenario::parse(SMALL, &wrong).unwrap_err().to_string();
        assert!(error.contains("slots"), "{error}");
    }

    #[test]
    fn overrides_replace_what_the_file_says() {
        let overrides = [
            ("tuning.upload_slots".to_owned(), toml::Value::Integer(3)),
            ("peers.0.count".to_owned(), toml::Value::Integer(5)),
        ];
        let scenario = Scenario::parse(SMALL, &overrides).unwrap();
        assert_eq!(
            (scenario.node_config(Role::Peer).upload_slots, scenario.nodes()),
            (3, 6)
        );
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let wrong = SMALL.replace("mib = 16", "mib = 0");
        let error = Scenario::parse(&wrong, &[]).unwrap_err().to_string();
        assert!(error.contains("small") && error.contains("model.mib"), "{error}");
    }
}
