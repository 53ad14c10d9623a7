//! What one run takes place in: a network of hosts, a registry in it, a model.

use std::path::PathBuf;

use e2e::registry::Service;
use e2e::{Host, Lab, Link, Model, Network, Registry};

use crate::options::Options;

/// The hosts that no system's processes are in.
const REGISTRY: &str = "registry";
const SCHEDULER: &str = "scheduler";

/// A laboratory for one run, with nothing of the run before in it.
#[derive(Debug)]
pub struct Site<'a> {
    /// Where its files are.
    pub lab: Lab,
    /// What is pulled.
    pub model: &'a Model,
    /// Joins the hosts.
    pub network: Network,
    /// Serves the model.
    pub registry: Registry,
    /// Where a scheduler, tracker or the like has its place, behind a link that is never short.
    pub scheduler: Host,
    /// Where systems that have seeds have them.
    pub seeds: Vec<Host>,
    /// Who pulls.
    pub nodes: Vec<Host>,
    registry_host: Host,
}

impl<'a> Site<'a> {
    /// Sets up hosts and the registry.
    pub fn new(lab: Lab, model: &'a Model, options: &Options, nodes: u16) -> Self {
        let link = |rate: crate::units::Rate| Link {
            up: rate.bits(),
            down: rate.bits(),
            mtu: options.mtu,
        };
        let network = Network::new(link(options.rate));
        let registry_host = network.host_with(REGISTRY, link(options.registry_rate));
        let scheduler = network.host_with(SCHEDULER, Link::OPEN.with_mtu(options.mtu));
        // The names that a cluster of the tests has for its nodes.
        let seeds = (0..options.seeds)
            .map(|number| network.host(&format!("seed-{number}")))
            .collect();
        let nodes = (0..nodes)
            .map(|number| network.host(&format!("peer-{number}")))
            .collect();
        let registry = Registry::in_host(&lab, REGISTRY, &[model], Service::Open, &registry_host);
        Self {
            lab,
            model,
            network,
            registry,
            scheduler,
            seeds,
            nodes,
            registry_host,
        }
    }

    /// The model's name at the registry.
    pub fn reference(&self) -> String {
        self.model.reference(self.registry.address())
    }

    /// Where what a node pulls is to be put.
    pub fn pulled(&self, node: usize) -> PathBuf {
        self.lab.path(format!("pulled-{node}"))
    }

    /// Where a system's processes are: everywhere but at the registry.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.scheduler).chain(&self.seeds).chain(&self.nodes)
    }

    /// The registry's host.
    pub const fn registry_host(&self) -> &Host {
        &self.registry_host
    }
}
