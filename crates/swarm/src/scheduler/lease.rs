//! Who reads a blob from its registry.
//!
//! A lease is granted when somebody waits for a blob that nobody holds whole and nobody reads: to the connected seed with the
//! highest [`rank`] for it, or without seeds to one of those who wait. Its epoch is higher than any before, over restarts and
//! by whichever scheduler: epochs grow with the clock, and those that nodes report are learnt. It lives by its holder's
//! reports; the next holder goes on at the last published boundary.
//!
//! Other schedulers grant leases too. Nodes report what they read to the first two schedulers in a blob's order, and so the
//! second adopts the lease that the first has granted. Should both grant one, both choose the same seed, for they know the
//! same seeds; it reads on under the higher epoch, which both then adopt.
//!
//! A scheduler that was restarted must not grant what is held already. So it waits a little ([`Config::recovery`]
//! (super::Config::recovery)) after a node has registered holdings in its first half minute, and never gives a lease to a
//! peer in its first moments while no seed has come. A new cluster, whose nodes hold nothing, is not delayed once a seed is
//! there.

use std::time::Duration;

use piece::{Digest, Midstate};
use wire::control::{Access, Failure, Reading, Repository, Resume};

use super::news::Finding;
use super::slots::{NodeKey, SwarmKey};
use super::swarm::{Lease, SourceIndex};
use super::timers::Timer;
use super::{EPOCH_STEP, EPOCHS_PER_SECOND, Scheduler};
use crate::rank;

/// An epoch this far above all known ones and the clock is no scheduler's: twelve days of clocks going wrong.
const IMPLAUSIBLE: u64 = 1 << 40;
/// Nodes that may fail on one source, without getting any further, before those who wait are told.
const ATTEMPTS: u8 = 2;
/// When nobody can be given a lease, it is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Peers drawn when there is no seed.
const PEERS: usize = 32;

/// How a lease came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its holder has the whole blob.
    Done,
    /// Its holder is gone, silent, not trusted, gave it back, or was overtaken.
    Lost,
}

impl Scheduler {
    /// Restores what must hold for one blob: it is read if it must be, those who ask about access will be answered, its timer
    /// is set, and it is forgotten if nobody needs it.
    pub(super) fn settle_swarm(&mut self, now: Duration, swarm: SwarmKey) {
        if self.swarms[swarm].lease.is_some_and(|lease| lease.expires <= now) {
            self.end_lease(swarm, Ended::Lost);
        }
        self.deferred.remove(&swarm);
        self.ensure_lease(now, swarm);
        self.probe_where_needed(now, swarm);
        let state = &mut self.swarms[swarm];
        let idle = state.members.is_empty() && state.lease.is_none() && state.sources.are_idle(now);
        if idle {
            self.timers.disarm(&mut state.armed, Timer::Swarm(state.digest));
            self.dirty.remove(&swarm);
            self.swarms.remove(swarm);
            return;
        }
        let next = [state.lease.map(|lease| lease.expires), state.sources.next_expiry(now)];
        if let Some(at) = next.into_iter().flatten().min() {
            self.arm_swarm(swarm, at);
        }
    }

    fn ensure_lease(&mut self, now: Duration, swarm: SwarmKey) {
        let stuck = self.swarms[swarm].is_stuck(now, self.config.stuck);
        if stuck {
            // Whoever holds it cannot be reached by those who wait, or the lease's holder cannot.
            if let Some(lease) = self.swarms[swarm].lease {
                let reader = self.nodes[lease.holder].id;
                self.swarms[swarm].give_up_on(reader);
            }
            self.end_lease(swarm, Ended::Lost);
        }
        let state = &mut self.swarms[swarm];
        let needless = state.lease.is_some() || (state.members.whole() > 0 && !stuck);
        if needless || state.members.waiting.is_empty() {
            return;
        }
        let Some(source) = state.sources.wanted(now).or_else(|| state.sources.usable(now)) else {
            return;
        };
        state.moved = now;
        let reader = match self.grants_from() {
            from if now < from => Err(from),
            _ => self.choose_reader(now, swarm, source).ok_or(now + RETRY),
        };
        match reader {
            Ok(reader) => self.grant(now, swarm, source, reader),
            Err(later) => {
                self.deferred.insert(swarm);
                self.arm_swarm(swarm, later);
            }
        }
    }

