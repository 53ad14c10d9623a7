//! How long nodes take for a model: the same model, links and registry, cold each time, with one system after another.
//!
//! The laboratory is `e2e`'s: network namespaces with shaped links, real processes, Debian's `docker-registry`. Where a part of
//! the laboratory itself fails, that panics with the ends of all logs; a system that fails is reported and the others go on.

pub mod figures;
pub mod machine;
pub mod options;
pub mod plot;
pub mod run;
pub mod site;
pub mod systems;
pub mod table;
pub mod units;
pub mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Lab, Model, Network};
use serde::Serialize;

use figures::Row;
use machine::{Machine, free_bytes};
use options::Options;
use run::Run;
use site::Site;
use systems::{Choice, Straight, System as _};

/// Added to the time that a pull may take, for starts and small models.
const LEAST_LIMIT: Duration = Duration::from_secs(60);
/// A pull may take this many times what it takes when all nodes share the registry's link.
const PATIENCE: f64 = 3.0;

/// Why nothing, or not everything, was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine, or who runs this, is not up to it.
    #[error("no laboratory: {0}")]
    NoLaboratory(String),
    /// The data of one run would not fit.
    #[error("{} has {free} bytes free, and the largest run needs {needed}: pull a smaller --size, or name another --scratch", scratch.display())]
    NoRoom {
        /// Where.
        scratch: PathBuf,
        /// How much there is.
        free: u64,
        /// How much is needed.
        needed: u64,
    },
    /// Results cannot be kept.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// Which file or directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// Of each system.
    pub versions: BTreeMap<String, String>,
    /// Rate of the nodes' and seeds' links.
    pub rate: String,
    /// Rate of the registry's link.
    pub registry_rate: String,
    /// Bytes of the largest packet.
    pub mtu: u16,
    /// Bytes of the model's blobs.
    pub model_bytes: u64,
    /// How many there are, the config included.
    pub blobs: usize,
    /// One for each system and number of nodes.
    pub rows: Vec<Row>,
    /// Every run.
    pub runs: Vec<Run>,
    /// What was asked for and could not be measured, and why.
    pub failures: Vec<String>,
}

/// Measures what is asked for, and writes it down. Says on standard error what is going on.
///
/// # Errors
/// If nothing can be measured, or results cannot be written. Systems that fail are in the results.
pub fn measure(options: &Options) -> Result<Results, Error> {
    Network::available().map_err(Error::NoLaboratory)?;
    let (free, needed) = (free_bytes(&options.scratch).unwrap_or(u64::MAX), options.room());
    if free < needed {
        let scratch = options.scratch.clone();
        return Err(Error::NoRoom { scratch, free, needed });
    }
    let lab = Lab::within(&options.scratch, "pull-times");
    let model = Model::weights(&lab, "measured", &options.file_sizes());
    let mut results = Results {
        machine: Machine::this(),
        versions: BTreeMap::new(),
        rate: options.rate.to_string(),
        registry_rate: options.registry_rate.to_string(),
        mtu: options.mtu,
        model_bytes: model.size(),
        blobs: model.blobs().len(),
        rows: Vec::new(),
        runs: Vec::new(),
        failures: Vec::new(),
    };
    let systems = present(options, &mut results);
    for (number, (choice, nodes)) in plan(options, &systems).into_iter().enumerate() {
        let part = format!("run-{number}");
        one_run(lab.part(&part), &model, options, (&choice, nodes), &mut results);
        // The next run needs the room; the laboratory's end would remove it too.
        let _ = fs::remove_dir_all(lab.path(&part));
        results.rows = figures::rows(&results.runs, Straight.name(), model.size(), options);
        if let Some(out) = &options.out {
            write(out, &results)?;
        }
    }
    Ok(results)
}

/// Title of the picture, and of the table.
pub fn title(results: &Results) -> String {
    let mib = results.model_bytes >> 20;
    format!(
        "{mib} MiB from a registry at {} to nodes at {}, MTU {}, cold",
        results.registry_rate, results.rate, results.mtu
    )
}

