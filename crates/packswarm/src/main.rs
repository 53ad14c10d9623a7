//! The `packswarm` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    packswarm::run()
}