    /// From when on leases are granted.
    fn grants_from(&self) -> Duration {
        let for_seeds = if self.nodes.seeds.is_empty() {
            self.config.recovery
        } else {
            Duration::ZERO
        };
        for_seeds.max(self.recover_until.unwrap_or_default())
    }

    /// The node that is to read a blob: a seed, one that has not tried before others; and a peer only when no seed is there
    /// that those who wait can reach.
    fn choose_reader(&mut self, now: Duration, swarm: SwarmKey, source: SourceIndex) -> Option<NodeKey> {
        if let Some(reader) = self.untried_reader(now, swarm, source) {
            return Some(reader);
        }
        let state = &mut self.swarms[swarm];
        state.sources.get_mut(source).tried.clear();
        if let Some(reader) = self.untried_reader(now, swarm, source) {
            return Some(reader);
        }
        self.swarms[swarm].unreachable.clear();
        self.untried_reader(now, swarm, source)
    }

    /// The same among those that have not tried.
    fn untried_reader(&mut self, now: Duration, swarm: SwarmKey, source: SourceIndex) -> Option<NodeKey> {
        let state = &self.swarms[swarm];
        let tried = &state.sources.get(source).tried;
        let able = |node: &NodeKey| {
            let known = &self.nodes[*node];
            let whole = state.members.get(*node).is_some_and(|member| member.whole);
            let distrusted = self.conduct.is_banned(now, &known.id, &state.digest);
            known.connected && !whole && !distrusted && !state.unreachable.contains(&known.id)
        };
        let untried = |node: &NodeKey| !tried.contains(&self.nodes[*node].id);
        let weight = |node: &NodeKey| {
            let id = self.nodes[*node].id;
            (rank(&state.digest, &id), id)
        };
        let mut seeds = self.nodes.seeds.iter().filter(able).peekable();
        if seeds.peek().is_some() {
            return seeds.filter(untried).max_by_key(weight);
        }
        let peers = state.members.waiting.draw(PEERS, &mut self.rng);
        peers.filter(able).filter(untried).max_by_key(weight)
    }

    fn grant(&mut self, now: Duration, swarm: SwarmKey, source: SourceIndex, reader: NodeKey) {
        self.counters.leases += 1;
        let epoch = self.next_epoch(now);
        let expires = now + self.config.open_timeout;
        let state = &mut self.swarms[swarm];
        let new = state.members.get(reader).is_none();
        if new {
            // Beyond the limit of memberships if need be: there are no more leases than blobs.
            state.members.set(reader, 0, false);
            self.memberships += 1;
            self.nodes[reader].swarms.insert(swarm);
        }
        // Reports lag behind what readers publish: whoever follows one hears what others hold before it reads anything.
        let from_start = Resume {
            boundary: 0,
            midstate: Midstate::START,
        };
        let resume = match state.published {
            Some((resume, _)) => Some(resume),
            None => (state.epoch > 0).then_some(from_start),
        };
        let lease = Lease {
            holder: reader,
            epoch,
            source,
            expires,
            opened: false,
            access: None,
        };
        let granted = wire::control::Lease {
            epoch,
            source: state.sources.get(source).source.clone(),
            resume,
        };
        let told = self.news.tell(self.nodes[reader].id, state.digest);
        (told.lease, told.size, told.media_type) = (Some(granted), state.size, state.media_type.clone());
        self.hold(now, swarm, lease);
        if !self.swarms[swarm].members.holding.is_empty() {
            // What others hold already, it fetches from them.
            self.introduce(now, swarm, reader, false);
        }
    }

    /// An epoch higher than all granted before, here or, going by the clock, elsewhere.
    fn next_epoch(&mut self, now: Duration) -> u64 {
        let steps = self.last_epoch.saturating_sub(self.first_epoch) / EPOCH_STEP + 1;
        let next = self.first_epoch.saturating_add(steps.saturating_mul(EPOCH_STEP));
        self.last_epoch = next.max(self.clock_epoch(now));
        self.last_epoch
    }

    /// The epoch that belongs to this moment.
    fn clock_epoch(&self, now: Duration) -> u64 {
        self.first_epoch
            .saturating_add(now.as_secs().saturating_mul(EPOCHS_PER_SECOND))
    }

