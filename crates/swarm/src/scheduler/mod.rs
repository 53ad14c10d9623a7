//! Everything a scheduler decides: who is told of whom, who reads a blob from its registry, and whom to believe.
//!
//! [`Scheduler::handle`] takes one [`Input`] and appends [`Output`]s; [`Scheduler::deadline`] says when [`Input::Tick`] is
//! due. What an input makes worth telling is gathered and sent once to each node that it concerns; then every swarm that was
//! touched is settled in one place: whoever waits has a reader or a holder, whoever asked about access will be answered.
//!
//! All of it is soft state. A scheduler that was restarted knows its swarms again once the nodes have registered, and adopts
//! the leases that they hold. Every table has a limit ([`Limits`]); no request costs work in proportion to the nodes or blobs
//! known, except to tell those who wait for one blob what is new about it.

mod access;
mod choice;
mod conduct;
mod config;
mod event;
mod expulsion;
mod introduce;
mod lease;
mod members;
mod membership;
mod news;
mod nodes;
mod preheat;
mod requests;
mod slots;
mod status;
mod swarm;
mod timers;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use piece::{Digest, NodeId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wire::control::Source;

pub use config::{Config, Limits};
pub use event::{AskId, Input, Output, RequestId};
pub use expulsion::{ExpelError, MAX_REASON};
pub use status::{Counters, NodeView, ReaderView, Status, SwarmView};

use access::AccessCache;
use conduct::Conduct;
use expulsion::Expulsion;
use news::News;
use nodes::Nodes;
use preheat::Preheats;
use slots::SwarmKey;
use swarm::Swarms;
use timers::{Timer, Timers};
use upstream::Relay;

/// Epochs grow by this much per second by themselves: whoever grants later grants higher, be it another scheduler or the same
/// one in its next life, as long as they grant less than [`EPOCHS_PER_SECOND`] / [`EPOCH_STEP`] leases per second.
const EPOCHS_PER_SECOND: u64 = 1 << 20;
/// Epochs of one scheduler lie so far apart, and differ from those of most others in the remainder.
const EPOCH_STEP: u64 = 1 << 8;

/// The state machine of one scheduler.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    rng: ChaCha8Rng,
    nodes: Nodes,
    swarms: Swarms,
    /// Members of all swarms.
    memberships: usize,
    conduct: Conduct,
    expulsion: Expulsion,
    access: AccessCache,
    relay: Relay,
    preheats: Preheats,
    timers: Timers,
    /// The epoch with which this scheduler's clock began.
    first_epoch: u64,
    /// The highest epoch granted or heard of.
    last_epoch: u64,
    /// Until when nodes may still tell what they read for the scheduler before this one.
    recover_until: Option<Duration>,
    /// Swarms that this input has touched.
    dirty: BTreeSet<SwarmKey>,
    /// Swarms in which somebody waits and no lease could be granted yet.
    deferred: BTreeSet<SwarmKey>,
    news: News,
    /// Questions to seeds that this input has raised.
    asks: Vec<Output>,
    counters: Counters,
}

/// What is left to say to whoever asked, once all is settled.
enum Owed {
    Nothing,
    Joined {
        id: RequestId,
        from: NodeId,
        digest: Digest,
        source: Source,
    },
    Reported {
        id: RequestId,
        from: NodeId,
    },
}

impl Scheduler {
    /// A scheduler that knows nothing yet. `started` is its start in seconds since 1970, so that its epochs are higher than
    /// those that were granted before, and `seed` is another one than other schedulers'.
    pub fn new(config: Config, started: u64, seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            nodes: Nodes::new(),
            swarms: Swarms::new(),
            memberships: 0,
            conduct: Conduct::new(config.ban),
            expulsion: Expulsion::default(),
            access: AccessCache::new(config.access_ttl, config.limits.access),
            relay: Relay::default(),
            preheats: Preheats::default(),
            timers: Timers::default(),
            first_epoch: started.saturating_mul(EPOCHS_PER_SECOND) + seed % EPOCH_STEP,
            last_epoch: 0,
            recover_until: None,
            dirty: BTreeSet::new(),
            deferred: BTreeSet::new(),
            news: News::default(),
            asks: Vec::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Takes what happened at `now`, the time since this scheduler's start, and appends what is to be done.
    pub fn handle(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        self.fire_timers(now, out);
        let owed = match input {
            Input::Request {
                from,
                observed,
                id,
                request,
            } => self.request(now, (from, observed), id, request, out),
            Input::Disconnected(node) => {
                self.disconnected(now, &node);
                Owed::Nothing
            }
            Input::UpstreamAnswered { id, answer } => {
                self.upstream_answered(now, id, answer, out);
                Owed::Nothing
            }
            // A node counts from its registration on.
            Input::Connected(_) | Input::Tick => Owed::Nothing,
        };
        self.settle(now);
        self.pay(now, owed, out);
        self.tell(out);
    }

    /// Has an operator expel a node; see [`ExpelError`].
    ///
    /// # Errors
    /// If the list or the reason would be too long.
    pub fn expel(
        &mut self,
        now: Duration,
        node: NodeId,
        reason: String,
        out: &mut Vec<Output>,
    ) -> Result<bool, ExpelError> {
        let is_new = self.put_out(node, reason, out)?;
        self.settle(now);
        self.tell(out);
        Ok(is_new)
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    fn settle(&mut self, now: Duration) {
        while let Some(swarm) = self.dirty.pop_first() {
            self.settle_swarm(now, swarm);
        }
    }

    fn fire_timers(&mut self, now: Duration, out: &mut Vec<Output>) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Node(id) => self.check_node(now, &id),
                Timer::Swarm(digest) => {
                    if let Some(swarm) = self.swarms.key(&digest) {
                        self.swarms[swarm].armed = None;
                        self.dirty.insert(swarm);
                    }
                }
                Timer::Upstream(id) => self.upstream_expired(now, id, out),
                Timer::Preheat => self.continue_preheats(now, out),
            }
        }
    }

    /// Sends what this input has made worth telling, to those who can be told.
    fn tell(&mut self, out: &mut Vec<Output>) {
        out.append(&mut self.asks);
        for (to, digest, swarm) in self.news.drain() {
            let connected = self.nodes.key(&to).is_some_and(|node| self.nodes[node].connected);
            if connected && swarm != wire::control::Swarm::default() {
                out.push(Output::Update { to, digest, swarm });
            }
        }
    }
}
