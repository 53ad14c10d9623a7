//! `packswarm pull`: a ModelPack artifact, unpacked into a directory.

mod bringing;
mod passing;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Instant;

use modelpack::{Artifact, Include, Options, Summary};

use super::mirror::Mirror;
use super::runtimes::MIRROR;
use crate::config::size;
use crate::failure::{Failure, sentence};
use crate::process;
use crate::reference::Reference;
use passing::Passing;
use progress::{Display, Resolved};

/// Where a peer keeps its blobs unless told otherwise.
const STORE: &str = "/var/lib/packswarm";
/// The largest config blob read: the diffIds of 65,536 layers are 5 MiB.
const MAX_CONFIG: usize = 16 << 20;

/// `packswarm pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The artifact, such as `registry.example:5000/org/model:v1` or `registry.example/org/model@sha256:...`.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Where to unpack it. Files of the same name are replaced, others left alone.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The mirror to pull through. Else the one of this machine's peer (127.0.0.1:7655), if one runs.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// A scheduler of the cluster to join as a passing peer, if no mirror is named or runs here; may be repeated.
    #[arg(long, value_name = "HOST:PORT", env = "PACKSWARM_SCHEDULER", value_delimiter = ',')]
    scheduler: Vec<String>,
    /// The file with the key of that cluster.
    #[arg(long, value_name = "FILE", env = "PACKSWARM_CLUSTER_KEY")]
    cluster_key: Option<PathBuf>,
    /// A registry that speaks plain HTTP, for the passing peer and for tokens; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Take only what matches: a pattern without / matches names at any depth, and a directory means all below it; may be
    /// repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Hard-link files from the peer's store instead of copying them: they take no space of their own, and whoever writes
    /// to them spoils the store.
    #[arg(long)]
    link: bool,
    /// The data directory of this machine's peer, to take files from without streaming them [default: /var/lib/packswarm,
    /// if it can be read].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Layers at a time.
    #[arg(long, value_name = "N", default_value_t = Options::default().concurrency)]
    concurrency: usize,
    /// Print events as JSON, one object per line (docs/cli.md has their schema).
    #[arg(long)]
    json: bool,
    /// What to log: a level, or levels by part, such as info,transport=debug.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Pulls.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let display = Display::new(args.json);
    let log = display.clone();
    process::log_to(&args.log, move || log.log())?;
    runtime.block_on(async {
        let pulled = pull(&args, &display).await;
        display.close(pulled.as_ref().err().map(|error| sentence(error.as_ref())));
        pulled
    })
}

async fn pull(args: &Args, display: &Display) -> Result<(), Failure> {
    let include = Include::new(&args.include)?;
    let (mirror, passing) = match way(args).await? {
        Way::Mirror(mirror) => (mirror.with_store(readable_store(args)?), None),
        Way::Passing => {
            let passing = start_passing(args).await?;
            (
                Mirror::new(
                    &passing.mirror(),
                    &args.reference.repository,
                    &args.insecure_registry,
                    "pull",
                )?,
                Some(passing),
            )
        }
    };
    let options = Options {
        include,
        link: args.link && passing.is_none(),
        concurrency: args.concurrency,
        ..Options::default()
    };
    let pulled = through(&mirror, args, options, display).await;
    if let Some(passing) = passing {
        passing.stop(pulled.is_ok()).await?;
    }
    pulled
}

/// How the artifact comes here.
enum Way {
    Mirror(Mirror),
    Passing,
}

async fn way(args: &Args) -> Result<Way, Failure> {
    let repository = &args.reference.repository;
    if let Some(address) = &args.mirror {
        return Ok(Way::Mirror(Mirror::new(
            address,
            repository,
            &args.insecure_registry,
            "pull",
        )?));
    }
    let local = Mirror::new(MIRROR, repository, &args.insecure_registry, "pull")?;
    if local.answers().await {
        return Ok(Way::Mirror(local));
    }
    match (&args.scheduler[..], &args.cluster_key) {
        ([], None) => Err(format!(
            "no mirror answers at {MIRROR}: start a peer here, name another mirror by --mirror URL, or give --scheduler and \
             --cluster-key to pull as a passing peer"
        )
        .into()),
        ([], Some(_)) => Err("a passing peer needs --scheduler HOST:PORT beside --cluster-key".into()),
        (_, None) => Err("a passing peer needs --cluster-key FILE beside --scheduler".into()),
        (_, Some(_)) => Ok(Way::Passing),
    }
}

async fn start_passing(args: &Args) -> Result<Passing, Failure> {
    let cluster_key = args.cluster_key.as_deref().unwrap_or(Path::new(""));
    Passing::start(
        &args.output,
        cluster_key,
        args.scheduler.clone(),
        args.insecure_registry.clone(),
    )
    .await
}

/// The store to take files from. One that was named must be there.
fn readable_store(args: &Args) -> Result<Option<PathBuf>, Failure> {
    let readable = |store: &Path| std::fs::read_dir(store.join("blobs"));
    match &args.store {
        Some(store) => {
            let wrong = |error| format!("{} is no peer's data directory that can be read: {error}", store.display());
            readable(store).map_err(wrong)?;
            Ok(Some(store.clone()))
        }
        None if readable(Path::new(STORE)).is_ok() => Ok(Some(PathBuf::from(STORE))),
        None if args.link => Err(format!(
            "--link needs the peer's store, and {STORE} is none that can be read: name it by --store DIR, or leave --link away"
        )
        .into()),
        None => Ok(None),
    }
}

async fn through(mirror: &Mirror, args: &Args, options: Options, display: &Display) -> Result<(), Failure> {
    let begun = Instant::now();
    let manifest = mirror.manifest(&args.reference).await?;
    let artifact = modelpack::manifest::parse(&manifest.bytes)?;
    let (reference, digest) = (args.reference.to_string(), manifest.digest.to_string());
    display.resolved(&Resolved {
        reference: &reference,
        digest: &digest,
        mirror: mirror.address().as_str(),
        layers: artifact.layers.len(),
        bytes: artifact.size(),
    });
    let config = config_of(mirror, &artifact).await?;
    if options.link {
        bringing::bring(mirror, &artifact, &args.output, &options, display).await?;
    }
    let events = |event| display.event(event);
    let summary = modelpack::unpack(&artifact, &config, &args.output, options, mirror, events).await?;
    display.finished(&digest, &summary, begun.elapsed());
    tracing::debug!(?summary, "pulled");
    Ok(())
}

async fn config_of(mirror: &Mirror, artifact: &Artifact) -> Result<Vec<u8>, Failure> {
    if artifact.config.size > MAX_CONFIG as u64 {
        let found = size::about(artifact.config.size);
        return Err(format!("the artifact's config has {found}, more than a model's can need; it is not read").into());
    }
    Ok(mirror.blob(&artifact.config, MAX_CONFIG).await?)
}

/// What was done, for people.
fn summary_line(summary: &Summary, seconds: f64) -> String {
    let rate = summary.streamed as f64 / seconds.max(0.001);
    format!(
        "{} files, {}: {} streamed in {seconds:.1} s ({}/s), {} were here already",
        summary.files,
        size::about(summary.bytes),
        size::about(summary.streamed),
        size::about(rate as u64),
        size::about(summary.reused),
    )
}
