//! The connections that are kept up: to the schedulers, and to the nodes through which one joins where no scheduler is.
//!
//! A state machine without sockets: it says which name to dial when, and is told what came of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use piece::NodeId;

/// The wait before the first attempt to dial again. A scheduler that restarts is back within a few of these.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait: ten thousand nodes then make two thousand attempts per second on a scheduler that comes back.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a connection must have lasted for the waits to start anew: one that is accepted and closed at once is a refusal.
const STABLE: Duration = Duration::from_secs(5);
/// How long a node that has just started, or lost its last scheduler, waits for those configured that have not answered yet
/// before it divides the blobs over those that have.
const GRACE: Duration = Duration::from_secs(1);
/// How long a scheduler that comes back must have been up before blobs belong to it again: by then every node has dialled it,
/// and has told it what it holds.
const BACK: Duration = Duration::from_secs(6);

/// What a name that is dialled stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its connection is kept.
    Scheduler,
    /// Its connection may go once others are there.
    Bootstrap,
}

/// The schedulers that a node knows to be alive, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedulers {
    /// Those that are connected, in the order of configuration.
    pub connected: Vec<NodeId>,
    /// Those of them over which blobs are divided: all that answered when this node started, and those that have come (back)
    /// since for long enough that every other node has met them too.
    pub settled: Vec<NodeId>,
}

#[derive(Debug)]
enum State {
    /// To be dialled at this time.
    Waiting(Instant),
    Dialling,
    Up {
        node: NodeId,
        since: Instant,
    },
}

#[derive(Debug)]
struct Link {
    name: String,
    kind: Kind,
    state: State,
    failures: u32,
    /// Whether blobs belong to this scheduler.
    settled: bool,
}

/// All links; named by their index.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    /// Since when no scheduler is settled.
    without: Instant,
    /// Spreads the attempts of many nodes: each has its own seed.
    seed: u64,
}

impl Links {
    /// Links to the given names, all due at once.
    pub(crate) fn new(schedulers: &[String], bootstrap: &[String], node: NodeId, now: Instant) -> Self {
        let link = |kind| {
            move |name: &String| Link {
                name: name.clone(),
                kind,
                state: State::Waiting(now),
                failures: 0,
                settled: false,
            }
        };
        let links = schedulers
            .iter()
            .map(link(Kind::Scheduler))
            .chain(bootstrap.iter().map(link(Kind::Bootstrap)))
            .collect();
        let (seed, _) = node
            .as_bytes()
            .split_first_chunk::<8>()
            .expect("a node id has 32 bytes");
        Self {
            links,
            without: now,
            seed: u64::from_le_bytes(*seed),
        }
    }

    /// What the link stands for.
    pub(crate) fn kind(&self, link: usize) -> Kind {
        self.links[link].kind
    }

    /// `HOST:PORT` as configured.
    pub(crate) fn name(&self, link: usize) -> &str {
        &self.links[link].name
    }

    /// The links to dial now; each is then under way until [`Self::up`] or [`Self::down`]. `alone` says that this node
    /// has no connection at all: only then it needs a bootstrap node that it has already met.
    pub(crate) fn due(&mut self, now: Instant, alone: bool) -> Vec<usize> {
        let mut due = Vec::new();
        for (index, link) in self.links.iter_mut().enumerate() {
            let wanted = link.kind == Kind::Scheduler || alone || link.failures > 0;
            if wanted && matches!(link.state, State::Waiting(until) if until <= now) {
                link.state = State::Dialling;
                due.push(index);
            }
        }
        due
    }

    /// The link is up.
    pub(crate) fn up(&mut self, link: usize, node: NodeId, now: Instant) {
        self.links[link].state = State::Up { node, since: now };
        self.settle(now);
    }

    /// The link's attempt failed, or its connection was lost. Returns after how long it is tried again.
    pub(crate) fn down(&mut self, link: usize, now: Instant) -> Duration {
        let seed = (self.seed, link, self.links[link].failures);
        let lost = &mut self.links[link];
        let stable = matches!(lost.state, State::Up { since, .. } if now.saturating_duration_since(since) >= STABLE);
        lost.failures = if stable { 0 } else { lost.failures };
        let wait = LONGEST_WAIT.min(FIRST_WAIT * 2u32.saturating_pow(lost.failures.min(16)));
        let wait = wait.mul_f64(1.0 - 0.25 * fraction(seed));
        lost.failures = match (lost.kind, stable) {
            (Kind::Bootstrap, true) => 0,
            (Kind::Bootstrap | Kind::Scheduler, _) => lost.failures.saturating_add(1),
        };
        lost.state = State::Waiting(now + wait);
        self.settle(now);
        wait
    }

    /// How often in a row the link has failed.
    pub(crate) fn failures(&self, link: usize) -> u32 {
        self.links[link].failures
    }

    /// The schedulers, in the order of configuration, as of the last [`Self::settle`].
    pub(crate) fn schedulers(&self) -> Schedulers {
        let mut schedulers = Schedulers::default();
        for link in &self.links {
            // Two names may stand for one scheduler.
            let Some((node, _)) = link.scheduler_up() else { continue };
            if !schedulers.connected.contains(&node) {
                schedulers.connected.push(node);
            }
            if link.settled && !schedulers.settled.contains(&node) {
                schedulers.settled.push(node);
            }
        }
        schedulers
    }

