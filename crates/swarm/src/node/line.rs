//! What one scheduler is to be told, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use piece::Digest;
use wire::control::{Accusation, Failure, MAX_ENTRIES};

use super::ask::Report;

/// Complaints kept for the next report; the first are as good as any later.
pub(super) const MAX_ACCUSATIONS: usize = 64;
/// An unanswered report is written off after this.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// A report with nothing new in it is only a heartbeat, and goes out this much more rarely.
const HEARTBEAT_FACTOR: u32 = 3;
/// A scheduler that has not taken a registration for this long is passed over.
const REGISTRATION: Duration = Duration::from_secs(5);

/// The way to one connected scheduler.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) standing: Standing,
    pub(super) settled: bool,
    pub(super) changed: BTreeSet<Digest>,
    pub(super) gone: BTreeSet<Digest>,
    pub(super) failed: Vec<(Digest, u64, Failure)>,
    pub(super) accusations: Vec<Accusation>,
    pub(super) lonely: BTreeSet<Digest>,
    pub(super) hurry: bool,
}

/// Whether a scheduler knows this node.
#[derive(Debug, PartialEq)]
pub(super) enum Standing {
    /// It has not answered our registration.
    Asked { since: Duration },
    /// It knows us.
    Registered {
        every: Duration,
        next: Duration,
        outstanding: Option<Duration>,
    },
}

impl Line {
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            standing: Standing::Asked { since: now },
            settled: false,
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            failed: Vec::new(),
            accusations: Vec::new(),
            lonely: BTreeSet::new(),
            hurry: false,
        }
    }

    pub(super) const fn is_registered(&self) -> bool {
        matches!(self.standing, Standing::Registered { .. })
    }

    /// When a registration without an answer counts for nothing.
    pub(super) fn overdue_at(&self) -> Option<Duration> {
        match self.standing {
            Standing::Asked { since } => Some(since + REGISTRATION),
            Standing::Registered { .. } => None,
        }
    }

    pub(super) fn changed(&mut self, digest: Digest) {
        self.gone.remove(&digest);
        self.changed.insert(digest);
    }

    pub(super) fn gone(&mut self, digest: Digest) {
        self.changed.remove(&digest);
        self.lonely.remove(&digest);
        self.gone.insert(digest);
    }

    pub(super) fn accuse(&mut self, accusation: Accusation) {
        if self.accusations.len() < MAX_ACCUSATIONS && !self.accusations.contains(&accusation) {
            self.accusations.push(accusation);
        }
    }

    fn has_news(&self) -> bool {
        !(self.changed.is_empty()
            && self.gone.is_empty()
            && self.failed.is_empty()
            && self.accusations.is_empty()
            && self.lonely.is_empty())
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.standing {
            Standing::Registered {
                outstanding: Some(sent),
                ..
            } => Some(*sent + REPORT_TIMEOUT),
            Standing::Registered { next, every, .. } if self.has_news() => {
                Some(next.saturating_sub(*every * (HEARTBEAT_FACTOR - 1)))
            }
            Standing::Registered { next, .. } => Some(*next),
            Standing::Asked { .. } => None,
        }
    }

    /// Whether a report should go out now.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let deadline = self.deadline();
        let Standing::Registered { outstanding, .. } = &mut self.standing else {
            return false;
        };
        if outstanding.is_some_and(|sent| now >= sent + REPORT_TIMEOUT) {
            *outstanding = None;
        }
        outstanding.is_none() && (self.hurry || deadline.is_some_and(|due| now >= due))
    }

    pub(super) fn sent(&mut self, now: Duration) {
        if let Standing::Registered {
            every,
            next,
            outstanding,
        } = &mut self.standing
        {
            *next = now + *every * HEARTBEAT_FACTOR;
            *outstanding = Some(now);
        }
        self.hurry = false;
    }

    /// What there is to say. Changed holdings are for the caller to look up.
    pub(super) fn take(&mut self) -> (Vec<Digest>, Report) {
        let changed: Vec<Digest> = self.changed.iter().take(MAX_ENTRIES).copied().collect();
        for digest in &changed {
            self.changed.remove(digest);
        }
        let report = Report {
            holdings: Vec::new(),
            gone: std::mem::take(&mut self.gone).into_iter().collect(),
            failed: std::mem::take(&mut self.failed),
            accusations: std::mem::take(&mut self.accusations),
            lonely: std::mem::take(&mut self.lonely).into_iter().collect(),
        };
        (changed, report)
    }
}
