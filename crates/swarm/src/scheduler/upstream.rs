//! Questions that only a registry can answer, asked of seeds: each once for all who wait, and for a while not again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Blob, Digest, NodeId};
use wire::control::{Failure, Holding, Query, Repository, Response, Source, Upstream, UpstreamAnswer};

use super::Scheduler;
use super::event::{AskId, Output, RequestId};
use super::slots::NodeKey;
use super::timers::Timer;
use crate::rank;

/// Nodes that are asked one after another before the question counts as unanswerable.
const ATTEMPTS: usize = 3;
/// Peers drawn when there is no seed.
const PEERS: usize = 16;
/// Bytes of an answer that is repeated; only failures could be longer.
const MAX_REPEATED: usize = 8 << 10;
/// Bytes of a registry's or repository's name: the distribution spec's 255, and a port.
const MAX_NAME: usize = 262;
/// Bytes of a tag or of a client's query string.
const MAX_QUERY: usize = 4096;

/// Questions under way, and answers worth repeating.
#[derive(Debug, Default)]
pub(super) struct Relay {
    pending: BTreeMap<AskId, Pending>,
    by_question: BTreeMap<Upstream, AskId>,
    waiters: usize,
    next: u64,
    answers: BTreeMap<Upstream, (Duration, UpstreamAnswer)>,
    expiries: BTreeSet<(Duration, Upstream)>,
}

#[derive(Debug)]
struct Pending {
    upstream: Upstream,
    waiters: Vec<RequestId>,
    /// Who is being asked, last, and who was before.
    asked: Vec<NodeId>,
    until: Duration,
}

impl Relay {
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) const fn waiters(&self) -> usize {
        self.waiters
    }

    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    fn answer(&self, now: Duration, upstream: &Upstream) -> Option<&UpstreamAnswer> {
        self.answers
            .get(upstream)
            .filter(|(until, _)| now < *until)
            .map(|(_, answer)| answer)
    }

    fn remember(&mut self, now: Duration, until: Duration, upstream: Upstream, answer: UpstreamAnswer, most: usize) {
        if let Some((before, _)) = self.answers.insert(upstream.clone(), (until, answer)) {
            self.expiries.remove(&(before, upstream.clone()));
        }
        self.expiries.insert((until, upstream));
        while self.answers.len() > most || self.expiries.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, upstream)) = self.expiries.pop_first() else {
                return;
            };
            self.answers.remove(&upstream);
        }
    }
}

impl Scheduler {
    /// A node asks what only a registry can tell.
    pub(super) fn ask_upstream(&mut self, now: Duration, id: RequestId, upstream: Upstream, out: &mut Vec<Output>) {
        if let Err(reason) = check_upstream(&upstream) {
            self.counters.refused += 1;
            out.push(Output::Reply {
                id,
                response: Response::Refused { reason },
            });
            return;
        }
        let known = self
            .known_answer(now, &upstream)
            .or_else(|| self.relay.answer(now, &upstream).cloned());
        if let Some(answer) = known {
            out.push(Output::Reply {
                id,
                response: Response::Upstream { answer },
            });
            return;
        }
        if self.relay.waiters >= self.config.limits.upstream_waiters {
            self.counters.refused += 1;
            let reason = format!(
                "{} nodes wait for registries already: ask again later",
                self.relay.waiters
            );
            out.push(Output::Reply {
                id,
                response: Response::Refused { reason },
            });
            return;
        }
        match self.question(now, upstream) {
            Ok(ask) => {
                let pending = self.relay.pending.get_mut(&ask).expect("just asked");
                pending.waiters.push(id);
                self.relay.waiters += 1;
            }
            Err(failure) => {
                let answer = UpstreamAnswer::Failed { failure };
                out.push(Output::Reply {
                    id,
                    response: Response::Upstream { answer },
                });
            }
        }
    }

    /// Asks on the scheduler's own account who may read a content.
    pub(super) fn probe(&mut self, now: Duration, digest: Digest, source: Source) {
        let Source { repository, kind } = source;
        let upstream = Upstream {
            repository: repository.clone(),
            query: Query::Probe { digest, kind },
        };
        if let Err(failure) = self.question(now, upstream) {
            self.fail_probe(now, digest, &repository, &failure);
        }
    }

