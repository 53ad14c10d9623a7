//! The nodes around a scheduler under random events: they believe what they are told, and every rule is checked on the way.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Step;
use super::*;
use wire::control::{Accusation, Offence, Query};

pub(super) const NODES: u32 = 6;
const SEEDS: u32 = 2;
pub(super) const BLOBS: u32 = 3;

/// A node as it really is: it believes what the scheduler tells it.
#[derive(Debug, Default, Clone)]
struct Model {
    connected: bool,
    pieces: BTreeMap<u32, u32>,
    wants: BTreeSet<u32>,
    reading: BTreeMap<u32, u64>,
}

/// The scheduler, its nodes as they really are, and what must hold between them.
pub(super) struct World {
    cluster: Cluster,
    nodes: BTreeMap<NodeId, Model>,
    restarts: u64,
    started: u64,
    /// Requests whose answers have not come, and all that were answered.
    open: BTreeSet<u64>,
    answered: BTreeSet<u64>,
    asks: Vec<(AskId, NodeId, Upstream)>,
    /// Who was granted which epoch of which blob.
    granted: BTreeMap<Digest, Vec<(u64, NodeId)>>,
}

fn blob_of(number: u32) -> Blob {
    blob(&format!("blob {number}"))
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            cluster: Cluster {
                now: Duration::ZERO,
                ..Cluster::new()
            },
            nodes: (0..NODES).map(|number| (node(number), Model::default())).collect(),
            restarts: 0,
            started: STARTED,
            open: BTreeSet::new(),
            answered: BTreeSet::new(),
            asks: Vec::new(),
            granted: BTreeMap::new(),
        }
    }

    fn send(&mut self, from: u32, request: Request) {
        if self.nodes[&node(from)].connected {
            let RequestId(id) = self.cluster.post(node(from), request);
            self.open.insert(id);
        }
        self.take_outputs();
    }

    fn take_outputs(&mut self) {
        for output in std::mem::take(&mut self.cluster.out) {
            match output {
                Output::Reply {
                    id: RequestId(id),
                    response,
                } => self.take_reply(id, response),
                Output::Update { to, digest, swarm } => self.take_news(to, digest, &swarm),
                Output::AskSeed { id, to, upstream } => {
                    assert!(self.nodes[&to].connected, "somebody who is gone is asked");
                    self.asks.push((id, to, upstream));
                }
                Output::Preheat { .. } | Output::Expelled { .. } => panic!("nobody asked for that"),
            }
        }
    }

    fn take_reply(&mut self, id: u64, response: Response) {
        assert!(self.answered.insert(id), "request {id} was answered twice");
        assert!(self.open.remove(&id), "request {id} was never asked");
        // Whose request it was is not kept: what concerns a node comes to it through the lease check below.
        if let Response::Joined { swarm } = &response {
            assert!(swarm.neighbours.len() <= wire::control::MAX_NEIGHBOURS);
        }
    }

    /// A grant or its end, wherever it stands.
    fn take_news(&mut self, to: NodeId, digest: Digest, swarm: &Swarm) {
        assert!(self.nodes[&to].connected, "somebody who is gone is told");
        let number = (0..BLOBS).find(|number| blob_of(*number).digest == digest).unwrap();
        let model = self.nodes.get_mut(&to).unwrap();
        if let Some(epoch) = swarm.revoked
            && model.reading.get(&number).is_some_and(|held| *held <= epoch)
        {
            model.reading.remove(&number);
        }
        if swarm.failure.is_some() {
            model.wants.remove(&number);
            model.reading.remove(&number);
        }
    }

    /// Every lease that is new since the last look is granted to one node under a higher epoch, and that node begins.
    fn check_leases(&mut self) {
        for number in 0..BLOBS {
            let digest = blob_of(number).digest;
            let Some((holder, epoch)) = self.cluster.scheduler.lease_of(&digest) else {
                continue;
            };
            let model = self.nodes.get_mut(&holder).unwrap();
            assert!(model.connected, "a lease is held by somebody who is gone");
            let granted = self.granted.entry(digest).or_default();
            match granted.iter().find(|(known, _)| *known == epoch) {
                Some((_, first)) => assert_eq!(*first, holder, "two nodes hold epoch {epoch}"),
                None => {
                    assert!(
                        granted.iter().all(|(known, _)| *known < epoch),
                        "epoch {epoch} after {granted:?}"
                    );
                    granted.push((epoch, holder));
                    model.reading.insert(number, epoch);
                    if model.pieces.get(&number).is_none_or(|pieces| *pieces < PIECES) {
                        model.wants.insert(number);
                    }
                }
            }
        }
    }

    fn holdings(&self, number: u32) -> Vec<Holding> {
        let model = &self.nodes[&node(number)];
        let known: BTreeSet<u32> = model.pieces.keys().chain(&model.wants).copied().collect();
        known
            .into_iter()
            .map(|number| {
                let pieces = model.pieces.get(&number).copied().unwrap_or_default();
                let reading = model.reading.get(&number).map(|epoch| reading(*epoch, pieces / 2));
                Holding {
                    wants: model.wants.contains(&number),
                    reading,
                    ..holding(blob_of(number), pieces)
                }
            })
            .collect()
    }

    pub(super) fn apply(&mut self, step: Step) {
        match step {
            Step::Connect { node: number, fresh } => self.connect(number, fresh),
            Step::Disconnect { node: number } => {
                let model = self.nodes.get_mut(&node(number)).unwrap();
                if std::mem::take(&mut model.connected) {
                    self.cluster.handle(Input::Disconnected(node(number)));
                }
            }
            Step::Join {
                node: number,
                blob,
                repository,
            } => self.join(number, blob, repository),
            Step::Gain {
                node: number,
                blob,
                pieces,
            } => {
                let model = self.nodes.get_mut(&node(number)).unwrap();
                if model.wants.contains(&blob) {
                    let held = model.pieces.entry(blob).or_default();
                    *held = (*held).max(pieces);
                    if *held == PIECES {
                        model.wants.remove(&blob);
                        model.reading.remove(&blob);
                    }
                }
            }
            Step::Report { node: number } => self.report(number, Report::default()),
            Step::Fail {
                node: number,
                blob,
                status,
            } => {
                let model = self.nodes.get_mut(&node(number)).unwrap();
                if let Some(epoch) = model.reading.remove(&blob) {
                    self.report(number, Report::failed(blob_of(blob).digest, epoch, failure(status)));
                }
            }
            Step::Drop { node: number, blob } => {
                let model = self.nodes.get_mut(&node(number)).unwrap();
                model.pieces.remove(&blob);
                model.wants.remove(&blob);
                model.reading.remove(&blob);
                self.report(
                    number,
                    Report {
                        gone: vec![blob_of(blob).digest],
                        ..Report::default()
                    },
                );
            }
            Step::Lonely { node: number, blob } => {
                if self.nodes[&node(number)].wants.contains(&blob) {
                    self.report(
                        number,
                        Report {
                            lonely: vec![blob_of(blob).digest],
                            ..Report::default()
                        },
                    );
                }
            }
            Step::Accuse {
                node: number,
                other,
                blob,
                forged,
            } => {
                let offence = if forged {
                    Offence::ForgedMidstates
                } else {
                    Offence::WrongBytes
                };
                let accusations = vec![Accusation {
                    node: node(other),
                    digest: blob_of(blob).digest,
                    offence,
                }];
                self.report(
                    number,
                    Report {
                        accusations,
                        ..Report::default()
                    },
                );
            }
            Step::Ask { node: number, tag } => {
                let query = Query::Tag { tag: tag.to_string() };
                self.send(
                    number,
                    Request::Upstream {
                        upstream: Upstream {
                            repository: repository("model"),
                            query,
                        },
                    },
                );
            }
            Step::Answer { which, how } => self.answer(which, how),
            Step::Pass { millis } => self.pass(Duration::from_millis(millis)),
            Step::Restart => self.restart(),
        }
        self.take_outputs();
        self.check_leases();
    }

    fn connect(&mut self, number: u32, fresh: bool) {
        let model = self.nodes.get_mut(&node(number)).unwrap();
        if fresh && !model.connected {
            *model = Model::default();
        }
        model.connected = true;
        self.cluster.handle(Input::Connected(node(number)));
        let role = if number < SEEDS { Role::Seed } else { Role::Peer };
        let holdings = self.holdings(number);
        self.send(number, registration(number, role, Locality::default(), holdings));
        for blob in self.nodes[&node(number)].wants.clone() {
            self.join(number, blob, 0);
        }
    }

    fn join(&mut self, number: u32, blob: u32, repository: u32) {
        let model = self.nodes.get_mut(&node(number)).unwrap();
        if !model.connected || model.pieces.get(&blob) == Some(&PIECES) {
            return;
        }
        model.wants.insert(blob);
        let source = source(if repository == 0 { "model" } else { "other" });
        let digest = blob_of(blob).digest;
        let id = self.cluster.post(
            node(number),
            Request::Join {
                digest,
                size: None,
                source,
                urgent: true,
            },
        );
        self.open.insert(id.0);
        let Some(response) = self.cluster.answer(id) else {
            panic!("a join is answered at once")
        };
        let known = !matches!(response, Response::Reported { known: false, .. });
        if let Response::Joined { swarm } = &response {
            self.take_news(node(number), digest, swarm);
        }
        self.take_reply(id.0, response);
        if !known {
            // It was forgotten for its silence.
            self.nodes.get_mut(&node(number)).unwrap().wants.remove(&blob);
        }
    }

    fn report(&mut self, number: u32, report: Report) {
        if !self.nodes[&node(number)].connected {
            return;
        }
        let Report {
            gone,
            failed,
            accusations,
            lonely,
            ..
        } = report;
        let holdings = self.holdings(number);
        let id = self.cluster.post(
            node(number),
            Request::Report {
                holdings,
                gone,
                failed,
                accusations,
                lonely,
            },
        );
        self.open.insert(id.0);
        let Some(response) = self.cluster.answer(id) else {
            panic!("a report is answered at once")
        };
        let mut again = false;
        if let Response::Reported { known, swarms } = &response {
            swarms
                .iter()
                .for_each(|(digest, swarm)| self.take_news(node(number), *digest, swarm));
            again = !known;
        }
        self.take_reply(id.0, response);
        if again {
            self.connect(number, false);
        }
    }

    fn answer(&mut self, which: usize, how: u32) {
        if self.asks.is_empty() {
            return;
        }
        let (id, _, upstream) = self.asks.remove(which % self.asks.len());
        let of = match upstream.query {
            Query::Probe { digest, .. } => (0..BLOBS).map(blob_of).find(|blob| blob.digest == digest).unwrap(),
            Query::Tag { .. } | Query::Tags { .. } | Query::Referrers { .. } | Query::Ping => blob_of(0),
        };
        let content = |access| UpstreamAnswer::Content {
            blob: of,
            media_type: "m".into(),
            access,
        };
        let answer = match how {
            0 => None,
            1 => Some(UpstreamAnswer::Failed { failure: failure(404) }),
            2 => Some(content(Access::Private)),
            _ => Some(content(Access::Public)),
        };
        self.cluster.upstream_answered(id, answer);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.cluster.now + time;
        while let Some(due) = self.cluster.scheduler.deadline().filter(|due| *due <= end) {
            self.cluster.now = self.cluster.now.max(due);
            self.cluster.handle(Input::Tick);
            self.take_outputs();
            self.check_leases();
        }
        self.cluster.now = end;
    }

    /// The scheduler dies, and its requests with it; the nodes register with the next one.
    fn restart(&mut self) {
        self.restarts += 1;
        self.open.clear();
        self.asks.clear();
        self.started += self.cluster.now.as_secs() + 1;
        let started = self.started;
        let seed = self.restarts;
        self.cluster.scheduler = Scheduler::new(Config::default(), started, seed);
        self.cluster.now = Duration::ZERO;
        let connected: Vec<u32> = (0..NODES)
            .filter(|number| self.nodes[&node(*number)].connected)
            .collect();
        connected.into_iter().for_each(|number| self.connect(number, false));
    }

    /// Whoever waits has a reader or a holder, once there has been time to tell and to choose.
    pub(super) fn check_liveness(&mut self) {
        for _ in 0..4 {
            self.pass(Duration::from_secs(1));
            (0..NODES).for_each(|number| self.report(number, Report::default()));
            self.take_outputs();
            self.check_leases();
        }
        for view in self.cluster.scheduler.swarms(None, usize::MAX) {
            let needs = view.waiting > 0 && view.whole == 0;
            let named = self.cluster.scheduler.has_usable_source(&view.digest, self.cluster.now);
            let able = self.cluster.scheduler.has_able_reader(&view.digest, self.cluster.now);
            assert!(
                !needs || !named || !able || view.reader.is_some(),
                "nobody reads {view:?}"
            );
        }
    }

    /// When everybody has gone and time has passed, nothing is left.
    pub(super) fn check_empty(&mut self) {
        for number in 0..NODES {
            self.apply(Step::Disconnect { node: number });
        }
        self.pass(Duration::from_secs(700));
        self.take_outputs();
        assert!(self.open.is_empty(), "never answered: {:?}", self.open);
        let status = self.cluster.scheduler.status(self.cluster.now);
        let left = (
            status.nodes,
            status.swarms,
            status.memberships,
            status.upstream,
            status.upstream_waiters,
        );
        assert_eq!(left, (0, 0, 0, 0, 0));
        assert_eq!(status.timers, 0);
    }
}
