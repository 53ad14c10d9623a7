//! What runs of the same kind have in common.

use serde::Serialize;

use crate::options::Options;
use crate::run::Run;

const GIB: f64 = (1_u64 << 30) as f64;

/// The same figure of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The one in the middle; of an even number the mean of the two.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// That of these. Nothing for none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: median(&values)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }

    /// All of it over one number.
    pub fn over(self, by: f64) -> Self {
        Self {
            median: self.median / by,
            least: self.least / by,
            most: self.most / by,
        }
    }
}

/// One row of the table: a system with a number of nodes.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The system's name.
    pub system: String,
    /// How many nodes pulled at once.
    pub nodes: u16,
    /// How many runs there were.
    pub runs: usize,
    /// Seconds of the median node.
    pub median: Spread,
    /// Seconds of the slowest node.
    pub slowest: Spread,
    /// Seconds that no system can be faster than: max(F / registry, F / node, N F / (seeds + nodes)), headers left out.
    pub bound: f64,
    /// The median node over one node alone, straight from the registry.
    pub median_over_one: Option<f64>,
    /// The slowest node over the same.
    pub slowest_over_one: Option<f64>,
    /// Bytes that the registry sent over the model's.
    pub registry: Spread,
    /// Bytes that seeds sent over the model's.
    pub seeds: Spread,
    /// Processor seconds of the system for each GiB that reached a node.
    pub cpu_per_gib: Spread,
    /// The most anonymous memory of any process in any run, in bytes.
    pub peak_anonymous: u64,
    /// Whose that was.
    pub peak_process: String,
    /// The share of the machine that was busy.
    pub machine_busy: Spread,
    /// The load of the minute before each run.
    pub load_before: Spread,
}

/// One row for each system and number of nodes, in the order in which they first ran.
pub fn rows(runs: &[Run], straight: &str, model_bytes: u64, options: &Options) -> Vec<Row> {
    let one = of_kind(runs, straight, 1).filter_map(|run| run.seconds.first().copied());
    let one = Spread::of(one).map(|one| one.median);
    let mut kinds: Vec<(&str, u16)> = Vec::new();
    for run in runs {
        let kind = (run.system.as_str(), run.nodes);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let row = |(system, nodes)| {
        row(
            &of_kind(runs, system, nodes).collect::<Vec<_>>(),
            one,
            model_bytes,
            options,
        )
    };
    kinds.into_iter().filter_map(row).collect()
}

/// Seconds that nobody can be faster than.
pub fn bound(bytes: u64, nodes: u16, options: &Options) -> f64 {
    let uploaders = f64::from(nodes) + f64::from(options.seeds);
    let node = options.rate.seconds(bytes);
    let all = node * f64::from(nodes) / uploaders;
    options.registry_rate.seconds(bytes).max(node).max(all)
}

fn of_kind<'a>(runs: &'a [Run], system: &'a str, nodes: u16) -> impl Iterator<Item = &'a Run> {
    runs.iter()
        .filter(move |run| run.system == system && run.nodes == nodes)
}

fn row(runs: &[&Run], one: Option<f64>, bytes: u64, options: &Options) -> Option<Row> {
    let first = runs.first()?;
    let spread = |of: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(|run| of(run)));
    let size = bytes as f64;
    let slowest = spread(&|run| run.seconds.iter().copied().fold(0.0, f64::max))?;
    let middle = spread(&|run| sorted_median(&run.seconds))?;
    let peaks = runs.iter().flat_map(|run| &run.usage.peak_anonymous);
    let peak = peaks.max_by_key(|(_, bytes)| **bytes);
    Some(Row {
        system: first.system.clone(),
        nodes: first.nodes,
        runs: runs.len(),
        median: middle,
        slowest,
        bound: bound(bytes, first.nodes, options),
        median_over_one: one.map(|one| middle.median / one),
        slowest_over_one: one.map(|one| slowest.median / one),
        registry: spread(&|run| run.registry_bytes as f64)?.over(size),
        seeds: spread(&|run| run.seed_bytes as f64)?.over(size),
        cpu_per_gib: spread(&|run| run.usage.cpu_seconds)?.over(size * f64::from(first.nodes) / GIB),
        peak_anonymous: peak.map_or(0, |(_, bytes)| *bytes),
        peak_process: peak.map(|(name, _)| name.clone()).unwrap_or_default(),
        machine_busy: spread(&|run| run.usage.machine_busy)?,
        load_before: spread(&|run| run.load_before)?,
    })
}

fn sorted_median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    median(&values).unwrap_or(f64::NAN)
}

/// Of sorted values.
fn median(values: &[f64]) -> Option<f64> {
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;
    use crate::usage::Usage;

    pub(crate) fn run(system: &str, seconds: &[f64]) -> Run {
        Run {
            system: system.to_owned(),
            nodes: seconds.len() as u16,
            seconds: seconds.to_vec(),
            registry_bytes: 1 << 28,
            seed_bytes: 3 << 27,
            seed_bytes_counted: true,
            usage: Usage {
                cpu_seconds: 2.0 * seconds.len() as f64,
                cpu_by_program: [].into(),
                machine_busy: 0.5,
                peak_anonymous: [("peer-0/packswarm".to_owned(), 64 << 20)].into(),
                timeline: Vec::new(),
            },
            load_before: 0.25,
            load_after: 1.0,
            dropped: [].into(),
            details: Value::Null,
        }
    }

    pub(crate) fn sample() -> Vec<Row> {
        let runs = [
            run("straight", &[22.0]),
            run("packswarm pull", &[23.0, 24.0, 26.0]),
            run("straight", &[20.0]),
            run("packswarm pull", &[25.0, 26.0, 22.0]),
            run("straight", &[24.0]),
        ];
        rows(&runs, "straight", 1 << 28, &Options::parse_from(["pull-times"]))
    }

    #[test]
    fn runs_of_a_kind_make_a_row() {
        let rows = sample();
        assert_eq!(rows.len(), 2);
        let (one, three) = (&rows[0], &rows[1]);
        assert_eq!((one.nodes, one.runs, one.slowest_over_one), (1, 3, Some(1.0)));
        assert_eq!(
            (one.median.least, one.median.median, one.median.most),
            (20.0, 22.0, 24.0)
        );
        assert_eq!((three.median.median, three.slowest.median), (24.5, 26.0));
        assert_eq!(three.slowest_over_one, Some(26.0 / 22.0));
        assert_eq!((three.registry.median, three.seeds.median), (1.0, 1.5));
        assert_eq!(three.cpu_per_gib.median, 8.0, "six seconds for three quarters of a GiB");
        assert_eq!(
            (three.peak_anonymous, three.peak_process.as_str()),
            (64 << 20, "peer-0/packswarm")
        );
    }

    #[test]
    fn the_bound_is_the_narrowest_place() {
        let options = |arguments: &[&str]| Options::parse_from([&["pull-times"], arguments].concat());
        let bytes = 100_000_000 / 8;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} beside {b}");
        near(bound(bytes, 12, &options(&[])), 1.0);
        near(bound(bytes, 12, &options(&["--registry-rate", "25mbit"])), 4.0);
        near(bound(bytes, 12, &options(&["--rate", "50mbit"])), 2.0);
        near(bound(bytes, 1, &options(&["--registry-rate", "1gbit"])), 1.0);
    }

    #[test]
    fn nothing_has_no_spread() {
        assert_eq!(Spread::of([]), None);
        let two = Spread::of([3.0, 1.0]).unwrap();
        assert_eq!((two.median, two.least, two.most), (2.0, 1.0, 3.0));
    }
}