    /// A seed has answered, or cannot.
    pub(super) fn upstream_answered(
        &mut self,
        now: Duration,
        id: AskId,
        answer: Option<UpstreamAnswer>,
        out: &mut Vec<Output>,
    ) {
        let Some(pending) = self.relay.pending.get(&id) else {
            return;
        };
        let answer = answer.filter(|answer| fits(&pending.upstream.query, answer));
        if answer.is_none() && pending.asked.len() < ATTEMPTS && self.ask_next(now, id) {
            return;
        }
        let Some(pending) = self.relay.pending.remove(&id) else {
            return;
        };
        let Pending {
            upstream,
            waiters,
            asked,
            until,
        } = pending;
        self.relay.by_question.remove(&upstream);
        self.relay.waiters -= waiters.len();
        self.timers.unset(until, Timer::Upstream(id));
        let answer = answer.unwrap_or_else(|| unanswered(&upstream, asked.len()));
        for id in waiters {
            out.push(Output::Reply {
                id,
                response: Response::Upstream { answer: answer.clone() },
            });
        }
        self.learn(now, upstream, answer, asked.last());
    }

    /// A seed has taken too long.
    pub(super) fn upstream_expired(&mut self, now: Duration, id: AskId, out: &mut Vec<Output>) {
        if self.relay.pending.get(&id).is_some_and(|pending| pending.until <= now) {
            self.upstream_answered(now, id, None, out);
        }
    }

    /// What is known without asking: who may read a content that is here.
    fn known_answer(&self, now: Duration, upstream: &Upstream) -> Option<UpstreamAnswer> {
        let Query::Probe { digest, .. } = &upstream.query else {
            return None;
        };
        let access = self.access.get(now, digest, &upstream.repository)?;
        let swarm = &self.swarms[self.swarms.key(digest)?];
        let blob = Blob {
            digest: *digest,
            size: swarm.size?,
        };
        Some(UpstreamAnswer::Content {
            blob,
            media_type: swarm.media_type.clone()?,
            access,
        })
    }

    /// The question's name, asked now or already under way.
    fn question(&mut self, now: Duration, upstream: Upstream) -> Result<AskId, Failure> {
        if let Some(id) = self.relay.by_question.get(&upstream) {
            return Ok(*id);
        }
        if self.relay.pending.len() >= self.config.limits.upstream {
            let message = format!(
                "{} questions to registries are under way already",
                self.relay.pending.len()
            );
            return Err(Failure {
                status: 503,
                message,
                retry_after: Some(1),
                challenge: None,
            });
        }
        let id = AskId(self.relay.next);
        self.relay.next += 1;
        let pending = Pending {
            upstream: upstream.clone(),
            waiters: Vec::new(),
            asked: Vec::new(),
            until: now,
        };
        self.relay.pending.insert(id, pending);
        if self.ask_next(now, id) {
            self.relay.by_question.insert(upstream, id);
            return Ok(id);
        }
        self.relay.pending.remove(&id);
        let message = format!(
            "no node is there that could ask {}; start a seed",
            upstream.repository.registry
        );
        Err(Failure {
            status: 503,
            message,
            retry_after: Some(1),
            challenge: None,
        })
    }

    /// Asks the next node. False if there is none.
    fn ask_next(&mut self, now: Duration, id: AskId) -> bool {
        let Some(pending) = self.relay.pending.get(&id) else {
            return false;
        };
        let digest = Digest::of(&wire::encode(&pending.upstream));
        let able = |node: &NodeKey| {
            let id = self.nodes[*node].id;
            !pending.asked.contains(&id) && !self.conduct.is_outcast(now, &id)
        };
        let weight = |node: &NodeKey| {
            let id = self.nodes[*node].id;
            (rank(&digest, &id), id)
        };
        let seed = self.nodes.seeds.iter().filter(able).max_by_key(weight);
        let chosen = seed.or_else(|| {
            self.nodes
                .peers
                .draw(PEERS, &mut self.rng)
                .filter(able)
                .max_by_key(weight)
        });
        let Some(node) = chosen else { return false };
        let to = self.nodes[node].id;
        let until = now + self.config.upstream_timeout;
        let pending = self.relay.pending.get_mut(&id).expect("looked up above");
        self.timers.unset(pending.until, Timer::Upstream(id));
        self.timers.set(until, Timer::Upstream(id));
        pending.until = until;
        pending.asked.push(to);
        self.asks.push(Output::AskSeed {
            id,
            to,
            upstream: pending.upstream.clone(),
        });
        true
    }

