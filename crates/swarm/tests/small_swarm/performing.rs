//! Carries out what nodes and scheduler decide, in the modelled world.

use std::time::Duration;

use piece::{Digest, Midstate, PieceIndex};
use rand::RngExt as _;
use swarm::node::{Ask, HoldingNow, Input, Outcome, Output, ServeId};
use swarm::scheduler;
use wire::control::{
    Access, Address, Holding, Locality, Neighbour, Reading, Request, Response, Role, Swarm, UpstreamAnswer,
};

use crate::world::{Event, LATENCY, PIECE_TIME, REGISTRY_TIME, SCHEDULER, World, address, id};

const fn told(digest: Digest, swarm: Swarm) -> Input {
    Input::Told {
        scheduler: SCHEDULER,
        digest,
        swarm,
    }
}

impl World {
    pub(crate) fn perform(&mut self, node: usize, output: Output) {
        let blob = self.blob.expect("a blob was wanted before anything happens");
        match output {
            Output::Open { blob, media_type, .. } => {
                let bits = self.hosts[node].held.clone();
                self.tell(
                    node,
                    Duration::from_micros(100),
                    Input::Opened { blob, bits, media_type },
                );
            }
            Output::Connect { node: to, .. } => {
                let to = self.index(to);
                if self.hosts[to].alive {
                    self.connect(node, to);
                } else {
                    self.tell(node, LATENCY * 2, Input::Disconnected { node: id(to) });
                }
            }
            Output::Disconnect { node: to } => self.disconnect(node, self.index(to)),
            Output::Send { to, message } => {
                let to = self.index(to);
                if self.hosts[node].connected.contains(&to) {
                    self.tell(
                        to,
                        LATENCY,
                        Input::Message {
                            from: id(node),
                            message,
                        },
                    );
                }
            }
            Output::Fetch {
                id: request,
                from,
                piece,
                ..
            } => {
                let from = self.index(from);
                self.hosts[node].fetching.insert(request);
                if !self.hosts[node].connected.contains(&from) {
                    self.tell(
                        node,
                        LATENCY,
                        Input::Fetched {
                            id: request,
                            outcome: Outcome::Lost,
                        },
                    );
                    return;
                }
                let serve = ServeId(self.next_serve);
                self.next_serve += 1;
                self.hosts[from].serving.insert(serve, (node, request, piece.get()));
                let input = Input::Serve {
                    id: serve,
                    from: id(node),
                    digest: blob.digest,
                    piece: piece.get(),
                };
                self.tell(from, LATENCY, input);
            }
            Output::Cancel { id } => self.tell(
                node,
                Duration::ZERO,
                Input::Fetched {
                    id,
                    outcome: Outcome::Cancelled,
                },
            ),
            Output::Serve { id } => self.serve(node, id),
            Output::Refuse { id, refusal } => {
                if let Some((to, request, _)) = self.hosts[node].serving.remove(&id) {
                    self.tell(
                        to,
                        LATENCY,
                        Input::Fetched {
                            id: request,
                            outcome: Outcome::Refused(refusal),
                        },
                    );
                }
            }
            Output::OpenOrigin { lease, .. } => {
                if lease.epoch > 0 && *self.leases.entry(lease.epoch).or_insert(node) != node {
                    self.two_readers = true;
                }
                let input = Input::OriginOpened {
                    blob,
                    media_type: None,
                    access: Access::Public,
                    sequential: false,
                };
                self.tell(node, REGISTRY_TIME, input);
            }
            Output::ReadOrigin { first, count, .. } => {
                for number in first.get()..first.get() + count {
                    self.registry_reads += 1;
                    self.hosts[node].reading.insert(number);
                    let after = REGISTRY_TIME * self.hosts[node].reading.len() as u32;
                    let piece = blob.geometry().piece(number).expect("a range lies inside its blob");
                    self.hosts[node].held.set(piece);
                    self.tell(
                        node,
                        after,
                        Input::Settled {
                            digest: blob.digest,
                            piece,
                        },
                    );
                }
            }
            Output::CloseOrigin { .. } => self.hosts[node].reading.clear(),
            Output::Ask { ask, .. } => self.ask(node, ask),
            Output::FindHolders { digest, .. } => self.find_holders(node, digest),
            Output::Distrust { digest, .. } => {
                let bits = self.hosts[node].held.clone();
                self.tell(
                    node,
                    LATENCY,
                    Input::ChainBroken {
                        digest,
                        bits,
                        vouchers: Vec::new(),
                    },
                );
            }
            Output::Failed { failure, .. } => panic!("node {node}: {}", failure.message),
            Output::Provide { .. }
            | Output::Unprovide { .. }
            | Output::Trust { .. }
            | Output::Sized { .. }
            | Output::Accessible { .. }
            | Output::Complete { .. }
            | Output::Ban { .. }
            | Output::Expel { .. } => {}
        }
    }