    /// Decides to which schedulers blobs belong. To be called now and then, besides when something changes.
    pub(crate) fn settle(&mut self, now: Instant) {
        let before = self.links.iter().any(|link| link.settled);
        for link in &mut self.links {
            link.settled &= link.scheduler_up().is_some();
        }
        let any = self.links.iter().any(|link| link.settled);
        if before && !any {
            self.without = now;
        }
        let patient = now.saturating_duration_since(self.without) < GRACE;
        let untried = |link: &Link| link.kind == Kind::Scheduler && link.failures == 0 && link.scheduler_up().is_none();
        if !any && patient && self.links.iter().any(untried) {
            return;
        }
        for link in &mut self.links {
            let is_back = |(_, since)| now.saturating_duration_since(since) >= BACK;
            link.settled |= link.scheduler_up().is_some_and(|up| !any || is_back(up));
        }
    }
}

impl Link {
    /// The scheduler at the other end, if there is one, and since when.
    fn scheduler_up(&self) -> Option<(NodeId, Instant)> {
        match (self.kind, &self.state) {
            (Kind::Scheduler, State::Up { node, since }) => Some((*node, *since)),
            (Kind::Scheduler | Kind::Bootstrap, _) => None,
        }
    }
}

/// Some number in 0..1, the same for the same seed.
fn fraction(seed: impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() >> 48).expect("16 bits")) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn links(schedulers: &[&str], bootstrap: &[&str], now: Instant) -> Links {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Links::new(&owned(schedulers), &owned(bootstrap), node(9), now)
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_starts_anew_after_a_stable_connection() {
        let mut now = Instant::now();
        let mut links = links(&["a:1"], &[], now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert_eq!(links.due(now, false), [0]);
            assert!(links.due(now, false).is_empty(), "it is under way");
            let wait = links.down(0, now);
            assert!(links.due(now + wait / 2, false).is_empty());
            now += wait;
            waits.push(wait);
        }
        assert!(waits[0] <= FIRST_WAIT && waits[0] >= FIRST_WAIT * 3 / 4, "{waits:?}");
        assert!(
            waits[9] <= LONGEST_WAIT && waits[9] >= LONGEST_WAIT * 3 / 4,
            "{waits:?}"
        );
        links.due(now, false);
        links.up(0, node(1), now);
        assert!(
            links.down(0, now + Duration::from_millis(1)) > FIRST_WAIT,
            "closed at once: a refusal"
        );
        links.up(0, node(1), now);
        assert!(links.down(0, now + STABLE) <= FIRST_WAIT);
    }

    fn settled(links: &Links) -> Vec<NodeId> {
        links.schedulers().settled
    }

    #[test]
    fn all_schedulers_that_answer_at_first_settle_together() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &["c:1"], now);
        assert_eq!(links.due(now, true), [0, 1, 2]);
        links.up(2, node(3), now);
        assert_eq!(
            links.schedulers(),
            Schedulers::default(),
            "a bootstrap node is no scheduler"
        );
        links.up(1, node(2), now);
        assert_eq!(settled(&links), [], "the other one may still answer");
        assert_eq!(links.schedulers().connected, [node(2)]);
        links.up(0, node(1), now);
        assert_eq!(settled(&links), [node(1), node(2)]);
        links.down(0, now);
        assert_eq!(settled(&links), [node(2)], "it has failed");
        links.down(1, now);
        assert_eq!(links.schedulers(), Schedulers::default());
    }

    #[test]
    fn a_scheduler_that_says_nothing_is_not_waited_for_long() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &[], now);
        links.due(now, true);
        links.up(1, node(2), now);
        links.settle(now + GRACE / 2);
        assert_eq!(settled(&links), []);
        links.settle(now + GRACE);
        assert_eq!(settled(&links), [node(2)]);
    }

    #[test]
    fn a_scheduler_that_refuses_is_not_waited_for() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &[], now);
        links.due(now, true);
        links.up(1, node(2), now);
        links.down(0, now);
        assert_eq!(settled(&links), [node(2)]);
    }

    #[test]
    fn a_scheduler_that_comes_back_settles_when_it_has_stayed() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &[], now);
        links.due(now, true);
        links.down(0, now);
        links.up(1, node(2), now);
        let back = now + STABLE;
        links.up(0, node(1), back);
        links.settle(back + BACK / 2);
        assert_eq!(settled(&links), [node(2)], "others have not dialled it yet");
        assert_eq!(links.schedulers().connected, [node(1), node(2)]);
        links.settle(back + BACK);
        assert_eq!(settled(&links), [node(1), node(2)]);
        links.down(1, back + BACK);
        links.down(0, back + BACK);
        links.up(0, node(1), back + BACK + STABLE);
        assert_eq!(settled(&links), [node(1)], "there is no other");
    }

    #[test]
    fn two_names_of_one_scheduler_are_one() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &[], now);
        links.due(now, true);
        links.up(0, node(1), now);
        links.up(1, node(1), now);
        assert_eq!(settled(&links), [node(1)]);
        assert_eq!(links.schedulers().connected, [node(1)]);
    }

    #[test]
    fn a_bootstrap_node_that_was_met_is_dialled_again_only_when_alone() {
        let now = Instant::now();
        let mut links = links(&[], &["c:1"], now);
        assert_eq!(links.due(now, true), [0]);
        let wait = links.down(0, now);
        assert_eq!(links.due(now + wait, false), [0], "never met yet");
        links.up(0, node(1), now);
        let wait = links.down(0, now + STABLE);
        assert!(links.due(now + STABLE + wait, false).is_empty());
        assert_eq!(links.due(now + STABLE + wait, true), [0]);
    }

    #[test]
    fn nodes_spread_their_attempts() {
        let now = Instant::now();
        let waits: std::collections::HashSet<Duration> = (0..20)
            .map(|n| {
                let mut links = Links::new(&["a:1".into()], &[], node(n), now);
                links.due(now, false);
                links.down(0, now)
            })
            .collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
