//! Several schedulers divide the blobs: each has one home, one is lost and comes back, nodes differ in whom they see.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "here nothing moves between nodes")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use swarm::node::{Ask, Config, HoldingNow, Identity, Input, Node, Output};
use swarm::scheduler::{self, RequestId, Scheduler};
use wire::control::{
    Access, Address, Holding, Kind, Locality, Reading, Repository, Request, Response, Role, Source, Swarm,
};

const SEEDS: usize = 2;
const NODES: usize = 6;
const SCHEDULERS: usize = 3;
const BLOBS: u32 = 24;
const STARTED: u64 = 1_790_000_000;
/// How long nodes may take to dial a scheduler that is back, and how long after that it settles.
const DIALLED: u64 = 5000;
const BACK: Duration = Duration::from_secs(6);

fn node_id(node: usize) -> NodeId {
    NodeId::from_bytes([node as u8 + 1; 32])
}

fn scheduler_id(scheduler: usize) -> NodeId {
    NodeId::from_bytes([scheduler as u8 + 100; 32])
}

fn index(id: &NodeId, of: fn(usize) -> NodeId) -> usize {
    (0..16).find(|number| of(*number) == *id).unwrap()
}

fn blobs() -> impl Iterator<Item = Blob> {
    (0..BLOBS).map(|number| Blob {
        digest: Digest::of(&number.to_be_bytes()),
        size: 10_000_000,
    })
}

fn source() -> Source {
    Source {
        repository: Repository {
            registry: "r".into(),
            name: "m".into(),
        },
        kind: Kind::Blob,
    }
}

fn fill_in(now: HoldingNow) -> Holding {
    let reading = now.reading.map(|reading| Reading {
        epoch: reading.epoch,
        boundary: reading.boundary,
        midstate: None,
        source: reading.source,
        access: reading.access,
    });
    Holding {
        blob: now.blob,
        pieces: now.pieces,
        wants: now.wants,
        media_type: now.media_type,
        reading,
    }
}

/// What is on its way.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
enum Mail {
    Node(usize, Input),
    Request(usize, usize, Ask),
    /// A node loses or finds a scheduler.
    Lose(usize, usize),
    Find(usize, usize),
}