    fn serve(&mut self, node: usize, serve: ServeId) {
        let Some((to, request, number)) = self.hosts[node].serving.remove(&serve) else {
            return;
        };
        let blob = self.blob.expect("a blob was wanted");
        let piece: PieceIndex = blob
            .geometry()
            .piece(number)
            .expect("only pieces that exist are served");
        assert!(self.hosts[node].held.has(piece), "a node serves only what it holds");
        if self.hosts[node].role == Role::Seed {
            self.sent_by_seeds += 1;
        }
        self.tell(to, LATENCY, Input::Started { id: request });
        self.hosts[node].uploads += 1;
        let took = PIECE_TIME * self.hosts[node].uploads;
        let lost = self.rng.random_bool(self.faults.loss);
        let outcome = match (lost, self.hosts[node].liar) {
            (true, _) => Outcome::Lost,
            (false, true) => Outcome::WrongBytes,
            (false, false) => Outcome::Stored,
        };
        self.tell(node, took, Input::Served { id: serve });
        if outcome == Outcome::Stored && self.hosts[to].fetching.contains(&request) {
            self.hosts[to].held.set(piece);
            self.log.push((self.now + took, to, number));
        }
        self.tell(to, took + LATENCY, Input::Fetched { id: request, outcome });
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.hosts[a].connected.insert(b);
        self.hosts[b].connected.insert(a);
        self.tell(a, LATENCY * 2, Input::Connected { node: id(b) });
        self.tell(b, LATENCY * 2, Input::Connected { node: id(a) });
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        self.hosts[a].connected.remove(&b);
        if self.hosts[b].connected.remove(&a) {
            self.tell(b, LATENCY, Input::Disconnected { node: id(a) });
        }
    }

    fn find_holders(&mut self, node: usize, digest: Digest) {
        let mut holders = Vec::new();
        for other in (0..self.hosts.len()).filter(|other| *other != node && self.hosts[*other].alive) {
            if let Some(holding) = self.hosts[other].machine.holding(&digest) {
                holders.push((neighbour(other, self.hosts[other].role), fill_in(holding)));
            }
        }
        self.tell(node, LATENCY * 4, Input::Holders { digest, holders });
    }

    fn ask(&mut self, node: usize, ask: Ask) {
        if self.scheduler.is_none() {
            return;
        }
        let (request, digest) = match ask {
            Ask::Register { holdings } => {
                let holdings = holdings.into_iter().map(fill_in).collect();
                let register = Request::Register {
                    protocol: wire::PROTOCOL,
                    role: self.hosts[node].role,
                    data: Address(address(node)),
                    locality: Locality::default(),
                    holdings,
                    more: false,
                };
                (register, None)
            }
            Ask::Join {
                digest,
                size,
                source,
                urgent,
            } => (
                Request::Join {
                    digest,
                    size,
                    source,
                    urgent,
                },
                Some(digest),
            ),
            Ask::Report(report) => {
                let holdings = report.holdings.into_iter().map(fill_in).collect();
                let (gone, failed) = (report.gone, report.failed);
                let (accusations, lonely) = (report.accusations, report.lonely);
                (
                    Request::Report {
                        holdings,
                        gone,
                        failed,
                        accusations,
                        lonely,
                    },
                    None,
                )
            }
        };
        let number = scheduler::RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(number, (node, digest));
        let life = self.scheduler_life;
        let input = scheduler::Input::Request {
            from: id(node),
            observed: address(node).ip(),
            id: number,
            request,
        };
        self.at(LATENCY, Event::Scheduler { life, input });
    }

    pub(crate) fn perform_scheduler(&mut self, output: scheduler::Output) {
        match output {
            scheduler::Output::Reply { id, response } => {
                let (node, asked) = self.requests.remove(&id).expect("every request is answered once");
                match response {
                    Response::Registered { report_every } => {
                        let report_every = Duration::from_millis(report_every.into());
                        self.tell(
                            node,
                            LATENCY,
                            Input::Registered {
                                scheduler: SCHEDULER,
                                report_every,
                            },
                        );
                    }
                    Response::Joined { swarm } => {
                        let digest = asked.expect("only joins are answered so");
                        self.tell(node, LATENCY, told(digest, swarm));
                    }
                    Response::Reported { known, swarms } => {
                        self.tell(
                            node,
                            LATENCY,
                            Input::Reported {
                                scheduler: SCHEDULER,
                                known,
                            },
                        );
                        for (digest, swarm) in swarms {
                            self.tell(node, LATENCY, told(digest, swarm));
                        }
                    }
                    other => panic!("unexpected answer {other:?}"),
                }
            }
            scheduler::Output::Update { to, digest, swarm } => {
                let to = self.index(to);
                self.tell(to, LATENCY, told(digest, swarm));
            }
            scheduler::Output::AskSeed { id, .. } => {
                let answer = UpstreamAnswer::Content {
                    blob: self.blob.expect("a blob was wanted"),
                    media_type: "application/octet-stream".into(),
                    access: Access::Public,
                };
                let life = self.scheduler_life;
                let input = scheduler::Input::UpstreamAnswered {
                    id,
                    answer: Some(answer),
                };
                self.at(LATENCY * 2 + REGISTRY_TIME, Event::Scheduler { life, input });
            }
            scheduler::Output::Preheat { .. } | scheduler::Output::Expelled { .. } => panic!("no operator is here"),
        }
    }
}

fn neighbour(node: usize, role: Role) -> Neighbour {
    Neighbour {
        node: id(node),
        data: Address(address(node)),
        role,
        locality: Locality::default(),
    }
}

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
