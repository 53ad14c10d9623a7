//! What nodes ask, one by one.

use std::net::IpAddr;
use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::{Accusation, Failure, Holding, MAX_ENTRIES, Request, Response, Role, Source, Swarm};

use super::event::{Output, RequestId};
use super::membership::Page;
use super::news::Finding;
use super::nodes::Introduction;
use super::slots::{NodeKey, SwarmKey};
use super::upstream::check_repository;
use super::{Owed, Scheduler};

/// Blobs about which one answer to a report tells; of others, updates do. With 32 neighbours each it stays below the limit
/// of a control message.
const MAX_REPORTED: usize = 32;
/// Swarms of one node that are looked at for a stall at each of its reports.
const STALLS: usize = 32;

/// A report's contents.
struct Report {
    holdings: Vec<Holding>,
    gone: Vec<Digest>,
    failed: Vec<(Digest, u64, Failure)>,
    accusations: Vec<Accusation>,
    lonely: Vec<Digest>,
}

impl Scheduler {
    /// Takes a request, and answers it or says what is owed.
    pub(super) fn request(
        &mut self,
        now: Duration,
        (from, observed): (NodeId, IpAddr),
        id: RequestId,
        request: Request,
        out: &mut Vec<Output>,
    ) -> Owed {
        if let Some(reason) = self.expulsion.refuse(&from) {
            self.counters.refused += 1;
            out.push(Output::Reply {
                id,
                response: Response::Refused { reason },
            });
            self.tell_outcast(from, out);
            return Owed::Nothing;
        }
        let response = match request {
            Request::Register {
                protocol,
                role,
                data,
                locality,
                holdings,
                more,
            } => {
                let page = Page {
                    protocol,
                    observed,
                    holdings,
                    more,
                };
                let response = self.register(now, from, Introduction { role, data, locality }, page);
                if !more && matches!(response, Response::Registered { .. }) {
                    self.greet_with_expelled(from, out);
                }
                response
            }
            Request::Join {
                digest,
                size: _,
                source,
                urgent: _,
            } => match self.join(now, &from, digest, &source) {
                Ok(()) => {
                    return Owed::Joined {
                        id,
                        from,
                        digest,
                        source,
                    };
                }
                Err(response) => *response,
            },
            Request::Report {
                holdings,
                gone,
                failed,
                accusations,
                lonely,
            } => {
                let report = Report {
                    holdings,
                    gone,
                    failed,
                    accusations,
                    lonely,
                };
                match self.report(now, &from, report) {
                    Ok(()) => return Owed::Reported { id, from },
                    Err(response) => *response,
                }
            }
            Request::Upstream { upstream } => {
                self.ask_upstream(now, id, upstream, out);
                return Owed::Nothing;
            }
            Request::Preheat { blobs, to } => self.preheat(now, blobs, to.unwrap_or(Role::Seed), out),
            Request::Update { .. }
            | Request::Lookup { .. }
            | Request::Authorised { .. }
            | Request::Lend { .. }
            | Request::Expelled { .. } => Response::Refused {
                reason: "a scheduler holds no blobs: ask a node".into(),
            },
        };
        out.push(Output::Reply { id, response });
        Owed::Nothing
    }

    /// A node wants a blob.
    fn join(&mut self, now: Duration, from: &NodeId, digest: Digest, source: &Source) -> Result<(), Box<Response>> {
        let (swarm, node) = self.enter_member(now, from, digest, source)?;
        let state = &mut self.swarms[swarm];
        let reading = state.lease.map(|lease| lease.source);
        let Some(index) = state.sources.enter(source, reading, now) else {
            self.leave_if_idle(swarm, node);
            let why = "it is wanted from too many repositories at the same time";
            return Err(overloaded(digest, why));
        };
        // A registry that wants credentials refuses whoever asked before; who asks now may bring what it wants.
        state.sources.get_mut(index).forget_refusal();
        if let Some(failure) = state.sources.get(index).failure(now) {
            let finding = Finding::Failure(failure.clone());
            self.news.tell_finding(*from, digest, source, finding);
            self.leave_if_idle(swarm, node);
            return Ok(());
        }
        // One that has got the rest meanwhile, while this request was on its way, asks only who may read.
        if !state.members.get(node).is_some_and(|member| member.whole) {
            self.begin_wait(now, swarm, node);
            // It may have wanted, got and lost the blob between two reports; whoever joins knows nobody.
            self.swarms[swarm].members.forget_named(node);
        }
        let state = &mut self.swarms[swarm];
        if state.members.whole() == 0 && state.retracted.is_some() {
            self.news.tell(*from, digest).retracted = state.retracted;
        }
        if let Some(wait) = state.members.wait_mut(node) {
            state.sources.await_from(&mut wait.sources, index);
        }
        let reader = state.lease.filter(|lease| {
            let reads_from = &state.sources.get(lease.source).source.repository;
            *reads_from == source.repository
        });
        let known = self.access.get(now, &digest, &source.repository);
        match reader.and_then(|lease| lease.access).or(known) {
            Some(access) => self.news.tell_finding(*from, digest, source, Finding::Access(access)),
            None => {
                state.sources.get_mut(index).asking.insert(node);
            }
        }
        Ok(())
    }

