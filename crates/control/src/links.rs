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
/// How long a node that has just started, or lost its scheduler, waits for one that is configured before those that answer.
/// Nodes that ask different schedulers read the registry twice.
const GRACE: Duration = Duration::from_secs(1);
/// How long a scheduler that comes back must have been up before it is asked again instead of a later one: by then every node
/// has dialled it, and so they move at about the same time.
const BACK: Duration = Duration::from_secs(6);

/// What a name that is dialled stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its connection is kept.
    Scheduler,
    /// Its connection may go once others are there.
    Bootstrap,
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
}

/// All links; named by their index.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    current: Option<usize>,
    /// Since when none is asked.
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
            current: None,
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
        self.choose(now);
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
        self.choose(now);
        wait
    }

    /// How often in a row the link has failed.
    pub(crate) fn failures(&self, link: usize) -> u32 {
        self.links[link].failures
    }

    /// The scheduler to ask: of those that are up the first in the order of configuration, as of the last
    /// [`Self::choose`]. All nodes have the same order, and so they ask the same one.
    pub(crate) fn current(&self) -> Option<NodeId> {
        self.current.and_then(|link| self.up_scheduler(link))
    }

    /// Decides whom to ask. To be called now and then, besides when something changes.
    pub(crate) fn choose(&mut self, now: Instant) {
        let asked = self.current.filter(|link| self.up_scheduler(*link).is_some());
        if asked.is_none() && self.current.take().is_some() {
            self.without = now;
        }
        let Some(first) = (0..self.links.len()).find(|link| self.up_scheduler(*link).is_some()) else {
            return;
        };
        let is_back = match &self.links[first].state {
            State::Up { since, .. } => now.saturating_duration_since(*since) >= BACK,
            State::Waiting(_) | State::Dialling => false,
        };
        let patient = now.saturating_duration_since(self.without) < GRACE;
        let may_come = patient && self.links[..first].iter().any(|link| link.failures == 0);
        match asked {
            Some(asked) if first >= asked || !is_back => {}
            None if may_come => {}
            Some(_) | None => self.current = Some(first),
        }
    }

    fn up_scheduler(&self, link: usize) -> Option<NodeId> {
        match &self.links[link] {
            Link {
                kind: Kind::Scheduler,
                state: State::Up { node, .. },
                ..
            } => Some(*node),
            _ => None,
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

    #[test]
    fn the_first_scheduler_that_is_up_is_asked() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &["c:1"], now);
        assert_eq!(links.due(now, true), [0, 1, 2]);
        links.up(2, node(3), now);
        assert_eq!(links.current(), None, "a bootstrap node is no scheduler");
        links.up(1, node(2), now);
        assert_eq!(links.current(), None, "the first one may still answer");
        links.up(0, node(1), now);
        assert_eq!(links.current(), Some(node(1)));
        links.down(0, now);
        assert_eq!(links.current(), Some(node(2)), "it has failed");
        links.down(1, now);
        assert_eq!(links.current(), None);
    }

    #[test]
    fn a_scheduler_that_says_nothing_is_not_waited_for_long() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &[], now);
        links.due(now, true);
        links.up(1, node(2), now);
        links.choose(now + GRACE / 2);
        assert_eq!(links.current(), None);
        links.choose(now + GRACE);
        assert_eq!(links.current(), Some(node(2)));
    }

    #[test]
    fn all_move_back_to_a_scheduler_that_has_come_back_to_stay() {
        let now = Instant::now();
        let mut links = links(&["a:1", "b:1"], &[], now);
        links.due(now, true);
        links.down(0, now);
        links.up(1, node(2), now);
        assert_eq!(links.current(), Some(node(2)));
        let back = now + STABLE;
        links.up(0, node(1), back);
        links.choose(back + BACK / 2);
        assert_eq!(links.current(), Some(node(2)), "others have not dialled it yet");
        links.choose(back + BACK);
        assert_eq!(links.current(), Some(node(1)));
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
