//! `packswarm demo`.

use std::path::PathBuf;

use demo::{Options, run as show};

use super::print;
use crate::config::size;
use crate::failure::Failure;

/// `packswarm demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many peers pull the model at once, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    peers: u16,
    /// Size of the generated model, such as 512MiB. Each node keeps a copy in the temporary directory while the demo runs.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = size::parse)]
    size: u64,
    /// Serve the files of this directory instead of a generated model.
    #[arg(long, value_name = "DIR", conflicts_with = "size")]
    model: Option<PathBuf>,
    /// How fast the demo's registry is in all, per second: its uplink is what a cluster's pull waits for.
    #[arg(long, value_name = "BYTES", default_value = "125MB", value_parser = size::parse)]
    registry_rate: u64,
}

/// Shows a whole cluster, and fails if its promise was not kept.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let options = Options {
        peers: args.peers.into(),
        size: args.size,
        model: args.model,
        registry_rate: args.registry_rate.max(1),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let report = runtime.block_on(show(options))?;
    print(&format!("\n{report}\n"))?;
    if !report.is_kept() {
        return Err(format!(
            "the registry served {} bytes for a model of {}, and peers asked it {} times: the promise of 1.00 was not kept",
            report.registry_bytes, report.model_bytes, report.peer_requests
        )
        .into());
    }
    print(
        "Each byte left the registry once, every piece was checked against its OCI digest, and no peer asked the registry.\n",
    )
}
