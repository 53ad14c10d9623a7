//! Who comes, what they hold, and who goes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use piece::{Blob, NodeId};
use wire::control::{Accusation, Holding, Locality, MAX_ENTRIES, Offence, Response, Retraction, Role};
use wire::exchange::MAX_MEDIA_TYPE;

use super::Scheduler;
use super::conduct::{MAX_ACCUSED, Verdict};
use super::lease::Ended;
use super::nodes::{Introduction, Paging};
use super::slots::{NodeKey, SwarmKey};
use super::timers::Timer;

/// Bytes of a locality label at most.
const MAX_LABEL: usize = 128;
/// Intervals without a report after which a node counts as gone although its connection stands. A node with nothing new
/// reports at every third only, and waits five seconds for an answer.
const SILENCE: u32 = 15;
/// Intervals after which a node whose connection is gone is forgotten.
const GRACE: u32 = 3;
/// A scheduler that hears of holdings this soon after its start takes it that it was restarted.
const RESTART: Duration = Duration::from_secs(30);

/// One page of a registration, apart from how the node introduces itself.
pub(super) struct Page {
    pub(super) protocol: u16,
    pub(super) observed: IpAddr,
    pub(super) holdings: Vec<Holding>,
    pub(super) more: bool,
}

impl Scheduler {
    /// A node introduces itself, or goes on doing so.
    pub(super) fn register(&mut self, now: Duration, from: NodeId, mut who: Introduction, page: Page) -> Response {
        if let Err(reason) = self.check_registration(&from, &who, &page) {
            self.counters.refused += 1;
            return Response::Refused { reason };
        }
        if who.data.0.ip().is_unspecified() {
            who.data.0.set_ip(page.observed);
        }
        let knows_more = self.nodes.key(&from).is_none() && !page.holdings.is_empty();
        if knows_more && self.recover_until.is_none() && now < RESTART {
            self.recover_until = Some(now + self.config.recovery);
        }
        let node = self.nodes.enter(from, who, now);
        let every = self.report_every();
        let state = &mut self.nodes[node];
        state.every = every;
        let mut paging = state.paging.take().unwrap_or_else(|| Paging {
            named: BTreeSet::new(),
            reading: BTreeSet::new(),
        });
        for holding in page.holdings {
            let reads = holding.reading.is_some();
            if let Some(swarm) = self.note_holding(now, node, holding) {
                paging.named.insert(swarm);
                if reads {
                    paging.reading.insert(swarm);
                }
            }
        }
        if page.more {
            self.nodes[node].paging = Some(paging);
        } else {
            self.registered(node, &paging);
        }
        self.arm_node(node);
        Response::Registered {
            report_every: u32::try_from(every.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn check_registration(&self, from: &NodeId, who: &Introduction, page: &Page) -> Result<(), String> {
        let Locality { host, rack, zone } = &who.locality;
        if page.protocol != wire::PROTOCOL {
            let (theirs, ours) = (page.protocol, wire::PROTOCOL);
            return Err(format!(
                "this node speaks protocol {theirs}, the scheduler {ours}: upgrade the older one"
            ));
        }
        if who.role == Role::Scheduler {
            return Err("a scheduler holds no blobs and need not register".into());
        }
        if [host, rack, zone]
            .into_iter()
            .flatten()
            .any(|label| label.len() > MAX_LABEL)
        {
            return Err(format!(
                "a locality label has at most {MAX_LABEL} bytes: shorten host, rack or zone"
            ));
        }
        if page.holdings.len() > MAX_ENTRIES {
            return Err(format!("a registration names at most {MAX_ENTRIES} holdings a page"));
        }
        let limit = self.config.limits.nodes;
        if self.nodes.key(from).is_none() && self.nodes.len() >= limit {
            return Err(format!(
                "the scheduler knows {limit} nodes already: raise its limit of nodes"
            ));
        }
        Ok(())
    }

    /// The last page has come: what was not named is not held any more.
    fn registered(&mut self, node: NodeKey, paging: &Paging) {
        let state = &self.nodes[node];
        let lapsed: Vec<SwarmKey> = state.leases.difference(&paging.reading).copied().collect();
        let gone: Vec<SwarmKey> = state.swarms.difference(&paging.named).copied().collect();
        let is_seed = state.role == Role::Seed;
        lapsed.into_iter().for_each(|swarm| self.end_lease(swarm, Ended::Lost));
        gone.into_iter().for_each(|swarm| self.leave(swarm, node));
        if is_seed {
            self.dirty.extend(&self.deferred);
        }
    }

    /// The interval between reports at which all nodes together send no more than they should.
    fn report_every(&self) -> Duration {
        let load = self.nodes.len() / self.config.reports_per_second.max(1) as usize;
        self.config.report_every * (1 + u32::try_from(load).unwrap_or(u32::MAX - 1))
    }

    /// Takes what a node says it holds. Returns the swarm it is in by that.
    pub(super) fn note_holding(&mut self, now: Duration, node: NodeKey, holding: Holding) -> Option<SwarmKey> {
        let Holding {
            blob,
            pieces,
            wants,
            media_type,
            reading,
        } = holding;
        let count = blob.geometry().count();
        let trusted = !self.conduct.is_banned(now, &self.nodes[node].id, &blob.digest);
        let whole = trusted && !wants && pieces >= count;
        let pieces = if trusted { pieces.min(count) } else { 0 };
        let takes_part = pieces > 0 || whole || wants || reading.is_some();
        let known = self.swarms.key(&blob.digest);
        let agrees = known.is_none_or(|swarm| self.swarms[swarm].agrees(&blob));
        if !takes_part || !(agrees || reading.is_some()) {
            if let Some(swarm) = known {
                self.leave(swarm, node);
            }
            return None;
        }
        let swarm = self.enter_swarm(now, blob.digest)?;
        if !self.set_member(now, swarm, node, pieces, whole) {
            return None;
        }
        let reads = reading.is_some();
        if let Some(reading) = reading {
            self.note_reading(now, swarm, node, reading);
        }
        // A reader knows the size from the registry itself, whatever others have said.
        let held = self.swarms[swarm].is_held_by(node);
        if !agrees && !held {
            self.leave(swarm, node);
            return None;
        }
        if pieces > 0 || whole || (held && reads) {
            self.learn_size(swarm, blob, media_type);
        }
        if let Some(lease) = self.swarms[swarm].lease.filter(|lease| lease.holder == node) {
            if whole {
                self.end_lease(swarm, Ended::Done);
            } else if !reads && lease.opened {
                self.end_lease(swarm, Ended::Lost);
            }
        }
        if wants {
            self.begin_wait(now, swarm, node);
        } else {
            self.end_wait(swarm, node);
        }
        Some(swarm)
    }

    /// The swarm of a blob, made if it is new and there is room.
    pub(super) fn enter_swarm(&mut self, now: Duration, digest: piece::Digest) -> Option<SwarmKey> {
        let known = self.swarms.key(&digest);
        if known.is_none() && self.swarms.len() >= self.config.limits.swarms {
            self.counters.dropped += 1;
            return None;
        }
        let swarm = known.unwrap_or_else(|| self.swarms.enter(digest, now));
        // A new one must be looked at, for it goes again if nobody joins it.
        self.dirty.extend(known.is_none().then_some(swarm));
        Some(swarm)
    }

    /// Sets what a node holds of a blob. False if there is no room for another member.
    pub(super) fn set_member(
        &mut self,
        now: Duration,
        swarm: SwarmKey,
        node: NodeKey,
        pieces: u32,
        whole: bool,
    ) -> bool {
        let state = &mut self.swarms[swarm];
        if state.members.get(node).is_none() && self.memberships >= self.config.limits.memberships {
            self.counters.dropped += 1;
            return false;
        }
        let whole_before = state.members.whole();
        let (new, gained) = state.members.set(node, pieces, whole);
        if new {
            self.memberships += 1;
            self.nodes[node].swarms.insert(swarm);
        }
        if gained {
            state.moved = now;
            if let Some(wait) = state.members.wait_mut(node) {
                wait.moved = now;
            }
        }
        if whole_before != state.members.whole() {
            self.dirty.insert(swarm);
        }
        true
    }

    /// Somebody who has seen the blob's bytes says how long it is.
    fn learn_size(&mut self, swarm: SwarmKey, blob: Blob, media_type: Option<String>) {
        let state = &mut self.swarms[swarm];
        let media_type = media_type.filter(|name| name.len() <= MAX_MEDIA_TYPE);
        let named = state.media_type.is_none() && media_type.is_some();
        if state.size == Some(blob.size) && !named {
            return;
        }
        state.size = Some(blob.size);
        if named {
            state.media_type = media_type;
        }
        for node in state.members.waiting.iter() {
            let told = self.news.tell(self.nodes[node].id, state.digest);
            (told.size, told.media_type) = (state.size, state.media_type.clone());
        }
    }

    /// A member waits.
    pub(super) fn begin_wait(&mut self, now: Duration, swarm: SwarmKey, node: NodeKey) {
        let state = &mut self.swarms[swarm];
        if state.members.waiting.is_empty() {
            state.moved = now;
        }
        if state.members.wait(node).is_none() {
            state.members.begin_wait(node, now);
            self.nodes[node].wanted.insert(swarm);
            self.dirty.insert(swarm);
        }
    }

    /// A member waits no longer.
    pub(super) fn end_wait(&mut self, swarm: SwarmKey, node: NodeKey) {
        let state = &mut self.swarms[swarm];
        let Some(wait) = state.members.end_wait(node) else {
            return;
        };
        state.sources.give_up_all(wait.sources);
        self.nodes[node].wanted.remove(&swarm);
        self.dirty.insert(swarm);
        let member = state.members.get(node).copied().unwrap_or_default();
        if !member.whole {
            // It will pass nothing on, so the sources that fed it feed another.
            let fed: Vec<NodeKey> = wait
                .named
                .into_iter()
                .filter(|other| state.members.get(*other).is_some())
                .collect();
            for source in fed {
                if self.feeds(swarm, source) {
                    self.feed(swarm, source);
                }
            }
        }
    }

    /// A node no longer takes part in a swarm.
    pub(super) fn leave(&mut self, swarm: SwarmKey, node: NodeKey) {
        if self.swarms[swarm].members.get(node).is_none() {
            return;
        }
        if self.swarms[swarm].is_held_by(node) {
            self.end_lease(swarm, Ended::Lost);
        }
        self.end_wait(swarm, node);
        let state = &mut self.swarms[swarm];
        state.members.remove(node);
        for source in state.sources.iter_mut() {
            source.asking.remove(&node);
        }
        self.memberships -= 1;
        self.nodes[node].swarms.remove(&swarm);
        self.dirty.insert(swarm);
    }

    /// A node complains of another.
    pub(super) fn hear(&mut self, now: Duration, accuser: NodeKey, accusation: Accusation) {
        let Accusation {
            node: accused,
            digest,
            offence,
        } = accusation;
        let state = &mut self.nodes[accuser];
        let id = state.id;
        if accused == id {
            if let (Offence::ForgedMidstates, Some(swarm)) = (offence, self.swarms.key(&digest)) {
                self.take_back(swarm, accuser);
            }
            return;
        }
        if state.accused.len() >= MAX_ACCUSED && !state.accused.contains(&accused) {
            return;
        }
        let Some(key) = self.nodes.key(&accused) else { return };
        self.nodes[accuser].accused.insert(accused);
        match offence {
            Offence::WrongBytes => self.counters.wrong_bytes += 1,
            Offence::ForgedMidstates => self.counters.forged_midstates += 1,
        }
        if offence == Offence::ForgedMidstates
            && let Some(swarm) = self.swarms.key(&digest)
        {
            // No reader goes on from a midstate that anybody doubts: reading a little twice is cheaper than a false chain.
            let published = &mut self.swarms[swarm].published;
            *published = published.take().filter(|(_, voucher)| *voucher != accused);
        }
        let banned = match self.conduct.accuse(now, id, accused, digest, offence) {
            Verdict::Noted => Vec::new(),
            Verdict::BannedFromBlob => self.swarms.key(&digest).into_iter().collect(),
            Verdict::Banned => self.nodes[key].swarms.iter().copied().collect(),
        };
        for swarm in banned {
            if offence == Offence::ForgedMidstates && self.swarms[swarm].readers.contains(&accused) {
                self.retract(swarm, None);
            }
            self.distrust(now, swarm, key);
        }
    }

    /// A reader says that what it has read and signed is not the blob.
    fn take_back(&mut self, swarm: SwarmKey, reader: NodeKey) {
        if self.swarms[swarm].is_held_by(reader) {
            self.counters.forged_midstates += 1;
            self.retract(swarm, Some(self.nodes[reader].id));
        }
    }

    /// Tells everybody in a swarm to begin again: otherwise the next reader would be fed what the last one was wrong about.
    /// Where somebody has the whole blob, the truth spreads by itself.
    fn retract(&mut self, swarm: SwarmKey, by: Option<NodeId>) {
        let state = &mut self.swarms[swarm];
        if state.members.whole() > 0 {
            return;
        }
        state.published = None;
        let retraction = Retraction { epoch: state.epoch, by };
        state.retracted = Some(retraction);
        for node in state.members.nodes() {
            self.news.tell(self.nodes[node].id, state.digest).retracted = Some(retraction);
        }
    }

    /// What a node holds of a blob counts for nothing any more.
    fn distrust(&mut self, now: Duration, swarm: SwarmKey, node: NodeKey) {
        let state = &mut self.swarms[swarm];
        if state.members.get(node).is_none() {
            return;
        }
        let id = self.nodes[node].id;
        state.published = state.published.take().filter(|(_, voucher)| *voucher != id);
        state.readers.retain(|reader| *reader != id);
        if state.is_held_by(node) {
            self.end_lease(swarm, Ended::Lost);
        }
        if self.swarms[swarm].members.wait(node).is_some() {
            self.set_member(now, swarm, node, 0, false);
        } else {
            self.leave(swarm, node);
        }
        self.dirty.insert(swarm);
    }

    /// A node's connection is gone. What it reads and waits for is free at once; what it holds is remembered for a while,
    /// for it may only have lost us.
    pub(super) fn disconnected(&mut self, now: Duration, id: &NodeId) {
        let Some(node) = self.nodes.key(id) else { return };
        if !self.nodes[node].connected {
            return;
        }
        self.nodes.lose(node, now);
        let state = &self.nodes[node];
        let (leases, wanted) = (state.leases.clone(), state.wanted.clone());
        leases.into_iter().for_each(|swarm| self.end_lease(swarm, Ended::Lost));
        for swarm in wanted {
            self.end_wait(swarm, node);
            let state = &mut self.swarms[swarm];
            state.sources.iter_mut().for_each(|source| {
                source.asking.remove(&node);
            });
            if state.members.get(node).is_some_and(|member| member.pieces == 0) {
                self.leave(swarm, node);
            }
        }
        self.arm_node(node);
    }

    /// A node's timer has fired: forgets it if it has been silent or away for too long.
    pub(super) fn check_node(&mut self, now: Duration, id: &NodeId) {
        let Some(node) = self.nodes.key(id) else { return };
        self.nodes[node].armed = None;
        if now < self.forget_at(node) {
            self.arm_node(node);
            return;
        }
        self.forget(node);
    }

    /// A node takes part in nothing any more.
    pub(super) fn forget(&mut self, node: NodeKey) {
        let swarms = self.nodes[node].swarms.clone();
        swarms.into_iter().for_each(|swarm| self.leave(swarm, node));
        self.nodes.remove(node);
    }

    fn forget_at(&self, node: NodeKey) -> Duration {
        let state = &self.nodes[node];
        state.heard + state.every * if state.connected { SILENCE } else { GRACE }
    }

    pub(super) fn arm_node(&mut self, node: NodeKey) {
        let at = self.forget_at(node);
        let state = &mut self.nodes[node];
        self.timers.arm(&mut state.armed, at, Timer::Node(state.id));
    }
}
