//! The control plane: what nodes ask the scheduler and hear from it, and how they find each other without one.

use std::time::Duration;

use piece::{Blob, Digest, Midstate, NodeId};
use rand::RngExt as _;
use swarm::node::{Ask, HoldingNow, Input};
use swarm::scheduler::{self, AskId, RequestId};
use wire::control::{
    Access, Address, Holding, Neighbour, Query, Reading, Request, Response, Role, Source, Swarm, UpstreamAnswer,
};

use crate::hosts::address;
use crate::queue::{Event, Time};
use crate::world::{World, nanos, node_index, seconds};

/// The one scheduler.
pub(crate) const SCHEDULER: NodeId = NodeId::from_bytes([255; 32]);
/// Half round trips that a lookup in Kademlia takes: some steps to the records, then a question to each holder.
const LOOKUP: Time = 8;
/// Holders that a lookup finds.
const MAX_HOLDERS: usize = 20;

/// A request whose answer is outstanding.
#[derive(Debug)]
pub(crate) struct Asked {
    node: u32,
    life: u32,
    /// The blob that a join is about.
    blob: Option<u32>,
}

/// What a node is told of a blob.
const fn told(digest: Digest, swarm: Swarm) -> Input {
    Input::Told {
        scheduler: SCHEDULER,
        digest,
        swarm,
    }
}

impl World {
    /// A node finds the scheduler.
    pub(crate) fn meet_scheduler(&mut self, node: u32, after: Time) {
        self.tell(node, after, Input::SchedulerUp { scheduler: SCHEDULER });
        self.tell(node, after, Input::SchedulerSettled { scheduler: SCHEDULER });
    }

    /// A node asks the scheduler.
    pub(crate) fn ask(&mut self, node: u32, ask: Ask) {
        if self.scheduler.is_none() {
            return;
        }
        let (request, blob) = match ask {
            Ask::Register { holdings } => (self.registration(node, holdings), None),
            Ask::Join {
                digest,
                size,
                source,
                urgent,
            } => {
                let blob = self.blob_index(&digest);
                let join = Request::Join {
                    digest,
                    size,
                    source,
                    urgent,
                };
                (join, Some(blob))
            }
            Ask::Report(report) => {
                let report = Request::Report {
                    holdings: report.holdings.into_iter().map(fill_in).collect(),
                    gone: report.gone,
                    failed: report.failed,
                    accusations: report.accusations,
                    lonely: report.lonely,
                };
                (report, None)
            }
        };
        self.tally.scheduler_requests += 1;
        self.tally.requests_before_wants += u64::from(self.now < seconds(self.scenario.warm_up_s));
        self.tally.scheduler_messages += 2;
        let life = self.hosts[node as usize].life;
        let id = self.requests.insert(Asked { node, life, blob });
        let input = scheduler::Input::Request {
            from: self.id(node),
            observed: address(node).ip(),
            id: RequestId(id.into()),
            request,
        };
        self.tell_scheduler(self.latency_to_scheduler(node), input);
    }

    /// Has an input reach the scheduler some time from now, if it lasts that long.
    pub(crate) fn tell_scheduler(&mut self, after: Time, input: scheduler::Input) {
        let slot = self.scheduler_inputs.insert(input);
        let life = self.scheduler_life;
        self.queue.push(self.now + after, Event::Scheduler { life, slot });
    }

    pub(crate) fn deliver_to_scheduler(&mut self, input: scheduler::Input) {
        let Some(scheduler) = &mut self.scheduler else { return };
        let mut outputs = Vec::new();
        let now = Duration::from_nanos(self.now - self.scheduler_born);
        scheduler.handle(now, input, &mut outputs);
        let deadline = scheduler.deadline();
        for output in outputs {
            self.perform_for_scheduler(output);
        }
        if let Some(deadline) = deadline {
            let due = (self.scheduler_born + nanos(deadline)).max(self.now + 1);
            if due < self.scheduler_wake || self.scheduler_wake <= self.now {
                self.scheduler_wake = due;
                self.queue.push(due, Event::WakeScheduler);
            }
        }
    }

    fn perform_for_scheduler(&mut self, output: scheduler::Output) {
        match output {
            scheduler::Output::Reply { id, response } => self.reply(id, response),
            scheduler::Output::Update { to, digest, swarm } => {
                let (node, blob) = (node_index(&to), self.blob_index(&digest));
                self.tally.scheduler_messages += 2;
                self.note_lease(node, blob, &swarm);
                self.tell(node, self.latency_to_scheduler(node), told(digest, swarm));
            }
            scheduler::Output::AskSeed { id, to, upstream } => self.probe(id, node_index(&to), &upstream.query),
            scheduler::Output::Preheat { .. } | scheduler::Output::Expelled { .. } => {
                self.violated("the scheduler does what only an operator asks");
            }
        }
    }