    /// Makes whoever asks for a blob a member of its swarm, if that may be.
    fn enter_member(
        &mut self,
        now: Duration,
        from: &NodeId,
        digest: Digest,
        source: &Source,
    ) -> Result<(SwarmKey, NodeKey), Box<Response>> {
        let node = self.known(now, from).ok_or_else(unknown)?;
        check_repository(&source.repository).map_err(|reason| {
            self.counters.refused += 1;
            Box::new(Response::Refused { reason })
        })?;
        let swarm = self.enter_swarm(now, digest).ok_or_else(|| {
            let limit = self.config.limits.swarms;
            overloaded(digest, &format!("the scheduler knows {limit} blobs already"))
        })?;
        self.dirty.insert(swarm);
        let member = self.swarms[swarm].members.get(node).copied().unwrap_or_default();
        if self.set_member(now, swarm, node, member.pieces, member.whole) {
            return Ok((swarm, node));
        }
        let limit = self.config.limits.memberships;
        Err(overloaded(
            digest,
            &format!("the scheduler knows of {limit} holdings already"),
        ))
    }

    /// A node that could not begin to wait is no member if it holds nothing.
    fn leave_if_idle(&mut self, swarm: SwarmKey, node: NodeKey) {
        let members = &self.swarms[swarm].members;
        let idle = members
            .get(node)
            .is_some_and(|member| member.pieces == 0 && !member.whole);
        if idle && members.wait(node).is_none() {
            self.leave(swarm, node);
        }
    }

    /// A node says what has changed.
    fn report(&mut self, now: Duration, from: &NodeId, report: Report) -> Result<(), Box<Response>> {
        let node = self.known(now, from).ok_or_else(unknown)?;
        if report.holdings.len() > MAX_ENTRIES {
            self.counters.refused += 1;
            let reason = format!("a report names at most {MAX_ENTRIES} holdings");
            return Err(Box::new(Response::Refused { reason }));
        }
        report
            .accusations
            .into_iter()
            .for_each(|accusation| self.hear(now, node, accusation));
        for (digest, epoch, failure) in report.failed {
            self.lease_failed(now, node, digest, epoch, failure);
        }
        for holding in report.holdings {
            self.note_holding(now, node, holding);
        }
        for digest in report.gone {
            if let Some(swarm) = self.swarms.key(&digest) {
                self.leave(swarm, node);
            }
        }
        for digest in report.lonely.into_iter().take(MAX_ENTRIES) {
            let Some(swarm) = self.enter_swarm(now, digest) else {
                continue;
            };
            let member = self.swarms[swarm].members.get(node).copied().unwrap_or_default();
            if !member.whole && self.set_member(now, swarm, node, member.pieces, false) {
                self.begin_wait(now, swarm, node);
                self.introduce(now, swarm, node, true);
            }
        }
        self.help_stalled(now, node);
        Ok(())
    }

    /// Names more neighbours to a node for blobs of which it has got nothing for a while.
    fn help_stalled(&mut self, now: Duration, node: NodeKey) {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = &self.nodes[node];
        let after = state.stall_cursor.map_or(Unbounded, Excluded);
        let next: Vec<SwarmKey> = state.wanted.range((after, Unbounded)).take(STALLS).copied().collect();
        // At the end it begins anew.
        self.nodes[node].stall_cursor = next.last().copied().filter(|_| next.len() == STALLS);
        for swarm in next {
            let stalled = self.swarms[swarm]
                .members
                .wait(node)
                .is_some_and(|wait| now >= wait.moved + self.config.stall);
            if stalled {
                self.introduce(now, swarm, node, true);
                self.dirty.insert(swarm);
            }
        }
    }

    /// The number of a node that has registered and whose connection stands, now heard of.
    fn known(&mut self, now: Duration, id: &NodeId) -> Option<NodeKey> {
        let node = self.nodes.key(id).filter(|node| self.nodes[*node].connected)?;
        self.nodes[node].heard = now;
        Some(node)
    }

    /// Answers what could not be answered before all was settled.
    pub(super) fn pay(&mut self, now: Duration, owed: Owed, out: &mut Vec<Output>) {
        match owed {
            Owed::Nothing => {}
            Owed::Joined {
                id,
                from,
                digest,
                source,
            } => {
                let swarm = self.joined(now, from, digest, source);
                out.push(Output::Reply {
                    id,
                    response: Response::Joined { swarm },
                });
            }
            Owed::Reported { id, from } => {
                let swarms = self.news.take_of(from, MAX_REPORTED);
                out.push(Output::Reply {
                    id,
                    response: Response::Reported { known: true, swarms },
                });
            }
        }
    }

    fn joined(&mut self, now: Duration, from: NodeId, digest: Digest, source: Source) -> Swarm {
        if let (Some(swarm), Some(node)) = (self.swarms.key(&digest), self.nodes.key(&from)) {
            self.introduce(now, swarm, node, false);
        }
        let mut told = self.news.take(from, digest).unwrap_or_default();
        if let Some(swarm) = self.swarms.key(&digest) {
            let state = &self.swarms[swarm];
            told.size = state.size;
            told.media_type.clone_from(&state.media_type);
            told.readers.clone_from(&state.readers);
        }
        told.about.get_or_insert(source);
        told
    }
}

/// A blob that cannot be had for want of room, in terms that a client understands.
/// What a node is told that must register first.
fn unknown() -> Box<Response> {
    Box::new(Response::Reported {
        known: false,
        swarms: Vec::new(),
    })
}

fn overloaded(digest: Digest, why: &str) -> Box<Response> {
    let message = format!("{digest} cannot be scheduled, for {why}; try again soon or raise the scheduler's limits");
    let failure = Failure {
        status: 503,
        message,
        retry_after: Some(1),
        challenge: None,
    };
    let swarm = Swarm {
        failure: Some(failure),
        ..Swarm::default()
    };
    Box::new(Response::Joined { swarm })
}