    /// A node holds a lease: it waits for the blob like others, who are told of it.
    fn hold(&mut self, now: Duration, swarm: SwarmKey, lease: Lease) {
        let reader = lease.holder;
        self.begin_wait(now, swarm, reader);
        let state = &mut self.swarms[swarm];
        (state.lease, state.epoch, state.moved) = (Some(lease), state.epoch.max(lease.epoch), now);
        if let Some(wait) = state.members.wait_mut(reader) {
            state.sources.await_from(&mut wait.sources, lease.source);
        }
        state.add_reader(self.nodes[reader].id);
        for node in state.members.waiting.iter() {
            self.news
                .tell(self.nodes[node].id, state.digest)
                .readers
                .clone_from(&state.readers);
        }
        self.nodes[reader].leases.insert(swarm);
        self.feed(swarm, reader);
    }

    /// A lease is over.
    pub(super) fn end_lease(&mut self, swarm: SwarmKey, ended: Ended) {
        let state = &mut self.swarms[swarm];
        let Some(lease) = state.lease.take() else { return };
        let holder = &mut self.nodes[lease.holder];
        holder.leases.remove(&swarm);
        if ended == Ended::Lost {
            state.sources.get_mut(lease.source).try_by(holder.id);
            if holder.connected {
                self.news.tell(holder.id, state.digest).revoked = Some(lease.epoch);
            }
        }
        self.dirty.insert(swarm);
    }

    /// A member says that it reads the blob.
    pub(super) fn note_reading(&mut self, now: Duration, swarm: SwarmKey, node: NodeKey, reading: Reading) {
        let id = self.nodes[node].id;
        let latest = self.last_epoch.max(self.clock_epoch(now));
        if reading.epoch.saturating_sub(latest) > IMPLAUSIBLE {
            return;
        }
        self.last_epoch = self.last_epoch.max(reading.epoch);
        let state = &self.swarms[swarm];
        let held = state
            .lease
            .filter(|lease| lease.holder == node && lease.epoch == reading.epoch);
        if held.is_none() {
            let overtaken =
                reading.epoch < state.epoch || state.lease.is_some_and(|lease| lease.epoch >= reading.epoch);
            if overtaken || self.conduct.is_banned(now, &id, &state.digest) || !self.adopt(now, swarm, node, &reading) {
                let digest = self.swarms[swarm].digest;
                self.news.tell(id, digest).revoked = Some(reading.epoch);
                return;
            }
        }
        let state = &mut self.swarms[swarm];
        let Some(lease) = &mut state.lease else { return };
        lease.expires = now + self.config.lease_ttl;
        let answered = !std::mem::replace(&mut lease.opened, true);
        lease.access = Some(reading.access);
        let further = state
            .published
            .is_none_or(|(resume, _)| resume.boundary < reading.boundary);
        if let Some(midstate) = reading.midstate.filter(|_| further && reading.boundary > 0) {
            state.published = Some((
                Resume {
                    boundary: reading.boundary,
                    midstate,
                },
                id,
            ));
        }
        if answered {
            state.moved = now;
            let (digest, expires) = (state.digest, now + self.config.lease_ttl);
            self.arm_swarm(swarm, expires);
            self.learn_access(now, digest, &reading.source.repository, reading.access);
        }
    }

    /// Takes over a lease that another scheduler granted, perhaps this one before it was restarted.
    fn adopt(&mut self, now: Duration, swarm: SwarmKey, node: NodeKey, reading: &Reading) -> bool {
        let state = &mut self.swarms[swarm];
        let held = state.lease.map(|lease| lease.source);
        let Some(source) = state.sources.enter(&reading.source, held, now) else {
            return false;
        };
        let same = state
            .lease
            .is_some_and(|lease| lease.holder == node && lease.source == source);
        if !same {
            self.end_lease(swarm, Ended::Lost);
        }
        let expires = now + self.config.lease_ttl;
        let lease = Lease {
            holder: node,
            epoch: reading.epoch,
            source,
            expires,
            opened: false,
            access: None,
        };
        self.hold(now, swarm, lease);
        true
    }

