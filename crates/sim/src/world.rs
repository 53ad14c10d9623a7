//! The simulated world: its state, and the loop that takes one event after the other.
//!
//! What each event and each output of a node means is in the files beside this one: `performing` (a node's outputs),
//! `transfers` (pieces), `reading` (the registry), `scheduling` (the control plane), `connecting`, `faults`. What must never
//! happen is checked in `oracle`, what is counted is in `tally`.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use swarm::node::{Identity, Input, Node, Output};
use swarm::scheduler::{self, Scheduler};
use wire::control::{Kind, Repository, Role, Source};

use crate::hosts::Host;
use crate::links::{Cargo, Due, LinkId, Links};
use crate::queue::{Event, Queue, Slab, Time};
use crate::scenario::Scenario;
use crate::scheduling::Asked;
use crate::tally::Tally;
use crate::transfers::Transfers;

/// A tick that is due is given at the earliest after this, so that a machine that asks for the past cannot stop the clock.
const TICK: Time = 50_000;

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Time,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) queue: Queue,
    pub(crate) links: Links,
    pub(crate) hosts: Vec<Host>,
    /// Their ids, which take a hash to make.
    pub(crate) ids: Vec<NodeId>,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) source: Source,
    pub(crate) registry: LinkId,
    /// Out of and into each zone, where zones have limits.
    pub(crate) zones: Vec<(LinkId, LinkId)>,
    pub(crate) transfers: Transfers,
    pub(crate) inputs: Slab<Input>,
    pub(crate) connections: u32,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) scheduler_life: u32,
    pub(crate) scheduler_born: Time,
    pub(crate) scheduler_wake: Time,
    pub(crate) requests: Slab<Asked>,
    pub(crate) scheduler_inputs: Slab<scheduler::Input>,
    /// Who can be found to hold or want each blob when no scheduler answers.
    pub(crate) providers: Vec<Vec<u32>>,
    /// Who was given the lease of a blob in each epoch.
    pub(crate) leases: BTreeMap<(u32, u64), u32>,
    pub(crate) tally: Tally,
    outputs: Vec<Output>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut links = Links::default();
        let registry = links.add(scenario.registry.up_gbit * 1e9);
        let zones = match scenario.network.zone_gbit {
            Some(gbit) if scenario.network.zones > 1 => (0..scenario.network.zones)
                .map(|_| (links.add(gbit * 1e9), links.add(gbit * 1e9)))
                .collect(),
            _ => Vec::new(),
        };
        let blobs: Vec<Blob> = (0..scenario.model.blobs).map(|blob| blob_of(scenario, blob)).collect();
        let mut world = Self {
            now: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: Queue::default(),
            links,
            hosts: Vec::new(),
            ids: Vec::new(),
            providers: vec![Vec::new(); blobs.len()],
            blobs,
            source: source(),
            registry,
            zones,
            transfers: Transfers::default(),
            inputs: Slab::default(),
            connections: 0,
            scheduler: None,
            scheduler_life: 0,
            scheduler_born: 0,
            scheduler_wake: Time::MAX,
            requests: Slab::default(),
            scheduler_inputs: Slab::default(),
            leases: BTreeMap::new(),
            tally: Tally::new(scenario),
            outputs: Vec::new(),
            scenario: scenario.clone(),
        };
        world.populate();
        world.plan_wants();
        world.plan_faults();
        world
    }

    /// Runs until every peer has the model, or the time is up.
    pub(crate) fn run(&mut self) {
        let limit = seconds(self.scenario.warm_up_s + self.scenario.limit_s);
        while self.tally.waiting > 0 && self.tally.violations.is_empty() {
            let Some((at, event)) = self.queue.pop() else { break };
            if at > limit {
                break;
            }
            self.now = at;
            self.tally.saw(at, &event);
            self.happen(event);
            let (now, queue) = (self.now, &mut self.queue);
            self.links
                .settle(now, |at, flow, version| queue.push(at, Event::Flow { flow, version }));
        }
        self.check_the_end();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input { node, life, slot } => {
                let input = self.inputs.remove(slot).expect("an input is delivered once");
                if self.is_alive(node, life) {
                    self.deliver(node, input);
                }
            }
            Event::Message { node, connection, slot } => {
                let input = self.inputs.remove(slot).expect("a message is delivered once");
                if self.hosts[node as usize].is_connected_by(connection) {
                    self.deliver(node, input);
                }
            }
            Event::Notice { node, connection } => self.notice(node, connection),
            Event::Wake { node } => {
                let host = &mut self.hosts[node as usize];
                if host.alive && host.wake == self.now {
                    host.wake = Time::MAX;
                    self.deliver(node, Input::Tick);
                }
            }
            Event::Flow { flow, version } => self.flow_due(flow, version),
            Event::Asked { transfer } => self.asked(transfer),
            Event::Started { transfer } => self.started(transfer),
            Event::Answered { transfer } => self.answered(transfer),
            Event::Reset { transfer } => self.reset(transfer),
            Event::Verified { transfer } => self.verified(transfer),
            Event::Served { node, life, transfer } => {
                if self.is_alive(node, life) {
                    self.deliver(node, Input::Served { id: transfer.into() });
                }
            }
            Event::RegistryOpen { node, life, blob } => {
                if self.is_alive(node, life) {
                    self.registry_open(node, blob);
                }
            }
            Event::Scheduler { life, slot } => {
                let input = self.scheduler_inputs.remove(slot).expect("a request is delivered once");
                if life == self.scheduler_life {
                    self.deliver_to_scheduler(input);
                }
            }
            Event::WakeScheduler => {
                if self.scheduler_wake == self.now {
                    self.scheduler_wake = Time::MAX;
                    self.deliver_to_scheduler(scheduler::Input::Tick);
                }
            }
            Event::Want { node } => self.want(node),
            Event::Kill { node } => self.kill(node),
            Event::KillReader => self.kill_reader(),
            Event::Revive { node } => self.revive(node),
            Event::SchedulerDown => self.stop_scheduler(),
            Event::SchedulerUp => self.start_scheduler(),
        }
    }

    fn flow_due(&mut self, flow: u32, version: u32) {
        match self.links.due(self.now, flow, version) {
            Due::Stale => {}
            Due::Later { at, version } => self.queue.push(at, Event::Flow { flow, version }),
            Due::Done(cargo) => {
                self.links.end(self.now, flow);
                match cargo {
                    Cargo::Piece { slot } => self.sent(slot),
                    Cargo::Registry { node, blob } => self.read(node, blob),
                }
            }
        }
    }

    /// Hands an input to a node and carries out what it decides.
    pub(crate) fn deliver(&mut self, node: u32, input: Input) {
        let host = &mut self.hosts[node as usize];
        let mut outputs = std::mem::take(&mut self.outputs);
        host.machine
            .handle(Duration::from_nanos(self.now - host.born), input, &mut outputs);
        let mut next = 0;
        while next < outputs.len() {
            // Performing a cancellation may append to the list.
            let output = std::mem::replace(&mut outputs[next], NOTHING);
            next += 1;
            self.perform(node, output, &mut outputs);
        }
        outputs.clear();
        self.outputs = outputs;
        let host = &mut self.hosts[node as usize];
        if let Some(deadline) = host.machine.deadline() {
            let due = (host.born + nanos(deadline)).max(self.now + TICK);
            if due < host.wake || host.wake <= self.now {
                host.wake = due;
                self.queue.push(due, Event::Wake { node });
            }
        }
    }

    /// Has an input reach a node some time from now.
    pub(crate) fn tell(&mut self, node: u32, after: Time, input: Input) {
        let slot = self.inputs.insert(input);
        let life = self.hosts[node as usize].life;
        self.queue.push(self.now + after, Event::Input { node, life, slot });
    }

    pub(crate) fn is_alive(&self, node: u32, life: u32) -> bool {
        let host = &self.hosts[node as usize];
        host.alive && host.life == life
    }

    /// A node's id.
    pub(crate) fn id(&self, node: u32) -> NodeId {
        self.ids[node as usize]
    }

    /// One way from one node to another.
    pub(crate) fn latency(&self, from: u32, to: u32) -> Time {
        self.latency_between(self.hosts[from as usize].zone, self.hosts[to as usize].zone)
    }

    /// One way between a node and the scheduler, which stands in zone 0.
    pub(crate) fn latency_to_scheduler(&self, node: u32) -> Time {
        self.latency_between(self.hosts[node as usize].zone, 0)
    }

    fn latency_between(&self, one: u32, other: u32) -> Time {
        let network = &self.scenario.network;
        let rtt = if one == other {
            network.rtt_ms
        } else {
            network.zone_rtt_ms
        };
        seconds(rtt / 2000.0)
    }

    /// The number of a blob.
    pub(crate) fn blob_index(&self, digest: &Digest) -> u32 {
        let blob = trailing_number(digest.as_bytes());
        debug_assert_eq!(self.blobs[blob as usize].digest, *digest, "only our blobs exist");
        blob
    }

    fn populate(&mut self) {
        let scenario = self.scenario.clone();
        for _ in 0..scenario.seeds.count {
            self.add_seed(&scenario);
        }
        let mut dealt = 0;
        for (group, peers) in scenario.peers.iter().enumerate() {
            for _ in 0..peers.count {
                self.add_peer(&scenario, group, dealt);
                dealt += 1;
            }
        }
        self.start_scheduler();
    }

    fn plan_wants(&mut self) {
        let start = seconds(self.scenario.warm_up_s);
        for node in 0..self.hosts.len() as u32 {
            let Some(group) = self.hosts[node as usize].group else {
                continue;
            };
            let peers = &self.scenario.peers[group];
            if peers.holds {
                for blob in self.blobs.clone() {
                    let bits = Bitfield::full(&blob.geometry());
                    let media_type = None;
                    self.tell(node, 0, Input::Opened { blob, bits, media_type });
                }
                continue;
            }
            let (after, over) = (seconds(peers.after_s), seconds(peers.over_s));
            let at = start + after + self.rng.next_u64() % over.max(1);
            self.tally.waiting += 1;
            self.queue.push(at, Event::Want { node });
        }
    }

    fn want(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        host.progress.wanted.get_or_insert(self.now);
        if host.alive {
            for blob in 0..self.blobs.len() {
                let Blob { digest, size } = self.blobs[blob];
                let input = Input::Want {
                    digest,
                    size: Some(size),
                    source: self.source.clone(),
                    urgent: true,
                };
                self.deliver(node, input);
            }
        }
    }

    /// A machine for a node, with randomness of its own.
    pub(crate) fn machine(&mut self, node: u32, role: Role, zone: Option<String>) -> Node {
        let identity = Identity {
            node: self.id(node),
            role,
            zone,
        };
        Node::new(identity, self.scenario.node_config(role), self.rng.next_u64())
    }
}

