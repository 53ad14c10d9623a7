//! `packswarm-sim`: runs scenarios and prints what came out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use sim::table::Cost;
use sim::{Figures, Scenario, ScenarioError, plot, simulate, table};

/// Simulates packswarm clusters: the decisions are the product's own, the world around them is modelled.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios and print one row for each.
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Scenario files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Seeds: each scenario is run once with each.
    #[arg(long = "seed", value_name = "N", default_value = "1", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Write completion curves into this folder: one picture per scenario, and one of all.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Print JSON, one object per line, instead of a table.
    #[arg(long)]
    json: bool,
    /// Change a scenario's value, such as `tuning.upload_slots=4` or `peers.0.count=50`.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_override)]
    overrides: Vec<(String, toml::Value)>,
}

/// Why the simulator stopped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{} could not be read: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Scenario { path: PathBuf, error: ScenarioError },
    #[error("{} could not be written: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

fn main() -> ExitCode {
    let Command::Run(run) = Cli::parse().command;
    match run_all(&run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("packswarm-sim: {failure}");
            ExitCode::from(2)
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a run took is shown, and changes nothing in it"
)]
fn now() -> Instant {
    Instant::now()
}

/// Runs everything; false if a peer did not get the model, or something happened that must not.
fn run_all(run: &Run) -> Result<bool, Failure> {
    let scenarios: Vec<Scenario> = run
        .files
        .iter()
        .map(|path| load(path, &run.overrides))
        .collect::<Result<_, _>>()?;
    if !run.json {
        print!("{}", table::head());
    }
    let mut all = Vec::new();
    for scenario in &scenarios {
        for seed in &run.seeds {
            let started = now();
            let figures = simulate(scenario, *seed);
            let cost = Cost {
                wall_s: started.elapsed().as_secs_f64(),
                peak_mib: peak_memory(),
            };
            print!(
                "{}",
                if run.json {
                    json(&figures, cost)
                } else {
                    table::row(&figures, cost)
                }
            );
            all.push(figures);
        }
    }
    if let Some(dir) = &run.svg {
        draw(dir, &scenarios, &all)?;
    }
    Ok(all.iter().all(Figures::is_good))
}

fn load(path: &Path, overrides: &[(String, toml::Value)]) -> Result<Scenario, Failure> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return Err(Failure::Read { path, error }),
    };
    Scenario::parse(&text, overrides).map_err(|error| Failure::Scenario { path, error })
}

fn draw(dir: &Path, scenarios: &[Scenario], all: &[Figures]) -> Result<(), Failure> {
    let write = |path: PathBuf, text: String| fs::write(&path, text).map_err(|error| Failure::Write { path, error });
    fs::create_dir_all(dir).map_err(|error| Failure::Write {
        path: dir.to_owned(),
        error,
    })?;
    for scenario in scenarios {
        let runs: Vec<&Figures> = all.iter().filter(|figures| figures.name == scenario.name).collect();
        let title = format!("{}: {}", scenario.name, scenario.about);
        write(dir.join(format!("{}.svg", scenario.name)), plot::curves(&title, &runs))?;
    }
    if scenarios.len() > 1 {
        let runs: Vec<&Figures> = all.iter().collect();
        write(dir.join("all.svg"), plot::curves("Peers that have the model", &runs))?;
    }
    Ok(())
}

fn json(figures: &Figures, cost: Cost) -> String {
    let mut value = serde_json::to_value(figures).expect("figures are numbers and texts");
    value["wall_s"] = cost.wall_s.into();
    value["peak_mib"] = cost.peak_mib.into();
    format!("{value}\n")
}

/// `KEY=VALUE`, where the value is TOML, or a bare word.
fn parse_override(text: &str) -> Result<(String, toml::Value), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    Ok((
        key.to_owned(),
        parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())),
    ))
}

/// The most memory that this process has held, in MiB; 0 where the system does not say.
fn peak_memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
