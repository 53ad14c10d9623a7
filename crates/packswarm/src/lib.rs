//! packswarm: OCI models to every node, each registry byte read once.
//!
//! `cli` says what can be asked for, `config` what can be set; `process` runs the roles, `commands` do the rest. Everything
//! that lasts longer than a command is in the crates of the roles. The binary is [`run`]; the two readers of what people
//! write ([`config::check`] and [`Reference`]) are public for the tests that feed them nonsense.

mod cli;
mod commands;
pub mod config;
mod failure;
mod http;
mod process;
mod reference;

pub use reference::{NoReference, Reference, Version};

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use failure::Failure;

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::report(failure.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Keygen => commands::keygen::run(),
        Command::Scheduler(args) => process::scheduler(&args),
        Command::Seed(args) => process::seed(&args),
        Command::Peer(args) => process::peer(&args),
        Command::Pull(args) => commands::pull::run(args),
        Command::Preheat(args) => commands::preheat::run(args),
        Command::Status(args) => commands::status::run(&args),
        Command::Node(args) => commands::node::run(&args),
        Command::Cache(args) => commands::cache::run(&args),
        Command::Mirror(args) => commands::runtimes::run(&args),
        Command::Config(args) => commands::config::run(&args),
        Command::Demo(args) => commands::demo::run(args),
    }
}