/// What an output is replaced with once it is performed.
const NOTHING: Output = Output::Unprovide { digest: Digest::EMPTY };

/// The id of a node: its order among the ids is random, and its last bytes are its number.
pub(crate) fn node_id(node: u32) -> NodeId {
    NodeId::from_bytes(numbered(b"node", node))
}

/// The number of a node.
pub(crate) fn node_index(id: &NodeId) -> u32 {
    trailing_number(id.as_bytes())
}

pub(crate) fn seconds(seconds: f64) -> Time {
    (seconds * 1e9) as Time
}

pub(crate) fn nanos(duration: Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap_or(Time::MAX / 2)
}

fn blob_of(scenario: &Scenario, blob: u32) -> Blob {
    Blob {
        digest: Digest::from_bytes(numbered(b"blob", blob)),
        size: scenario.blob_bytes(),
    }
}

fn numbered(kind: &[u8], number: u32) -> [u8; 32] {
    let mut bytes = *Digest::of(&[kind, &number.to_be_bytes()].concat()).as_bytes();
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn trailing_number(bytes: &[u8; 32]) -> u32 {
    u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]])
}

fn source() -> Source {
    Source {
        repository: Repository {
            registry: "registry.example".into(),
            name: "org/model".into(),
        },
        kind: Kind::Blob,
    }
}
