//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use toml::Value;

use crate::commands::{cache, config, demo, node, preheat, pull, runtimes, status};
use crate::config::{Flag, Format};

/// OCI models to every node, each registry byte read once.
#[derive(Debug, Parser)]
#[command(name = "packswarm", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a new cluster key: 64 hex digits, the one secret that a cluster shares.
    Keygen,
    /// Run a scheduler: it knows which node has or wants which blob, and decides who reads the registry.
    Scheduler(SchedulerArgs),
    /// Run a seed: it reads blobs from the registry, once, and feeds the swarm while it reads.
    Seed(SeedArgs),
    /// Run a peer: it fetches, verifies, stores and serves, and offers a mirror to this machine's clients.
    Peer(PeerArgs),
    /// Unpack a ModelPack artifact into a directory, through this machine's mirror or as a passing peer.
    Pull(pull::Args),
    /// Have seeds or peers fetch an artifact ahead of any client.
    Preheat(preheat::Args),
    /// Show what a process is doing.
    Status(status::Args),
    /// Expel a node from the cluster, let it back in, list who is out.
    Node(node::Args),
    /// List, check, keep and remove the blobs that a node holds.
    Cache(cache::Args),
    /// Tell container runtimes of the mirror.
    Mirror(runtimes::Args),
    /// Print and check configurations.
    Config(config::Args),
    /// Show a whole cluster on this machine, in one process, with a small registry of its own.
    Demo(demo::Args),
}

/// `packswarm scheduler`.
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

/// `packswarm seed`.
#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// `packswarm peer`.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Where the mirror listens.
    #[arg(long, value_name = "IP:PORT")]
    mirror: Option<SocketAddr>,
}

/// What every role takes. A flag overrides the environment, which overrides the file.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// The configuration; `packswarm config default ROLE` prints one with every option.
    #[arg(long, value_name = "FILE", env = "PACKSWARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the process keeps its node key and its blobs.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The file with the cluster key.
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Where to listen, TCP and UDP; port 0 picks a free one.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where others reach this process, if not where they see it.
    #[arg(long, value_name = "IP:PORT")]
    advertise: Option<SocketAddr>,
    /// Where health, metrics and the admin API listen.
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// A file to put in place once every listener is bound: JSON with the role, peer id and addresses.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What to log: a level, or levels by part, such as info,transport=debug.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look.
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// What nodes take besides.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// A scheduler; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    scheduler: Vec<String>,
    /// A registry that speaks plain HTTP; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
}

impl SchedulerArgs {
    /// The options that were given.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        self.process.flags()
    }
}

impl SeedArgs {
    /// The options that were given.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        [self.process.flags(), self.node.flags()].concat()
    }
}

impl PeerArgs {
    /// The options that were given.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mirror = flag("--mirror", &["mirror", "listen"], self.mirror);
        [self.process.flags(), self.node.flags(), mirror.into_iter().collect()].concat()
    }
}

impl ProcessArgs {
    fn flags(&self) -> Vec<Flag> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let format = self.log_format.map(|format| match format {
            Format::Text => "text",
            Format::Json => "json",
        });
        let given = [
            flag("--data-dir", &["data_dir"], path(&self.data_dir)),
            flag("--cluster-key", &["cluster_key"], path(&self.cluster_key)),
            flag("--listen", &["listen"], self.listen),
            flag("--advertise", &["advertise"], self.advertise),
            flag("--admin", &["admin"], self.admin),
            flag("--ready-file", &["ready_file"], path(&self.ready_file)),
            flag("--log", &["log", "filter"], self.log.as_ref()),
            flag("--log-format", &["log", "format"], format),
        ];
        given.into_iter().flatten().collect()
    }
}

impl NodeArgs {
    fn flags(&self) -> Vec<Flag> {
        let list = |name, path, values: &[String]| {
            let value = Value::Array(values.iter().cloned().map(Value::String).collect());
            (!values.is_empty()).then_some(Flag { name, path, value })
        };
        let given = [
            list("--scheduler", &["scheduler"], &self.scheduler),
            list(
                "--insecure-registry",
                &["registry", "insecure"],
                &self.insecure_registry,
            ),
        ];
        given.into_iter().flatten().collect()
    }
}

fn flag(name: &'static str, path: &'static [&'static str], value: Option<impl ToString>) -> Option<Flag> {
    Some(Flag {
        name,
        path,
        value: Value::String(value?.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::{PeerFile, RoleFile as _, load};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_its_option() {
        let line = "packswarm peer --data-dir /d --cluster-key /k --listen 127.0.0.1:1 --advertise 127.0.0.1:2 \
                    --admin 127.0.0.1:3 --ready-file /r --log debug --log-format json --scheduler a:1 --scheduler b:2 \
                    --insecure-registry r:5000 --mirror 127.0.0.1:4";
        let Command::Peer(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not a peer");
        };
        let settings = load::<PeerFile>(None, &[], args.flags()).unwrap().settings().unwrap();
        let process = &settings.process;
        assert_eq!(
            (process.data_dir.to_str(), process.cluster_key.to_str()),
            (Some("/d"), Some("/k"))
        );
        assert_eq!((process.listen.port(), process.admin.port()), (1, 3));
        assert_eq!(process.advertise, Some("127.0.0.1:2".parse().unwrap()));
        assert_eq!(process.ready_file, Some("/r".into()));
        assert_eq!(
            (settings.log.filter.as_str(), settings.log.format),
            ("debug", Format::Json)
        );
        assert_eq!(settings.mirror, Some("127.0.0.1:4".parse().unwrap()));
        assert_eq!(settings.config.control.schedulers, ["a:1", "b:2"]);
        assert_eq!(settings.config.registry.insecure, ["r:5000"]);
    }
}
