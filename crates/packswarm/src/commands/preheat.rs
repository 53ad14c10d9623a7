//! `packswarm preheat`: having seeds or peers fetch an artifact ahead of any client.

mod blobs;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use control::{Control, To};
use identity::{ClusterKeys, NodeKey};
use piece::Blob;
use wire::control::{Request, Response, Role, Source};

use super::{block_on, print};
use crate::config::{size, time};
use crate::failure::{Failure, sentence};
use crate::reference::Reference;

/// Blobs in one request: far below a message's limit, with the longest names that there are.
const AT_ONCE: usize = 512;

/// `packswarm preheat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The artifact, such as `registry.example:5000/org/model:v1` or `registry.example/org/model@sha256:...`.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// A scheduler; may be repeated, and all of them are told.
    #[arg(
        long,
        required = true,
        value_name = "HOST:PORT",
        env = "PACKSWARM_SCHEDULER",
        value_delimiter = ','
    )]
    scheduler: Vec<String>,
    /// The file with the cluster key.
    #[arg(
        long,
        value_name = "FILE",
        env = "PACKSWARM_CLUSTER_KEY",
        default_value = "/etc/packswarm/cluster.key"
    )]
    cluster_key: PathBuf,
    /// Who is to fetch: for each blob the seed that would read it, or all peers.
    #[arg(long, value_enum, default_value_t = Target::Seeds)]
    to: Target,
    /// Wait until they have fetched it.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time::parse)]
    timeout: Duration,
    /// The admin address of the scheduler that knows all blobs, for --wait [default: port 7656 of each scheduler].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// A mirror to read the manifest through. Else this machine's peer, if one runs, or the registry itself.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// A registry that speaks plain HTTP; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Seeds,
    Peers,
}

/// Preheats.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    block_on(async {
        let blobs = blobs::of(&args).await?;
        let total: u64 = blobs.iter().map(|(blob, _)| blob.size).sum();
        tell_all(&args, &blobs).await?;
        let to = if args.to == Target::Seeds { "seeds" } else { "all peers" };
        print(&format!(
            "{}: {} blobs, {}, to {to}\n",
            args.reference,
            blobs.len(),
            size::about(total)
        ))?;
        if args.wait {
            waiting::until_there(&args, &blobs).await?;
            print("done\n")?;
        }
        Ok(())
    })
}

/// Tells every scheduler; one that takes it is enough.
async fn tell_all(args: &Args, blobs: &[(Blob, Source)]) -> Result<(), Failure> {
    let cluster = Arc::new(ClusterKeys::load(&args.cluster_key)?);
    let config = control::Config {
        kad: false,
        ..control::Config::new(([0, 0, 0, 0], 0).into())
    };
    // A passing member of the cluster needs no name that lasts. It must answer nobody, so what it is asked is dropped.
    let (control, _) = Control::start(config, Arc::new(NodeKey::generate()), cluster).await?;
    let mut taken = false;
    let mut failed = None;
    for scheduler in &args.scheduler {
        match tell(&control, scheduler, args.to, blobs).await {
            Ok(()) => taken = true,
            Err(error) => {
                eprintln!("warning: the scheduler {scheduler}: {}", sentence(error.as_ref()));
                failed = Some(error);
            }
        }
    }
    control.close().await;
    match failed {
        Some(error) if !taken => Err(error),
        Some(_) | None => Ok(()),
    }
}

async fn tell(control: &Control, scheduler: &str, to: Target, blobs: &[(Blob, Source)]) -> Result<(), Failure> {
    let to = match to {
        Target::Seeds => Role::Seed,
        Target::Peers => Role::Peer,
    };
    for blobs in blobs.chunks(AT_ONCE) {
        let request = Request::Preheat {
            blobs: blobs.to_vec(),
            to: Some(to),
        };
        match control.ask(To::Address(scheduler.to_owned()), request).await? {
            Response::Taken => {}
            Response::Registered { .. }
            | Response::Joined { .. }
            | Response::Reported { .. }
            | Response::Upstream { .. }
            | Response::Found { .. }
            | Response::Refused { .. } => {
                return Err("it answers another question; is it a scheduler of the same release?".into());
            }
        }
    }
    Ok(())
}
