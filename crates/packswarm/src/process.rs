//! Running a role: its configuration, its sockets, its signals, and the file that says that it is ready.

mod logging;
mod ready;
mod signals;
mod sockets;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterKeys, ExpelledFile, NodeKey};
use tokio::runtime::Runtime;

use crate::cli::{PeerArgs, SchedulerArgs, SeedArgs};
use crate::config::{
    Flag, NodeSettings, PeerFile, Process, RoleFile, SchedulerFile, SchedulerSettings, SeedFile, environment, load,
};
use crate::failure::{Failure, sentence};
pub(crate) use logging::log_to;
use ready::{Ready, ReadyFile};
use signals::{Signal, Signals};
pub(crate) use sockets::data_and_control;

/// How long threads that block on the disk may take to end, once everything else has.
const LAST_THREADS: Duration = Duration::from_secs(2);

/// Runs a scheduler until it is told to stop.
pub(crate) fn scheduler(args: &SchedulerArgs) -> Result<(), Failure> {
    let settings = load::<SchedulerFile>(args.process.config.as_deref(), &environment()?, args.flags())?.settings()?;
    logging::start(&settings.log)?;
    let runtime = runtime(&settings.process)?;
    let outcome = runtime.block_on(run_scheduler(settings));
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

/// Runs a seed until it is told to stop.
pub(crate) fn seed(args: &SeedArgs) -> Result<(), Failure> {
    node::<SeedFile>(args.process.config.clone(), args.flags())
}

/// Runs a peer until it is told to stop.
pub(crate) fn peer(args: &PeerArgs) -> Result<(), Failure> {
    node::<PeerFile>(args.process.config.clone(), args.flags())
}

fn node<R: RoleFile<Settings = NodeSettings>>(file: Option<PathBuf>, flags: Vec<Flag>) -> Result<(), Failure> {
    let read = move || load::<R>(file.as_deref(), &environment()?, flags.clone())?.settings();
    let settings = read()?;
    logging::start(&settings.log)?;
    let runtime = runtime(&settings.process)?;
    let outcome = runtime.block_on(run_node(settings, || read().map(|settings| settings.config)));
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

async fn run_scheduler(settings: SchedulerSettings) -> Result<(), Failure> {
    let SchedulerSettings {
        process,
        mut config,
        log: _,
    } = settings;
    let mut signals = Signals::new()?;
    let ready = ReadyFile::clear(process.ready_file.as_deref())?;
    let (key, cluster) = keys(&process)?;
    config.control.listen = sockets::usable(process.listen);
    config.expelled = Some(ExpelledFile::within(&process.data_dir));
    let admin = sockets::listen("admin HTTP", process.admin).await?;
    let role = wire::control::Role::Scheduler.name();
    let peer_id = identity::peer_id(key.node_id()).to_string();
    let listeners = scheduler::Listeners { admin };
    let scheduler = scheduler::Scheduler::start(config, listeners, key, cluster).await?;
    let at = scheduler.addresses();
    ready.write(&Ready {
        role,
        peer_id,
        control: at.control,
        data: None,
        mirror: None,
        admin: at.admin,
    })?;
    while let Signal::Reload = signals.next().await {
        tracing::info!("a scheduler has nothing that can be changed while it runs; restart it");
    }
    tracing::info!("stopping; another signal stops at once");
    signals.exit_at_next();
    ready.remove();
    scheduler.stop().await;
    Ok(())
}

async fn run_node<E: std::error::Error + 'static>(
    settings: NodeSettings,
    reread: impl Fn() -> Result<peer::Config, E>,
) -> Result<(), Failure> {
    let NodeSettings {
        process,
        mirror,
        mut config,
        locality,
        log: _,
    } = settings;
    let mut signals = Signals::new()?;
    let ready = ReadyFile::clear(process.ready_file.as_deref())?;
    let (key, cluster) = keys(&process)?;
    config.locality = locality.resolve()?;
    let role = config.role.name();
    let peer_id = identity::peer_id(key.node_id()).to_string();
    config.registry.user_agent = user_agent(role, &peer_id);
    config.expelled = Some(ExpelledFile::within(&process.data_dir));
    let (data, control) = data_and_control(process.listen)?;
    config.control.listen = control;
    let mirror = match mirror {
        Some(address) => Some(sockets::listen("the mirror", address).await?),
        None => None,
    };
    let admin = sockets::listen("admin HTTP", process.admin).await?;
    let peer = peer::Peer::start(config, peer::Listeners { data, mirror, admin }, key, cluster).await?;
    let at = peer.addresses();
    tracing::info!(role, peer_id, control = %at.control, data = %at.data, mirror = ?at.mirror, admin = %at.admin, "running");
    ready.write(&Ready {
        role,
        peer_id,
        control: at.control,
        data: Some(at.data),
        mirror: at.mirror,
        admin: at.admin,
    })?;
    while let Signal::Reload = signals.next().await {
        match reread() {
            Ok(config) => {
                peer.handle().reconfigure(config.node, config.rates).await;
                tracing::info!("the configuration was read again: [exchange], [rates] and [origin] are in effect");
            }
            Err(error) => tracing::error!(error = sentence(&error), "the configuration stays as it was"),
        }
    }
    tracing::info!("stopping: what is under way is finished; another signal stops at once");
    signals.exit_at_next();
    ready.remove();
    peer.stop().await;
    Ok(())
}

/// As a registry's log shows who asked.
pub(crate) fn user_agent(role: &str, peer_id: &str) -> String {
    format!("packswarm/{} ({role}; {peer_id})", env!("CARGO_PKG_VERSION"))
}

/// A node's key, made when it first starts, and the cluster's.
pub(crate) fn node_key(data_dir: &Path) -> Result<Arc<NodeKey>, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|error| format!("cannot make the data directory {}: {error}", data_dir.display()))?;
    Ok(Arc::new(NodeKey::load_or_create(&data_dir.join("node.key"))?))
}

fn keys(process: &Process) -> Result<(Arc<NodeKey>, Arc<ClusterKeys>), Failure> {
    let cluster = Arc::new(ClusterKeys::load(&process.cluster_key)?);
    Ok((node_key(&process.data_dir)?, cluster))
}

fn runtime(process: &Process) -> Result<Runtime, Failure> {
    let workers = match process.workers {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2),
        workers => workers,
    };
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    built.map_err(|error| format!("cannot start {workers} threads: {error}").into())
}
