//! The rules of a scheduler, one by one and then all at once under random events.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it expects")]

mod access;
mod conduct;
mod expulsion;
mod introductions;
mod leases;
mod limits;
mod random;
mod recovery;
mod upstream;
mod world;

use std::net::IpAddr;
use std::time::Duration;

use piece::{Blob, Digest, Midstate, NodeId};
use wire::control::{
    Access, Address, Failure, Holding, Kind, Locality, Neighbour, Reading, Repository, Request, Response, Role, Source,
    Swarm, Upstream, UpstreamAnswer,
};

use super::{AskId, Config, Input, Output, RequestId, Scheduler};

const MIB: u64 = 1 << 20;
/// Seconds since 1970 at which the schedulers under test start.
const STARTED: u64 = 1_790_000_000;

fn node(number: u32) -> NodeId {
    NodeId::from_bytes(*Digest::of(&number.to_be_bytes()).as_bytes())
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A blob of 10 pieces.
fn blob(name: &str) -> Blob {
    Blob {
        digest: Digest::of(name.as_bytes()),
        size: 10 * MIB / 4,
    }
}

const PIECES: u32 = 10;

fn source(name: &str) -> Source {
    Source {
        repository: repository(name),
        kind: Kind::Blob,
    }
}

fn repository(name: &str) -> Repository {
    Repository {
        registry: "registry.example".into(),
        name: name.into(),
    }
}

fn failure(status: u16) -> Failure {
    Failure {
        status,
        message: format!("the registry said {status}"),
        retry_after: None,
        challenge: None,
    }
}

fn holding(blob: Blob, pieces: u32) -> Holding {
    Holding {
        blob,
        pieces,
        wants: pieces < PIECES,
        media_type: Some("application/octet-stream".into()),
        reading: None,
    }
}

fn reading(epoch: u64, boundary: u32) -> Reading {
    let midstate = (boundary > 0).then(|| Midstate::from_bytes([boundary as u8; 32]));
    Reading {
        epoch,
        boundary,
        midstate,
        source: source("model"),
        access: Access::Public,
    }
}

impl Scheduler {
    /// The node that holds a blob's lease, and its epoch.
    fn lease_of(&self, digest: &Digest) -> Option<(NodeId, u64)> {
        let lease = self.swarms[self.swarms.key(digest)?].lease?;
        Some((self.nodes[lease.holder].id, lease.epoch))
    }

    /// Whether somebody has named a source of a blob that has not just failed.
    fn has_usable_source(&self, digest: &Digest, now: Duration) -> bool {
        self.swarms
            .key(digest)
            .is_some_and(|swarm| self.swarms[swarm].sources.usable(now).is_some())
    }

    /// Whether a connected node could read a blob.
    fn has_able_reader(&self, digest: &Digest, now: Duration) -> bool {
        let Some(swarm) = self.swarms.key(digest) else {
            return false;
        };
        let mut candidates = self.nodes.seeds.iter().chain(self.swarms[swarm].members.waiting.iter());
        candidates.any(|node| !self.conduct.is_banned(now, &self.nodes[node].id, digest))
    }
}

/// A scheduler and everything that it has asked to be done.
struct Cluster {
    scheduler: Scheduler,
    now: Duration,
    next: u64,
    out: Vec<Output>,
}

impl Cluster {
    fn new() -> Self {
        Self::with(Config::default())
    }

    /// Begins a second after the recovery window, so that leases are granted to peers at once.
    fn with(config: Config) -> Self {
        Self {
            scheduler: Scheduler::new(config, STARTED, 7),
            now: at(3),
            next: 0,
            out: Vec::new(),
        }
    }

    fn handle(&mut self, input: Input) {
        self.scheduler.handle(self.now, input, &mut self.out);
    }

    /// Lets time pass, with every tick that is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.scheduler.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.handle(Input::Tick);
        }
        self.now = end;
    }

    /// Asks, and returns the answer if it came at once.
    fn ask(&mut self, from: NodeId, request: Request) -> Option<Response> {
        let id = self.post(from, request);
        self.answer(id)
    }

    fn post(&mut self, from: NodeId, request: Request) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        let observed = IpAddr::from([10, 0, 0, 9]);
        self.handle(Input::Request {
            from,
            observed,
            id,
            request,
        });
        id
    }

    /// Takes the answer to a request, if it has come.
    fn answer(&mut self, wanted: RequestId) -> Option<Response> {
        let is_it = |output: &Output| matches!(output, Output::Reply { id, .. } if *id == wanted);
        let place = self.out.iter().position(is_it)?;
        match self.out.remove(place) {
            Output::Reply { response, .. } => Some(response),
            other => panic!("not a reply: {other:?}"),
        }
    }

    fn register(&mut self, number: u32, role: Role, holdings: Vec<Holding>) -> NodeId {
        self.register_at(number, role, Locality::default(), holdings)
    }

    fn register_at(&mut self, number: u32, role: Role, locality: Locality, holdings: Vec<Holding>) -> NodeId {
        let request = registration(number, role, locality, holdings);
        let answer = self.ask(node(number), request);
        assert!(matches!(answer, Some(Response::Registered { .. })), "{answer:?}");
        node(number)
    }

    fn join(&mut self, from: NodeId, blob: Blob, from_where: &str) -> Swarm {
        let request = Request::Join {
            digest: blob.digest,
            size: None,
            source: source(from_where),
            urgent: true,
        };
        match self.ask(from, request) {
            Some(Response::Joined { swarm }) => swarm,
            other => panic!("not a join's answer: {other:?}"),
        }
    }

    fn report(&mut self, from: NodeId, report: Report) -> Vec<(Digest, Swarm)> {
        let Report {
            holdings,
            gone,
            failed,
            accusations,
            lonely,
        } = report;
        match self.ask(
            from,
            Request::Report {
                holdings,
                gone,
                failed,
                accusations,
                lonely,
            },
        ) {
            Some(Response::Reported { known: true, swarms }) => swarms,
            other => panic!("not a report's answer: {other:?}"),
        }
    }

    /// What was pushed to a node about a blob since this was last asked, merged.
    fn updates(&mut self, to: NodeId, digest: Digest) -> Vec<Swarm> {
        let mut updates = Vec::new();
        self.out.retain(|output| match output {
            Output::Update {
                to: receiver,
                digest: about,
                swarm,
            } if *receiver == to && *about == digest => {
                updates.push(swarm.clone());
                false
            }
            _ => true,
        });
        updates
    }

    fn update(&mut self, to: NodeId, digest: Digest) -> Swarm {
        let mut updates = self.updates(to, digest);
        assert_eq!(updates.len(), 1, "{updates:?}");
        updates.remove(0)
    }

    fn asks(&mut self) -> Vec<(AskId, NodeId, Upstream)> {
        let mut asks = Vec::new();
        self.out.retain(|output| match output {
            Output::AskSeed { id, to, upstream } => {
                asks.push((*id, *to, upstream.clone()));
                false
            }
            _ => true,
        });
        asks
    }

    fn upstream_answered(&mut self, id: AskId, answer: Option<UpstreamAnswer>) {
        self.handle(Input::UpstreamAnswered { id, answer });
    }
}

