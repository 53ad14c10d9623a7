//! packswarm: a scheduler, seeds, and a peer on every node.

use std::path::PathBuf;
use std::process::Command;

use e2e::clients::{Containerd, pull_through};
use e2e::lab::binary;
use e2e::{Cluster, Options};
use serde_json::{Value, json};

use super::{System, SystemError, printed};
use crate::site::Site;

/// What pulls from a node's mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `packswarm pull`.
    Pull,
    /// `ctr content fetch`, with a containerd on every node.
    Ctr,
}

/// packswarm with its defaults.
#[derive(Debug)]
pub struct Swarm {
    client: Client,
    /// Stopped before the cluster.
    containerds: Vec<Containerd>,
    cluster: Option<Cluster>,
}

impl Swarm {
    /// With this client; nothing runs yet.
    pub const fn new(client: Client) -> Self {
        Self {
            client,
            containerds: Vec::new(),
            cluster: None,
        }
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("pulls come after the start")
    }
}

impl System for Swarm {
    fn name(&self) -> &'static str {
        match self.client {
            Client::Pull => "packswarm pull",
            Client::Ctr => "packswarm ctr",
        }
    }

    fn version(&self) -> Result<String, SystemError> {
        let ours = printed(Command::new(binary()).arg("--version"))?;
        match self.client {
            Client::Pull => Ok(ours),
            Client::Ctr => {
                let theirs = printed(Command::new("containerd").arg("--version"))?;
                let release = theirs.split(' ').nth(2).unwrap_or_default();
                Ok(format!("{ours}, containerd {release}"))
            }
        }
    }

    fn up(&mut self, site: &Site<'_>) -> Result<(), SystemError> {
        let config = site.registry.insecure();
        let options = Options {
            seeds: site.seeds.len(),
            peers: site.nodes.len(),
            seed_config: &config,
            peer_config: &config,
            network: Some(&site.network),
            ..Options::default()
        };
        let cluster = Cluster::start(&site.lab, &options);
        if self.client == Client::Ctr {
            let start = |(number, peer): (usize, &e2e::Node)| {
                let name = format!("containerd-{number}");
                Containerd::in_host(
                    &site.lab,
                    &name,
                    site.registry.address(),
                    peer.mirror(),
                    &site.nodes[number],
                )
            };
            self.containerds = cluster.peers.iter().enumerate().map(start).collect();
        }
        self.cluster = Some(cluster);
        Ok(())
    }

    fn pull(&self, site: &Site<'_>, node: usize) -> Command {
        match self.client {
            Client::Ctr => self.containerds[node].fetch(&site.reference()),
            Client::Pull => {
                let peer = &self.cluster().peers[node];
                peer.beside(pull_through(
                    &site.lab,
                    peer.mirror(),
                    &site.reference(),
                    &site.pulled(node),
                ))
            }
        }
    }

    fn arrived(&self, site: &Site<'_>, node: usize) -> PathBuf {
        match self.client {
            Client::Pull => site.pulled(node),
            Client::Ctr => self.containerds[node].blobs(),
        }
    }

    fn details(&self) -> Value {
        let told = |node: &e2e::Node| {
            let status = node.status();
            json!({
                "node": node.name(),
                "received": status["received"],
                "sent": status["sent"],
                "connections": status["connections"],
            })
        };
        self.cluster().nodes().map(told).collect()
    }

    fn seed_bytes(&self) -> Option<u64> {
        let sent = |seed: &e2e::Node| seed.status()["sent"].as_u64();
        self.cluster().seeds.iter().map(sent).sum()
    }

    fn down(&mut self, _: &Site<'_>) {
        self.containerds.clear();
        self.cluster = None;
    }
}