    /// A holder gives its lease back because the registry failed it, or it failed itself.
    pub(super) fn lease_failed(&mut self, now: Duration, node: NodeKey, digest: Digest, epoch: u64, failure: Failure) {
        let Some(swarm) = self.swarms.key(&digest) else { return };
        let state = &mut self.swarms[swarm];
        let Some(lease) = state.lease.filter(|lease| lease.holder == node && lease.epoch == epoch) else {
            return;
        };
        self.counters.failed_leases += 1;
        let boundary = state.published.map_or(0, |(resume, _)| resume.boundary);
        let source = state.sources.get_mut(lease.source);
        let (failures, at) = source.failures;
        source.failures = if boundary > at {
            (1, boundary)
        } else {
            (failures + 1, at)
        };
        // What the registry says about the content holds for everybody. What went wrong on the way may not.
        let elsewhere = failure.status >= 500 && source.failures.0 < ATTEMPTS;
        self.end_lease(swarm, Ended::Lost);
        if !(elsewhere && self.untried_reader(now, swarm, lease.source).is_some()) {
            self.fail_source(now, swarm, lease.source, &failure);
        }
    }

    /// A blob cannot be had from a source: those who wait for it from there alone are told, and wait no longer.
    pub(super) fn fail_source(&mut self, now: Duration, swarm: SwarmKey, index: SourceIndex, failure: &Failure) {
        let state = &mut self.swarms[swarm];
        let source = state.sources.get_mut(index);
        source.failed = Some((now + self.config.failure_ttl, failure.clone()));
        source.failures = (0, 0);
        source.tried.clear();
        let named = source.source.clone();
        let mut told = std::mem::take(&mut source.asking);
        let mut ended = Vec::new();
        for node in state.members.waiting.iter().collect::<Vec<_>>() {
            let Some(wait) = state.members.wait_mut(node) else {
                continue;
            };
            let named_it = state.sources.give_up(&mut wait.sources, index);
            if named_it && wait.sources == 0 {
                ended.push(node);
                told.insert(node);
            }
        }
        // Those that never named a source live by the others'.
        if state.sources.usable(now).is_none() && state.lease.is_none() && state.members.whole() == 0 {
            ended.clone_from(&state.members.waiting.iter().collect());
            told.extend(&ended);
        }
        for node in told {
            self.news.tell_finding(
                self.nodes[node].id,
                state.digest,
                &named,
                Finding::Failure(failure.clone()),
            );
        }
        for node in ended {
            self.end_wait(swarm, node);
            if self.swarms[swarm]
                .members
                .get(node)
                .is_some_and(|member| member.pieces == 0 && !member.whole)
            {
                self.leave(swarm, node);
            }
        }
        self.dirty.insert(swarm);
    }

    /// A registry has said who may read a content.
    pub(super) fn learn_access(&mut self, now: Duration, digest: Digest, repository: &Repository, access: Access) {
        self.access.put(now, digest, repository, access);
        let Some(swarm) = self.swarms.key(&digest) else { return };
        let state = &mut self.swarms[swarm];
        let of_it = |source: &&mut super::swarm::SourceState| source.source.repository == *repository;
        for source in state.sources.iter_mut().filter(of_it) {
            source.probing = false;
            for node in std::mem::take(&mut source.asking) {
                self.news
                    .tell_finding(self.nodes[node].id, digest, &source.source, Finding::Access(access));
            }
        }
        self.dirty.insert(swarm);
    }

    /// Asks a seed who may read where the reader will not find out: the blob is here already, or read from elsewhere.
    fn probe_where_needed(&mut self, now: Duration, swarm: SwarmKey) {
        let state = &self.swarms[swarm];
        let here = state.members.whole() > 0;
        let read_from = state
            .lease
            .map(|lease| &state.sources.get(lease.source).source.repository);
        let mut probes = Vec::new();
        for (index, source) in state
            .sources
            .iter()
            .filter(|(_, source)| !source.asking.is_empty() && !source.probing)
        {
            let repository = &source.source.repository;
            if read_from.is_some_and(|read_from| read_from != repository) || (read_from.is_none() && here) {
                probes.push((index, source.source.clone()));
            }
        }
        for (index, source) in probes {
            let state = &mut self.swarms[swarm];
            state.sources.get_mut(index).probing = true;
            let digest = state.digest;
            self.probe(now, digest, source);
        }
    }

    pub(super) fn arm_swarm(&mut self, swarm: SwarmKey, at: Duration) {
        let state = &mut self.swarms[swarm];
        self.timers.arm(&mut state.armed, at, Timer::Swarm(state.digest));
    }
}
