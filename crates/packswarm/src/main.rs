//! The `packswarm` command.

use std::process::ExitCode;

/// A node runs for months, and its buffers come and go by the second in many sizes and threads. glibc's allocator keeps ever
/// more of them in pieces (`docs/benchmarks.md`); this one gives them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    packswarm::run()
}