    /// The scheduler asks a node about the registry: here always whether a blob may be read.
    fn probe(&mut self, id: AskId, node: u32, query: &Query) {
        let Query::Probe { digest, .. } = query else {
            self.violated("the scheduler asks what no node wanted to know");
            return;
        };
        self.tally.registry_requests += 1;
        let host = &self.hosts[node as usize];
        let answer = host.alive.then(|| UpstreamAnswer::Content {
            blob: self.blobs[self.blob_index(digest) as usize],
            media_type: "application/octet-stream".into(),
            access: Access::Public,
        });
        let registry = seconds(self.scenario.registry.rtt_ms / 1000.0);
        let after = self.latency_to_scheduler(node) * 2 + registry;
        self.tell_scheduler(after, scheduler::Input::UpstreamAnswered { id, answer });
    }

    fn reply(&mut self, id: RequestId, response: Response) {
        let slot = u32::try_from(id.0).expect("we named the request");
        let Some(Asked { node, life, blob }) = self.requests.remove(slot) else {
            self.violated("a request was answered twice");
            return;
        };
        if !self.is_alive(node, life) {
            return;
        }
        let after = self.latency_to_scheduler(node);
        match response {
            Response::Registered { report_every } => {
                let report_every = Duration::from_millis(report_every.into());
                self.tell(
                    node,
                    after,
                    Input::Registered {
                        scheduler: SCHEDULER,
                        report_every,
                    },
                );
            }
            Response::Joined { swarm } => {
                let blob = blob.expect("only a join is answered so");
                let digest = self.blobs[blob as usize].digest;
                self.note_lease(node, blob, &swarm);
                self.tell(node, after, told(digest, swarm));
            }
            Response::Reported { known, swarms } => {
                self.tell(
                    node,
                    after,
                    Input::Reported {
                        scheduler: SCHEDULER,
                        known,
                    },
                );
                for (digest, swarm) in swarms {
                    self.note_lease(node, self.blob_index(&digest), &swarm);
                    self.tell(node, after, told(digest, swarm));
                }
            }
            Response::Refused { .. } => self.tally.refused_by_scheduler += 1,
            Response::Upstream { .. } | Response::Found { .. } | Response::Taken => {
                self.violated("the scheduler gave an answer to another question");
            }
        }
    }

    fn registration(&self, node: u32, holdings: Vec<HoldingNow>) -> Request {
        Request::Register {
            protocol: wire::PROTOCOL,
            role: self.hosts[node as usize].role,
            data: Address(address(node)),
            locality: self.locality(node),
            holdings: holdings.into_iter().map(fill_in).collect(),
            more: false,
        }
    }

    /// A node looks for holders without a scheduler; where nobody has any of the blob, a seed is summoned.
    pub(crate) fn find_holders(&mut self, node: u32, blob: u32, source: Option<Source>) {
        let mut found = Vec::new();
        let providers = self.providers[blob as usize].len();
        for _ in 0..providers.min(MAX_HOLDERS) {
            let other = self.providers[blob as usize][self.rng.random_range(0..providers)];
            if other != node && !found.contains(&other) {
                found.push(other);
            }
        }
        let Blob { digest, size } = self.blobs[blob as usize];
        let mut holders: Vec<(Neighbour, Holding)> =
            found.into_iter().filter_map(|other| self.lookup(other, blob)).collect();
        let somebody = holders
            .iter()
            .any(|(_, holding)| holding.pieces > 0 || holding.reading.is_some());
        let peer = self.hosts[node as usize].role == Role::Peer;
        let latency = seconds(self.scenario.network.zone_rtt_ms / 2000.0);
        if let Some(source) = source.filter(|_| peer && !somebody) {
            let seeds = (0..self.scenario.seeds.count).filter(|seed| self.hosts[*seed as usize].alive);
            if let Some(seed) = seeds.max_by_key(|seed| swarm::rank(&digest, &self.id(*seed))) {
                let input = Input::Want {
                    digest,
                    size: Some(size),
                    source,
                    urgent: false,
                };
                self.tell(seed, latency * LOOKUP, input);
                holders.extend(self.lookup(seed, blob));
            }
        }
        self.tally.lookups += 1;
        self.tell(node, latency * LOOKUP, Input::Holders { digest, holders });
    }

    fn lookup(&self, node: u32, blob: u32) -> Option<(Neighbour, Holding)> {
        let host = &self.hosts[node as usize];
        let holding = host
            .machine
            .holding(&self.blobs[blob as usize].digest)
            .filter(|_| host.alive)?;
        let mut neighbour = self.neighbour(node);
        neighbour.locality = Default::default();
        Some((neighbour, fill_in(holding)))
    }

    pub(crate) fn provide(&mut self, node: u32, blob: u32) {
        if !std::mem::replace(&mut self.hosts[node as usize].provides[blob as usize], true) {
            self.providers[blob as usize].push(node);
        }
    }
}

/// A holding as it travels. Midstates are not modelled, so any will do.
fn fill_in(now: HoldingNow) -> Holding {
    let reading = now.reading.map(|reading| Reading {
        epoch: reading.epoch,
        boundary: reading.boundary,
        midstate: (reading.boundary > 0).then_some(Midstate::START),
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