    /// Keeps what an answer tells.
    fn learn(&mut self, now: Duration, upstream: Upstream, answer: UpstreamAnswer, from: Option<&NodeId>) {
        let repository = &upstream.repository;
        let ttl = match (&upstream.query, &answer) {
            (
                Query::Tag { .. },
                UpstreamAnswer::Content {
                    blob,
                    media_type,
                    access,
                },
            ) => {
                self.learn_access(now, blob.digest, repository, *access);
                if let Some(node) = from.and_then(|id| self.nodes.key(id)) {
                    let (blob, media_type) = (*blob, Some(media_type.clone()));
                    let pieces = blob.geometry().count();
                    self.note_holding(
                        now,
                        node,
                        Holding {
                            blob,
                            pieces,
                            wants: false,
                            media_type,
                            reading: None,
                        },
                    );
                }
                self.config.tag_ttl
            }
            (Query::Probe { digest, .. }, UpstreamAnswer::Content { access, .. }) => {
                self.learn_access(now, *digest, repository, *access);
                return;
            }
            (query, UpstreamAnswer::Failed { failure }) => {
                if let Query::Probe { digest, .. } = query {
                    self.fail_probe(now, *digest, repository, failure);
                }
                self.config.failure_ttl
            }
            (_, UpstreamAnswer::Document { .. } | UpstreamAnswer::Content { .. }) => return,
        };
        if wire::encode(&answer).len() <= MAX_REPEATED {
            self.relay
                .remember(now, now + ttl, upstream, answer, self.config.limits.answers);
        }
    }

    /// Nobody knows who may read a content: those who wait for that are told.
    fn fail_probe(&mut self, now: Duration, digest: Digest, repository: &Repository, failure: &Failure) {
        let Some(swarm) = self.swarms.key(&digest) else { return };
        let state = &mut self.swarms[swarm];
        let of_it: Vec<_> = state.sources.of(repository).collect();
        let reading = state.lease.map(|lease| lease.source);
        for index in of_it {
            let source = self.swarms[swarm].sources.get_mut(index);
            let asked = std::mem::take(&mut source.probing);
            // A reader has begun there meanwhile: it will find out.
            if asked && reading != Some(index) {
                self.fail_source(now, swarm, index, failure);
            }
        }
        self.dirty.insert(swarm);
    }
}

/// Whether a source's names are ones that a registry can have.
pub(super) fn check_repository(repository: &Repository) -> Result<(), String> {
    let Repository { registry, name } = repository;
    if registry.len() > MAX_NAME || name.len() > MAX_NAME {
        return Err(format!(
            "the names of a registry and of a repository have at most {MAX_NAME} bytes"
        ));
    }
    Ok(())
}

fn check_upstream(upstream: &Upstream) -> Result<(), String> {
    check_repository(&upstream.repository)?;
    let length = match &upstream.query {
        Query::Tag { tag } => tag.len(),
        Query::Tags { query } | Query::Referrers { query, .. } => query.len(),
        Query::Probe { .. } | Query::Ping => 0,
    };
    if length > MAX_QUERY {
        return Err(format!("a tag or query string has at most {MAX_QUERY} bytes"));
    }
    Ok(())
}

/// Whether an answer is one to the question.
fn fits(query: &Query, answer: &UpstreamAnswer) -> bool {
    match (query, answer) {
        (_, UpstreamAnswer::Failed { .. }) | (Query::Tag { .. }, UpstreamAnswer::Content { .. }) => true,
        (Query::Probe { digest, .. }, UpstreamAnswer::Content { blob, .. }) => blob.digest == *digest,
        (Query::Tags { .. } | Query::Referrers { .. } | Query::Ping, UpstreamAnswer::Document { .. }) => true,
        (Query::Tag { .. } | Query::Probe { .. }, UpstreamAnswer::Document { .. })
        | (Query::Tags { .. } | Query::Referrers { .. } | Query::Ping, UpstreamAnswer::Content { .. }) => false,
    }
}

fn unanswered(upstream: &Upstream, asked: usize) -> UpstreamAnswer {
    let Repository { registry, name } = &upstream.repository;
    let message = format!("{asked} node(s) asked about {registry}/{name} did not answer; see the logs of the seeds");
    UpstreamAnswer::Failed {
        failure: Failure {
            status: 504,
            message,
            retry_after: Some(1),
            challenge: None,
        },
    }
}
