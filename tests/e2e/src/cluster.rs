//! A whole cluster of separate processes.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::lab::binary;
use crate::memory::Watch;
use crate::node::Setup;
use crate::process::run;
use crate::{Lab, Network, Node, Role, wait};

/// Nodes dial again every few seconds.
const JOINED: Duration = Duration::from_secs(30);

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// Seeds to begin with.
    pub seeds: usize,
    /// Peers to begin with.
    pub peers: usize,
    /// The scheduler's configuration file.
    pub scheduler_config: &'a str,
    /// The seeds' configuration file.
    pub seed_config: &'a str,
    /// The peers' configuration file.
    pub peer_config: &'a str,
    /// Where each process gets a host of its own, under its name. Unset: all of them share this machine's loopback.
    pub network: Option<&'a Network>,
}

/// A scheduler with its seeds and peers. Everything is killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The scheduler.
    pub scheduler: Node,
    /// The seeds.
    pub seeds: Vec<Node>,
    /// The peers.
    pub peers: Vec<Node>,
    /// Watches the memory of all of them.
    pub memory: Arc<Watch>,
    key: PathBuf,
    network: Option<Network>,
}

impl Cluster {
    /// Starts the processes, and waits until the scheduler knows all of them.
    pub fn start(lab: &Lab, options: &Options<'_>) -> Self {
        let key = keygen(lab, "cluster.key");
        let memory = Arc::new(Watch::new());
        let mut scheduler = setup(lab, Role::Scheduler, "scheduler", options.scheduler_config, &key);
        if let Some(network) = options.network {
            scheduler.move_to(network.host("scheduler"));
        }
        let scheduler = Node::start(scheduler, &memory);
        let mut cluster = Self {
            scheduler,
            seeds: Vec::new(),
            peers: Vec::new(),
            memory,
            key,
            network: options.network.cloned(),
        };
        for number in 0..options.seeds {
            let seed = cluster.node(lab, Role::Seed, &format!("seed-{number}"), options.seed_config);
            cluster.seeds.push(seed);
        }
        for number in 0..options.peers {
            let peer = cluster.node(lab, Role::Peer, &format!("peer-{number}"), options.peer_config);
            cluster.peers.push(peer);
        }
        cluster.wait_joined(options.seeds + options.peers);
        cluster
    }

    /// Starts another node of this cluster.
    pub fn node(&self, lab: &Lab, role: Role, name: &str, config: &str) -> Node {
        Node::start(self.setup(lab, role, name, config), &self.memory)
    }

    /// How another node of this cluster would be started.
    pub fn setup(&self, lab: &Lab, role: Role, name: &str, config: &str) -> Setup {
        let mut setup = setup(lab, role, name, config, &self.key);
        setup.schedulers.push(self.scheduler.control());
        if let Some(network) = &self.network {
            setup.move_to(network.host(name));
        }
        setup
    }

    /// Waits until the scheduler knows this many nodes.
    pub fn wait_joined(&self, nodes: usize) {
        wait::until_true("every node at the scheduler", JOINED, || {
            self.scheduler.metric("packswarm_scheduler_nodes", &[]) as usize == nodes
        });
    }

    /// The seeds and the peers.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.seeds.iter().chain(&self.peers)
    }

    /// The cluster key's file.
    pub fn key(&self) -> &Path {
        &self.key
    }
}

/// Makes a cluster key with `packswarm keygen`.
pub fn keygen(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.file(name, &run(Command::new(binary()).arg("keygen")));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

/// How a node without a scheduler would be started.
pub fn setup(lab: &Lab, role: Role, name: &str, config: &str, key: &Path) -> Setup {
    Setup {
        role,
        name: name.to_owned(),
        data: lab.dir(name),
        log: lab.log(name),
        config: lab.file(format!("{name}.toml"), config),
        key: key.to_owned(),
        schedulers: Vec::new(),
        ip: Ipv4Addr::LOCALHOST.into(),
        host: None,
    }
}
