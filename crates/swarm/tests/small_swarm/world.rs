//! The modelled world: latency, loss, uplinks, a registry, and the faults that a test asks for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use rand::{Rng as _, RngExt as _};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use swarm::node::{Config, FetchId, Identity, Input, Node, ServeId};
use swarm::scheduler::{self, Scheduler};
use wire::control::{Kind, Repository, Role, Source};

/// The one scheduler.
pub(crate) const SCHEDULER: NodeId = NodeId::from_bytes([255; 32]);
/// One way, between any two.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);
/// A piece over an uplink that has nothing else to do.
pub(crate) const PIECE_TIME: Duration = Duration::from_millis(10);
/// A piece out of the registry.
pub(crate) const REGISTRY_TIME: Duration = Duration::from_millis(5);

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Share of piece transfers that break.
    pub(crate) loss: f64,
    /// Nodes killed (and restarted with what they hold) while the downloads run.
    pub(crate) kills: usize,
    /// Peers that serve wrong bytes.
    pub(crate) liars: usize,
}

#[derive(Debug)]
pub(crate) enum Event {
    /// For a node, if it has not been restarted since.
    Node {
        node: usize,
        life: u32,
        input: Input,
    },
    /// For the scheduler, if it has not been restarted since.
    Scheduler {
        life: u32,
        input: scheduler::Input,
    },
    /// Call the node's tick.
    Wake {
        node: usize,
        life: u32,
    },
    WakeScheduler {
        life: u32,
    },
    Kill {
        node: usize,
    },
    Revive {
        node: usize,
    },
}

pub(crate) struct Host {
    pub(crate) machine: Node,
    pub(crate) role: Role,
    pub(crate) alive: bool,
    pub(crate) life: u32,
    pub(crate) liar: bool,
    pub(crate) held: Bitfield,
    pub(crate) uploads: u32,
    pub(crate) connected: BTreeSet<usize>,
    pub(crate) reading: BTreeSet<u32>,
    pub(crate) serving: BTreeMap<ServeId, (usize, FetchId, u32)>,
    pub(crate) fetching: BTreeSet<FetchId>,
    pub(crate) waking: Option<Duration>,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) queue: BinaryHeap<Reverse<(Duration, u64)>>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) next_event: u64,
    pub(crate) next_serve: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) scheduler_life: u32,
    pub(crate) requests: BTreeMap<scheduler::RequestId, (usize, Option<Digest>)>,
    pub(crate) next_request: u64,
    pub(crate) faults: Faults,
    pub(crate) blob: Option<Blob>,
    pub(crate) wanting: BTreeSet<usize>,
    pub(crate) registry_reads: u32,
    pub(crate) sent_by_seeds: u32,
    pub(crate) leases: BTreeMap<u64, usize>,
    pub(crate) two_readers: bool,
    pub(crate) log: Vec<(Duration, usize, u32)>,
}

pub(crate) fn id(node: usize) -> NodeId {
    NodeId::from_bytes(*Digest::of(&node.to_be_bytes()).as_bytes())
}

/// Windows in proportion to the small blob: at most 8 pieces unpublished, read 2 at a time.
fn config() -> Config {
    Config {
        read_ahead: 2 << 20,
        origin_range_bytes: 512 << 10,
        ..Config::default()
    }
}

fn source() -> Source {
    Source {
        repository: Repository {
            registry: "r".into(),
            name: "org/model".into(),
        },
        kind: Kind::Blob,
    }
}

pub(crate) fn address(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, (node >> 8) as u8, node as u8)), 7654)
}

