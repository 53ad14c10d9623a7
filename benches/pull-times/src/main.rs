//! `pull-times`: compares how long nodes take for a model. `benches/pull-times/README.md` says how to read it.

use std::process::ExitCode;

use clap::Parser;
use pull_times::options::Options;
use pull_times::{measure, report};

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(results) => {
            println!("{}", report(&results));
            if results.failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("pull-times: {error}");
            ExitCode::FAILURE
        }
    }
}