#[derive(Default)]
struct Report {
    holdings: Vec<Holding>,
    gone: Vec<Digest>,
    failed: Vec<(Digest, u64, Failure)>,
    accusations: Vec<wire::control::Accusation>,
    lonely: Vec<Digest>,
}

impl Report {
    fn of(holding: Holding) -> Self {
        Self {
            holdings: vec![holding],
            ..Self::default()
        }
    }

    fn failed(digest: Digest, epoch: u64, failure: Failure) -> Self {
        Self {
            failed: vec![(digest, epoch, failure)],
            ..Self::default()
        }
    }
}

fn registration(number: u32, role: Role, locality: Locality, holdings: Vec<Holding>) -> Request {
    let data = Address(format!("10.0.0.1:{}", 1000 + number % 60000).parse().unwrap());
    Request::Register {
        protocol: wire::PROTOCOL,
        role,
        data,
        locality,
        holdings,
        more: false,
    }
}

fn ids(neighbours: &[Neighbour]) -> Vec<NodeId> {
    neighbours.iter().map(|neighbour| neighbour.node).collect()
}

#[test]
fn an_unspecified_address_becomes_the_observed_one() {
    let mut cluster = Cluster::new();
    let peer = cluster.register(1, Role::Peer, vec![]);
    let mut request = registration(2, Role::Seed, Locality::default(), vec![]);
    if let Request::Register { data, .. } = &mut request {
        *data = Address("0.0.0.0:7654".parse().unwrap());
    }
    cluster.ask(node(2), request);
    let swarm = cluster.join(peer, blob("a"), "model");
    assert_eq!(swarm.neighbours[0].data, Address("10.0.0.9:7654".parse().unwrap()));
}