/// The table with what it has to be read with.
pub fn report(results: &Results) -> String {
    let mut text = format!("{}\n{}\n", title(results), results.machine.line());
    for (system, version) in &results.versions {
        text += &format!("{system}: {version}\n");
    }
    text += "\n";
    text += &table::table(&results.rows);
    for failure in &results.failures {
        text += &format!("\nNot measured: {failure}\n");
    }
    text
}

/// Those of the systems that can be measured here, with their versions noted.
fn present(options: &Options, results: &mut Results) -> Vec<Choice> {
    let mut present = Vec::new();
    for choice in options.systems.iter().chain([&Choice::Straight]) {
        if let Some(missing) = choice.missing() {
            results.failures.push(missing);
            continue;
        }
        let system = choice.system();
        match system.version() {
            Ok(version) => {
                results.versions.insert(system.name().to_owned(), version);
                if options.systems.contains(choice) && !present.contains(choice) {
                    present.push(choice.clone());
                }
            }
            Err(error) => results.failures.push(format!("{}: {error}", system.name())),
        }
    }
    present
}

/// Every run in its order: systems alternate, and each round has one node alone, which all others are compared with.
fn plan(options: &Options, systems: &[Choice]) -> Vec<(Choice, u16)> {
    let mut round = vec![(Choice::Straight, 1)];
    for nodes in &options.nodes {
        for system in systems {
            let run = (system.clone(), *nodes);
            if !round.contains(&run) {
                round.push(run);
            }
        }
    }
    let rounds = usize::from(options.runs);
    std::iter::repeat_n(round, rounds).flatten().collect()
}

fn one_run(lab: Lab, model: &Model, options: &Options, (choice, nodes): (&Choice, u16), results: &mut Results) {
    let mut system = choice.system();
    let what = format!("{}, {nodes} nodes", system.name());
    let shared = options.registry_rate.seconds(model.size()) * f64::from(nodes);
    let slowest = shared.max(figures::bound(model.size(), nodes, options));
    let limit = LEAST_LIMIT + Duration::from_secs_f64(slowest * PATIENCE);
    let site = Site::new(lab, model, options, nodes);
    match run::measure(system.as_mut(), &site, limit) {
        Ok(run) => {
            let last = run.seconds.iter().copied().fold(0.0, f64::max);
            eprintln!(
                "pull-times: {what}: slowest {last:.2} s, {:.1} CPU s, machine {:.0} % busy, load before {}",
                run.usage.cpu_seconds,
                run.usage.machine_busy * 100.0,
                run.load_before
            );
            results.runs.push(run);
        }
        Err(error) => {
            eprintln!("pull-times: {what}: {error}");
            results.failures.push(format!("{what}: {error}"));
        }
    }
}

/// Writes everything that there is so far, so that a run that is stopped has not been for nothing.
fn write(out: &Path, results: &Results) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(out).map_err(failed(out))?;
    let json = serde_json::to_string_pretty(results).expect("results have text keys only") + "\n";
    let svg = plot::plot(&title(results), &results.rows);
    for (name, text) in [
        ("results.json", json),
        ("table.txt", report(results)),
        ("pull-times.svg", svg),
    ] {
        let path = out.join(name);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn systems_alternate_beside_one_straight_node() {
        let options = Options::parse_from([
            "pull-times",
            "--nodes",
            "1,4",
            "--runs",
            "2",
            "--systems",
            "straight,pull",
        ]);
        let planned = plan(&options, &options.systems);
        let round = [
            (Choice::Straight, 1),
            (Choice::Pull, 1),
            (Choice::Straight, 4),
            (Choice::Pull, 4),
        ];
        assert_eq!(planned, [round.clone(), round].concat());
        let options = Options::parse_from(["pull-times", "--nodes", "4", "--runs", "1", "--systems", "pull"]);
        let planned = plan(&options, &options.systems);
        assert_eq!(planned, [(Choice::Straight, 1), (Choice::Pull, 4)]);
    }
}
