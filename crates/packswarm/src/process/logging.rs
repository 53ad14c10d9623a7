//! The log: on standard error, or wherever a command has room for it.

use std::io::{IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{Format, Log};
use crate::failure::Failure;

/// Logs as told from here on; the one thing that is global to the process, because tracing has it so.
pub(super) fn start(log: &Log) -> Result<(), Failure> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.filter)?)
        // A full disk below the log must not become a panic of whoever logs.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match log.format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
}

/// Logs to a writer that is asked for with every line.
pub(crate) fn log_to(
    levels: &str,
    writer: impl Fn() -> Box<dyn Write + Send> + Send + Sync + 'static,
) -> Result<(), Failure> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(levels)?);
    lines
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
}

fn filter(levels: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(levels)
        .map_err(|error| format!("log filter `{levels}`: {error}; write a level, or PART=LEVEL,...").into())
}