#[test]
fn nodes_that_cannot_be_served_are_told_why() {
    let mut cluster = Cluster::new();
    let refusal = |cluster: &mut Cluster, request| match cluster.ask(node(1), request) {
        Some(Response::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    };
    let mut old = registration(1, Role::Peer, Locality::default(), vec![]);
    if let Request::Register { protocol, .. } = &mut old {
        *protocol += 1;
    }
    assert!(refusal(&mut cluster, old).contains("protocol"));
    let scheduler = registration(1, Role::Scheduler, Locality::default(), vec![]);
    assert!(refusal(&mut cluster, scheduler).contains("scheduler"));
    let long = Locality {
        rack: Some("r".repeat(129)),
        ..Locality::default()
    };
    assert!(refusal(&mut cluster, registration(1, Role::Peer, long, vec![])).contains("128 bytes"));
    let lookup = Request::Lookup {
        digest: blob("a").digest,
    };
    assert!(refusal(&mut cluster, lookup).contains("ask a node"));
    assert_eq!(cluster.scheduler.counters().refused, 3);
}

#[test]
fn whoever_is_unknown_is_asked_to_register() {
    let mut cluster = Cluster::new();
    let join = Request::Join {
        digest: blob("a").digest,
        size: None,
        source: source("model"),
        urgent: true,
    };
    let empty = Request::Report {
        holdings: vec![],
        gone: vec![],
        failed: vec![],
        accusations: vec![],
        lonely: vec![],
    };
    let unknown = Response::Reported {
        known: false,
        swarms: vec![],
    };
    assert_eq!(cluster.ask(node(1), join), Some(unknown.clone()));
    assert_eq!(cluster.ask(node(1), empty.clone()), Some(unknown.clone()));
    let peer = cluster.register(1, Role::Peer, vec![]);
    assert_eq!(
        cluster.ask(peer, empty.clone()),
        Some(Response::Reported {
            known: true,
            swarms: vec![]
        })
    );
    cluster.handle(Input::Disconnected(peer));
    assert_eq!(cluster.ask(peer, empty), Some(unknown));
}

#[test]
fn intervals_stretch_with_the_number_of_nodes() {
    let mut cluster = Cluster::with(Config {
        reports_per_second: 4,
        ..Config::default()
    });
    let every = |cluster: &mut Cluster, number| match cluster.ask(
        node(number),
        registration(number, Role::Peer, Locality::default(), vec![]),
    ) {
        Some(Response::Registered { report_every }) => report_every,
        other => panic!("not registered: {other:?}"),
    };
    let intervals: Vec<u32> = (0..10).map(|number| every(&mut cluster, number)).collect();
    assert_eq!(intervals, [1000, 1000, 1000, 2000, 2000, 2000, 2000, 3000, 3000, 3000]);
}

#[test]
fn a_lost_node_is_forgotten_after_three_intervals_and_a_silent_one_after_fifteen() {
    let mut cluster = Cluster::new();
    let lost = cluster.register(1, Role::Peer, vec![holding(blob("a"), PIECES)]);
    cluster.register(2, Role::Peer, vec![holding(blob("b"), PIECES)]);
    cluster.handle(Input::Disconnected(lost));
    cluster.pass(Duration::from_millis(2900));
    assert_eq!(
        (
            cluster.scheduler.status(cluster.now).nodes,
            cluster.scheduler.status(cluster.now).swarms
        ),
        (2, 2)
    );
    cluster.pass(Duration::from_millis(200));
    assert_eq!(
        (
            cluster.scheduler.status(cluster.now).nodes,
            cluster.scheduler.status(cluster.now).swarms
        ),
        (1, 1)
    );
    cluster.pass(at(12));
    let status = cluster.scheduler.status(cluster.now);
    assert_eq!(
        (status.nodes, status.swarms, status.memberships, status.timers),
        (0, 0, 0, 0)
    );
}

#[test]
fn a_registration_replaces_what_was_known() {
    let mut cluster = Cluster::new();
    cluster.register(
        1,
        Role::Peer,
        vec![holding(blob("a"), PIECES), holding(blob("b"), PIECES)],
    );
    let mut first = registration(1, Role::Peer, Locality::default(), vec![holding(blob("b"), PIECES)]);
    if let Request::Register { more, .. } = &mut first {
        *more = true;
    }
    cluster.ask(node(1), first);
    assert_eq!(cluster.scheduler.status(cluster.now).swarms, 2, "more pages follow");
    cluster.register(1, Role::Peer, vec![holding(blob("c"), PIECES)]);
    let digests: Vec<Digest> = cluster
        .scheduler
        .swarms(None, 10)
        .iter()
        .map(|swarm| swarm.digest)
        .collect();
    let mut expected = vec![blob("b").digest, blob("c").digest];
    expected.sort();
    assert_eq!(digests, expected);
}