struct World {
    now: Duration,
    rng: ChaCha8Rng,
    nodes: Vec<Node>,
    schedulers: Vec<Option<(Scheduler, Duration)>>,
    up: BTreeSet<(usize, usize)>,
    mail: BTreeMap<(Duration, u64), Mail>,
    sent: u64,
    /// Readings begun at the registry, and those that go on.
    opened: BTreeMap<Digest, Vec<(usize, u64)>>,
    reading: BTreeSet<(Digest, usize)>,
    /// Whom each epoch of a blob was granted to.
    granted: BTreeMap<(Digest, u64), usize>,
    joined: BTreeMap<Digest, BTreeSet<usize>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = Config::default;
        let node = |number| {
            let role = if number < SEEDS { Role::Seed } else { Role::Peer };
            let node = node_id(number);
            Node::new(Identity { node, role, zone: None }, config(), number as u64)
        };
        let mut world = Self {
            now: Duration::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            nodes: (0..NODES).map(node).collect(),
            schedulers: Vec::new(),
            up: BTreeSet::new(),
            mail: BTreeMap::new(),
            sent: 0,
            opened: BTreeMap::new(),
            reading: BTreeSet::new(),
            granted: BTreeMap::new(),
            joined: BTreeMap::new(),
        };
        for number in 0..SCHEDULERS {
            world.schedulers.push(Some(world.scheduler(number)));
            for node in 0..NODES {
                world.find(node, number, Duration::ZERO);
                world.settle(node, number, Duration::from_millis(1));
            }
        }
        world.pass(Duration::from_secs(3));
        world
    }

    fn scheduler(&self, number: usize) -> (Scheduler, Duration) {
        let started = STARTED + self.now.as_secs();
        let config = scheduler::Config::default();
        (Scheduler::new(config, started, number as u64), self.now)
    }

    fn post(&mut self, after: Duration, mail: Mail) {
        self.sent += 1;
        self.mail.insert((self.now + after, self.sent), mail);
    }

    fn find(&mut self, node: usize, scheduler: usize, after: Duration) {
        self.post(after, Mail::Find(node, scheduler));
    }

    fn settle(&mut self, node: usize, number: usize, after: Duration) {
        let scheduler = scheduler_id(number);
        self.post(after, Mail::Node(node, Input::SchedulerSettled { scheduler }));
    }

    /// A node loses a scheduler, and has it back after a while.
    fn lose(&mut self, node: usize, scheduler: usize, after: Duration) {
        self.post(after, Mail::Lose(node, scheduler));
    }

    fn return_to(&mut self, node: usize, scheduler: usize, after: Duration) {
        self.find(node, scheduler, after);
        self.settle(node, scheduler, after + BACK);
    }

    fn kill(&mut self, scheduler: usize) {
        self.schedulers[scheduler] = None;
        (0..NODES).for_each(|node| self.lose(node, scheduler, Duration::from_millis(1)));
    }

    fn revive(&mut self, scheduler: usize) {
        self.schedulers[scheduler] = Some(self.scheduler(scheduler));
        for node in 0..NODES {
            let after = Duration::from_millis(self.rng.random_range(0..DIALLED));
            self.return_to(node, scheduler, after);
        }
    }

    fn want(&mut self, node: usize, blob: Blob, after: Duration) {
        let want = Input::Want {
            digest: blob.digest,
            size: Some(blob.size),
            source: source(),
            urgent: true,
        };
        self.post(after, Mail::Node(node, want));
    }

    /// All peers but the last want all blobs.
    fn all_want_all(&mut self) {
        for blob in blobs() {
            (SEEDS..NODES - 1).for_each(|node| self.want(node, blob, Duration::ZERO));
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let tick = Duration::from_millis(100);
        let mut next = self.now + tick;
        while next <= end {
            while let Some(entry) = self.mail.first_entry().filter(|entry| entry.key().0 <= next) {
                self.now = self.now.max(entry.key().0);
                let mail = entry.remove();
                self.deliver(mail);
            }
            self.now = next;
            (0..NODES).for_each(|node| self.node(node, Input::Tick));
            (0..SCHEDULERS).for_each(|scheduler| self.tell(scheduler, scheduler::Input::Tick, None));
            next += tick;
        }
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::Node(node, input) => self.node(node, input),
            Mail::Request(node, scheduler, ask) if self.up.contains(&(node, scheduler)) => {
                self.request(node, scheduler, ask);
            }
            Mail::Request(..) => {}
            Mail::Lose(node, number) => {
                self.up.remove(&(node, number));
                let scheduler = scheduler_id(number);
                self.node(node, Input::SchedulerDown { scheduler });
                self.tell(number, scheduler::Input::Disconnected(node_id(node)), None);
            }
            Mail::Find(node, number) => {
                self.up.insert((node, number));
                let scheduler = scheduler_id(number);
                self.node(node, Input::SchedulerUp { scheduler });
            }
        }
    }

    fn node(&mut self, node: usize, input: Input) {
        let mut out = Vec::new();
        self.nodes[node].handle(self.now, input, &mut out);
        for output in out {
            match output {
                Output::Ask { scheduler, ask } => {
                    let scheduler = index(&scheduler, scheduler_id);
                    self.post(Duration::from_millis(1), Mail::Request(node, scheduler, ask));
                }
                Output::Open { blob, .. } => {
                    let opened = Input::Opened {
                        blob,
                        bits: Bitfield::empty(&blob.geometry()),
                        media_type: None,
                    };
                    self.post(Duration::ZERO, Mail::Node(node, opened));
                }
                Output::OpenOrigin { digest, lease, .. } => {
                    self.opened.entry(digest).or_default().push((node, lease.epoch));
                    self.reading.insert((digest, node));
                    let blob = blobs().find(|blob| blob.digest == digest).unwrap();
                    let opened = Input::OriginOpened {
                        blob,
                        media_type: None,
                        access: Access::Public,
                        sequential: false,
                    };
                    self.post(Duration::from_millis(20), Mail::Node(node, opened));
                }
                Output::CloseOrigin { digest } => {
                    self.reading.remove(&(digest, node));
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, node: usize, scheduler: usize, ask: Ask) {
        let mut joins = None;
        let request = match ask {
            Ask::Register { holdings } => Request::Register {
                protocol: wire::PROTOCOL,
                role: if node < SEEDS { Role::Seed } else { Role::Peer },
                data: Address("127.0.0.1:7654".parse().unwrap()),
                locality: Locality::default(),
                holdings: holdings.into_iter().map(fill_in).collect(),
                more: false,
            },
            Ask::Join {
                digest,
                size,
                source,
                urgent,
            } => {
                joins = Some(digest);
                self.joined.entry(digest).or_default().insert(scheduler);
                Request::Join {
                    digest,
                    size,
                    source,
                    urgent,
                }
            }
            Ask::Report(report) => Request::Report {
                holdings: report.holdings.into_iter().map(fill_in).collect(),
                gone: report.gone,
                failed: report.failed,
                accusations: report.accusations,
                lonely: report.lonely,
            },
        };
        let request = scheduler::Input::Request {
            from: node_id(node),
            observed: "127.0.0.1".parse().unwrap(),
            id: RequestId(node as u64),
            request,
        };
        self.tell(scheduler, request, joins);
    }

    fn tell(&mut self, number: usize, input: scheduler::Input, joins: Option<Digest>) {
        let Some((machine, started)) = &mut self.schedulers[number] else {
            return;
        };
        let mut out = Vec::new();
        machine.handle(self.now - *started, input, &mut out);
        let scheduler = scheduler_id(number);
        for output in out {
            match output {
                scheduler::Output::Reply { id, response } => {
                    let node = id.0 as usize;
                    match response {
                        Response::Registered { .. } => {
                            let report_every = Duration::from_secs(1);
                            let registered = Input::Registered {
                                scheduler,
                                report_every,
                            };
                            self.answer(node, number, registered);
                        }
                        Response::Joined { swarm } => self.told(node, number, joins.unwrap(), swarm),
                        Response::Reported { known, swarms } => {
                            self.answer(node, number, Input::Reported { scheduler, known });
                            for (digest, swarm) in swarms {
                                self.told(node, number, digest, swarm);
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
                scheduler::Output::Update { to, digest, swarm } => {
                    self.told(index(&to, node_id), number, digest, swarm);
                }
                scheduler::Output::AskSeed { .. }
                | scheduler::Output::Preheat { .. }
                | scheduler::Output::Expelled { .. } => {}
            }
        }
    }

    fn told(&mut self, node: usize, number: usize, digest: Digest, swarm: Swarm) {
        if let Some(lease) = &swarm.lease {
            let holder = *self.granted.entry((digest, lease.epoch)).or_insert(node);
            assert_eq!(holder, node, "two hold epoch {} of {digest}", lease.epoch);
        }
        let scheduler = scheduler_id(number);
        let told = Input::Told {
            scheduler,
            digest,
            swarm,
        };
        self.answer(node, number, told);
    }

    fn answer(&mut self, node: usize, scheduler: usize, input: Input) {
        if self.up.contains(&(node, scheduler)) {
            self.post(Duration::from_millis(1), Mail::Node(node, input));
        }
    }

    /// Every blob is being read by one node.
    fn assert_one_reader(&self) {
        for blob in blobs() {
            let readers = self.reading.iter().filter(|(digest, _)| *digest == blob.digest);
            assert_eq!(readers.count(), 1, "{:?}", self.opened[&blob.digest]);
        }
    }

    /// Every blob was opened at the registry once, and is being read.
    fn assert_read_once(&self) {
        for blob in blobs() {
            assert_eq!(self.opened[&blob.digest].len(), 1, "{:?}", self.opened[&blob.digest]);
        }
        self.assert_one_reader();
    }

    /// The schedulers that know of a blob, and how many nodes wait there.
    fn known(&self, digest: &Digest) -> BTreeMap<usize, usize> {
        let alive = self.schedulers.iter().enumerate();
        let alive = alive.filter_map(|(number, scheduler)| Some((number, &scheduler.as_ref()?.0)));
        alive
            .filter_map(|(number, scheduler)| {
                let views = scheduler.swarms(None, usize::MAX);
                let view = views.into_iter().find(|view| view.digest == *digest)?;
                assert!(view.reader.is_some_and(|reader| reader.opened), "{view:?}");
                Some((number, view.waiting))
            })
            .collect()
    }

    /// All wait for each blob at its home, which is the first of the schedulers in order; and the second knows of it.
    fn assert_divided(&self, alive: &[usize]) {
        let mut homes = BTreeSet::new();
        for blob in blobs() {
            let order = swarm::ranked(&blob.digest, alive.iter().map(|number| scheduler_id(*number)));
            let order: Vec<usize> = order.iter().map(|id| index(id, scheduler_id)).collect();
            let known = self.known(&blob.digest);
            let informed: BTreeSet<usize> = order.iter().take(2).copied().collect();
            assert_eq!(known.keys().copied().collect::<BTreeSet<usize>>(), informed);
            let waiting: Vec<usize> = known
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(at, _)| *at)
                .collect();
            assert_eq!(waiting, [order[0]], "{known:?}");
            homes.insert(order[0]);
        }
        assert_eq!(homes.len(), alive.len(), "each has its share");
    }
}

#[test]
fn each_blob_is_joined_at_one_scheduler_and_read_by_one_node() {
    let mut world = World::new(1);
    world.all_want_all();
    world.pass(Duration::from_secs(3));
    world.assert_read_once();
    world.assert_divided(&[0, 1, 2]);
    assert!(world.joined.values().all(|at| at.len() == 1), "{:?}", world.joined);
}

#[test]
fn the_next_scheduler_goes_on_where_a_lost_one_was_and_gives_back_what_it_took_over() {
    for lost in 0..SCHEDULERS {
        let mut world = World::new(lost as u64);
        world.all_want_all();
        world.pass(Duration::from_secs(3));
        world.kill(lost);
        world.pass(Duration::from_secs(2));
        let left: Vec<usize> = (0..SCHEDULERS).filter(|number| *number != lost).collect();
        world.assert_divided(&left);
        world.revive(lost);
        // Somebody comes to want each blob while nodes differ in where it belongs.
        for (number, blob) in blobs().enumerate() {
            world.want(NODES - 1, blob, Duration::from_millis(500 * number as u64));
        }
        world.pass(Duration::from_secs(14));
        world.assert_divided(&[0, 1, 2]);
        world.assert_read_once();
    }
}

#[test]
fn a_scheduler_that_dies_before_its_reader_has_said_anything_costs_no_second_reading() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        world.all_want_all();
        world.pass(Duration::from_millis(100));
        let lost = seed as usize % SCHEDULERS;
        world.kill(lost);
        world.pass(Duration::from_secs(4));
        world.assert_read_once();
    }
}

/// Some nodes lose each scheduler for a while, and another one at another time, while all nodes come to want all blobs.
fn differing(seed: u64, nodes: std::ops::Range<usize>) -> World {
    let mut world = World::new(seed);
    for blob in blobs() {
        for node in SEEDS..NODES {
            let after = Duration::from_millis(world.rng.random_range(0..20_000));
            world.want(node, blob, after);
        }
    }
    for node in nodes {
        for scheduler in 0..SCHEDULERS {
            let lost = Duration::from_millis(7000 * scheduler as u64 + world.rng.random_range(0..500));
            let back = lost + Duration::from_millis(world.rng.random_range(100..400));
            world.lose(node, scheduler, lost);
            world.return_to(node, scheduler, back);
        }
    }
    world.pass(Duration::from_secs(35));
    world.assert_divided(&[0, 1, 2]);
    world
}

#[test]
fn peers_that_see_different_schedulers_have_each_blob_read_once() {
    for seed in 0..24 {
        differing(seed, SEEDS..NODES).assert_read_once();
    }
}

#[test]
fn readers_that_lose_their_schedulers_are_followed_by_one_reader_and_no_epoch_is_held_twice() {
    for seed in 0..24 {
        differing(seed, 0..NODES).assert_one_reader();
    }
}
