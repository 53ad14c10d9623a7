//! The commands that end by themselves.

pub(crate) mod cache;
pub(crate) mod config;
pub(crate) mod demo;
mod docker_config;
pub(crate) mod keygen;
mod mirror;
pub(crate) mod node;
pub(crate) mod preheat;
pub(crate) mod pull;
pub(crate) mod runtimes;
pub(crate) mod status;
mod table;

use std::future::Future;
use std::io::{self, Write as _};

use crate::failure::Failure;

/// Runs a command's future. One thread: commands wait, and what is heavy has threads of its own.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(future)
}

/// Writes to standard output. Whoever closes it early has seen enough.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