impl World {
    pub(crate) fn new(seed: u64, seeds: usize, peers: usize, faults: Faults) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_serve: 0,
            hosts: Vec::new(),
            scheduler: None,
            scheduler_life: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            faults,
            blob: None,
            wanting: BTreeSet::new(),
            registry_reads: 0,
            sent_by_seeds: 0,
            leases: BTreeMap::new(),
            two_readers: false,
            log: Vec::new(),
        };
        for node in 0..seeds + peers {
            let role = if node < seeds { Role::Seed } else { Role::Peer };
            let liar = node >= seeds && node < seeds + faults.liars;
            let empty = Bitfield::empty(
                &Blob {
                    digest: Digest::EMPTY,
                    size: 0,
                }
                .geometry(),
            );
            let seed = world.rng.next_u64();
            world.hosts.push(Host {
                machine: Node::new(
                    Identity {
                        node: id(node),
                        role,
                        zone: None,
                    },
                    config(),
                    seed,
                ),
                role,
                alive: true,
                life: 0,
                liar,
                held: empty,
                uploads: 0,
                connected: BTreeSet::new(),
                reading: BTreeSet::new(),
                serving: BTreeMap::new(),
                fetching: BTreeSet::new(),
                waking: None,
            });
        }
        world.restart_scheduler();
        for _ in 0..faults.kills {
            let node = world.rng.random_range(0..seeds + peers);
            let at = Duration::from_millis(world.rng.random_range(50..3000));
            world.at(at, Event::Kill { node });
        }
        world
    }

    /// A new, empty scheduler takes the old one's place.
    pub(crate) fn restart_scheduler(&mut self) {
        self.kill_scheduler();
        let seed = self.rng.next_u64();
        self.scheduler = Some(Scheduler::new(
            scheduler::Config::default(),
            u64::from(self.scheduler_life) << 20,
            seed,
        ));
        for node in 0..self.hosts.len() {
            self.meet_scheduler(node);
        }
    }

    fn meet_scheduler(&mut self, node: usize) {
        self.tell(node, LATENCY, Input::SchedulerUp { scheduler: SCHEDULER });
        self.tell(node, LATENCY, Input::SchedulerSettled { scheduler: SCHEDULER });
    }

    pub(crate) fn kill_scheduler(&mut self) {
        self.scheduler_life += 1;
        self.scheduler = None;
        self.requests.clear();
        for node in 0..self.hosts.len() {
            self.tell(node, LATENCY, Input::SchedulerDown { scheduler: SCHEDULER });
        }
    }

    pub(crate) fn everybody_wants(&mut self, size: u64) {
        self.want(size, 0);
    }

    /// All but the last.
    pub(crate) fn all_but_one_want(&mut self, size: u64) {
        self.want(size, 1);
    }

    fn want(&mut self, size: u64, but: usize) {
        let blob = Blob {
            digest: Digest::of(b"the model"),
            size,
        };
        self.blob = Some(blob);
        for node in 0..self.hosts.len() - but {
            let host = &mut self.hosts[node];
            if host.held.as_bytes().is_empty() {
                host.held = Bitfield::empty(&blob.geometry());
            }
            if host.role == Role::Peer {
                self.wanting.insert(node);
                let delay = Duration::from_millis(self.rng.random_range(10..50));
                let input = Input::Want {
                    digest: blob.digest,
                    size: Some(size),
                    source: source(),
                    urgent: true,
                };
                self.tell(node, delay, input);
            }
        }
        for host in self.hosts.iter_mut().filter(|host| host.held.as_bytes().is_empty()) {
            host.held = Bitfield::empty(&blob.geometry());
        }
    }

    /// Kills for good whichever seed reads the registry.
    pub(crate) fn kill_reader(&mut self) {
        let reader = (0..self.hosts.len()).find(|node| !self.hosts[*node].reading.is_empty());
        let reader = reader
            .or_else(|| self.leases.values().next_back().copied())
            .expect("somebody reads");
        self.kill(reader);
    }

    pub(crate) fn run_until_done(&mut self, limit: Duration) {
        self.run_until(
            |world| {
                world
                    .wanting
                    .iter()
                    .all(|node| world.hosts[*node].alive && world.hosts[*node].held.is_full())
            },
            limit,
        );
    }

    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool, limit: Duration) {
        let deadline = self.now + limit;
        while !done(self) {
            let Some(Reverse((at, key))) = self.queue.pop() else {
                panic!("nothing is left to happen")
            };
            assert!(at <= deadline, "not done within {limit:?}: {:?}", self.left());
            self.now = at;
            let event = self.events.remove(&key).expect("every queued key has its event");
            self.happen(event);
        }
    }

    fn left(&self) -> Vec<(usize, bool, u32)> {
        let unfinished = self.wanting.iter().filter(|node| !self.hosts[**node].held.is_full());
        unfinished
            .map(|node| (*node, self.hosts[*node].alive, self.hosts[*node].held.count()))
            .collect()
    }

    pub(crate) const fn registry_pieces(&self) -> u32 {
        self.registry_reads
    }

    pub(crate) const fn sent_by_seeds(&self) -> u32 {
        self.sent_by_seeds
    }

    pub(crate) const fn one_reader_per_epoch(&self) -> bool {
        !self.two_readers
    }

    pub(crate) fn trace(&self) -> Vec<(Duration, usize, u32)> {
        self.log.clone()
    }

    pub(crate) fn at(&mut self, after: Duration, event: Event) {
        let key = self.next_event;
        self.next_event += 1;
        self.events.insert(key, event);
        self.queue.push(Reverse((self.now + after, key)));
    }

    pub(crate) fn tell(&mut self, node: usize, after: Duration, input: Input) {
        let life = self.hosts[node].life;
        self.at(after, Event::Node { node, life, input });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node { node, life, input } => {
                if self.hosts[node].alive && self.hosts[node].life == life {
                    self.deliver(node, input);
                }
            }
            Event::Wake { node, life } => {
                if self.hosts[node].alive && self.hosts[node].life == life {
                    self.hosts[node].waking = None;
                    self.deliver(node, Input::Tick);
                }
            }
            Event::Scheduler { life, input } => {
                if life == self.scheduler_life {
                    self.deliver_scheduler(input);
                }
            }
            Event::WakeScheduler { life } => {
                if life == self.scheduler_life {
                    self.deliver_scheduler(scheduler::Input::Tick);
                }
            }
            Event::Kill { node } => {
                self.kill(node);
                self.at(Duration::from_millis(500), Event::Revive { node });
            }
            Event::Revive { node } => self.revive(node),
        }
    }

    fn deliver(&mut self, node: usize, input: Input) {
        let input = match input {
            Input::Fetched { id, outcome } => {
                if !self.hosts[node].fetching.remove(&id) {
                    return;
                }
                Input::Fetched { id, outcome }
            }
            Input::Served { id } => {
                self.hosts[node].uploads = self.hosts[node].uploads.saturating_sub(1);
                Input::Served { id }
            }
            other => other,
        };
        let mut out = Vec::new();
        self.hosts[node].machine.handle(self.now, input, &mut out);
        for output in out {
            self.perform(node, output);
        }
        if let Some(deadline) = self.hosts[node].machine.deadline() {
            let due = deadline.max(self.now + Duration::from_micros(100));
            if self.hosts[node]
                .waking
                .is_none_or(|waking| due < waking || waking <= self.now)
            {
                self.hosts[node].waking = Some(due);
                let life = self.hosts[node].life;
                self.at(due - self.now, Event::Wake { node, life });
            }
        }
    }

    fn deliver_scheduler(&mut self, input: scheduler::Input) {
        let Some(scheduler) = &mut self.scheduler else { return };
        let mut out = Vec::new();
        scheduler.handle(self.now, input, &mut out);
        let deadline = scheduler.deadline();
        for output in out {
            self.perform_scheduler(output);
        }
        if let Some(deadline) = deadline {
            let life = self.scheduler_life;
            let after = deadline.saturating_sub(self.now).max(Duration::from_millis(1));
            self.at(after, Event::WakeScheduler { life });
        }
    }

    pub(crate) fn index(&self, node: NodeId) -> usize {
        (0..self.hosts.len())
            .find(|index| id(*index) == node)
            .expect("only our nodes exist")
    }

    fn kill(&mut self, node: usize) {
        if !self.hosts[node].alive {
            return;
        }
        self.hosts[node].alive = false;
        for other in std::mem::take(&mut self.hosts[node].connected) {
            self.hosts[other].connected.remove(&node);
            self.tell(other, LATENCY, Input::Disconnected { node: id(node) });
        }
        self.hosts[node].uploads = 0;
        self.hosts[node].serving.clear();
        self.hosts[node].fetching.clear();
        self.hosts[node].reading.clear();
        let life = self.scheduler_life;
        self.at(
            LATENCY,
            Event::Scheduler {
                life,
                input: scheduler::Input::Disconnected(id(node)),
            },
        );
    }

    /// The process comes back with what its store holds and no memory of anything else.
    fn revive(&mut self, node: usize) {
        let seed = self.rng.next_u64();
        let blob = self.blob.expect("a blob was wanted");
        let host = &mut self.hosts[node];
        host.alive = true;
        host.life += 1;
        host.waking = None;
        host.machine = Node::new(
            Identity {
                node: id(node),
                role: host.role,
                zone: None,
            },
            config(),
            seed,
        );
        let bits = host.held.clone();
        self.tell(
            node,
            Duration::ZERO,
            Input::Opened {
                blob,
                bits,
                media_type: None,
            },
        );
        if self.scheduler.is_some() {
            self.meet_scheduler(node);
        }
        if self.wanting.contains(&node) {
            let input = Input::Want {
                digest: blob.digest,
                size: Some(blob.size),
                source: source(),
                urgent: true,
            };
            self.tell(node, LATENCY * 2, input);
        }
    }
}
