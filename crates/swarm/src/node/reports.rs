//! What the scheduler is told, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use piece::Digest;
use wire::control::{Accusation, Failure, MAX_ENTRIES, Source};

use super::Node;
use super::event::{Ask, HoldingNow, Output, ReadingNow, Report};

/// Complaints kept for the next report; the first are as good as any later.
const MAX_ACCUSATIONS: usize = 64;
/// An unanswered report is written off after this.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the scheduler says otherwise.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A report with nothing new in it is only a heartbeat, and goes out this much more rarely.
const HEARTBEAT_FACTOR: u32 = 3;

/// Gathers what changed between two reports.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    link: SchedulerLink,
    changed: BTreeSet<Digest>,
    gone: BTreeSet<Digest>,
    failed: Vec<(Digest, u64, Failure)>,
    accusations: Vec<Accusation>,
    lonely: BTreeSet<Digest>,
    hurry: bool,
}

/// Whether a scheduler listens.
#[derive(Debug, Default, PartialEq)]
enum SchedulerLink {
    /// None ever did.
    #[default]
    Never,
    /// None does, since then.
    Down { since: Duration },
    /// One does, but has not answered our registration.
    Up,
    /// One knows us.
    Registered {
        every: Duration,
        next: Duration,
        outstanding: Option<Duration>,
    },
}

impl Reporter {
    pub(super) fn is_registered(&self) -> bool {
        matches!(self.link, SchedulerLink::Registered { .. })
    }

    pub(super) fn scheduler_down(&mut self, now: Duration) {
        if !matches!(self.link, SchedulerLink::Down { .. }) {
            self.link = SchedulerLink::Down { since: now };
        }
    }

    /// How long nobody has scheduled for this node; `None` while somebody does.
    pub(super) fn alone_for(&self, now: Duration) -> Option<Duration> {
        match self.link {
            SchedulerLink::Registered { .. } => None,
            // The machine's time begins with the node.
            SchedulerLink::Never | SchedulerLink::Up => Some(now),
            SchedulerLink::Down { since } => Some(now.saturating_sub(since)),
        }
    }

    pub(super) fn changed(&mut self, digest: Digest) {
        self.gone.remove(&digest);
        self.changed.insert(digest);
    }

    pub(super) fn gone(&mut self, digest: Digest) {
        self.changed.remove(&digest);
        self.gone.insert(digest);
    }

    pub(super) fn gave_back(&mut self, digest: Digest, epoch: u64, failure: Failure) {
        self.failed.push((digest, epoch, failure));
        self.hurry = true;
    }

    pub(super) fn accuse(&mut self, accusation: Accusation) {
        if self.accusations.len() < MAX_ACCUSATIONS && !self.accusations.contains(&accusation) {
            self.accusations.push(accusation);
        }
    }

    pub(super) fn lonely(&mut self, digest: Digest) {
        self.lonely.insert(digest);
    }

    /// What is known now cannot wait for the next regular report.
    pub(super) fn hurry(&mut self) {
        self.hurry = true;
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.link {
            SchedulerLink::Registered {
                outstanding: Some(sent),
                ..
            } => Some(*sent + REPORT_TIMEOUT),
            SchedulerLink::Registered { next, every, .. } if self.has_news() => {
                Some(next.saturating_sub(*every * (HEARTBEAT_FACTOR - 1)))
            }
            SchedulerLink::Registered { next, .. } => Some(*next),
            SchedulerLink::Never | SchedulerLink::Down { .. } | SchedulerLink::Up => None,
        }
    }

    fn has_news(&self) -> bool {
        !(self.changed.is_empty()
            && self.gone.is_empty()
            && self.failed.is_empty()
            && self.accusations.is_empty()
            && self.lonely.is_empty())
    }

    /// Whether a report should go out now.
    fn is_due(&mut self, now: Duration) -> bool {
        let deadline = self.deadline();
        let SchedulerLink::Registered { outstanding, .. } = &mut self.link else {
            return false;
        };
        if outstanding.is_some_and(|sent| now >= sent + REPORT_TIMEOUT) {
            *outstanding = None;
        }
        outstanding.is_none() && (self.hurry || deadline.is_some_and(|due| now >= due))
    }

    fn sent(&mut self, now: Duration) {
        if let SchedulerLink::Registered {
            every,
            next,
            outstanding,
        } = &mut self.link
        {
            *next = now + *every * HEARTBEAT_FACTOR;
            *outstanding = Some(now);
        }
        self.hurry = false;
    }
}

impl Node {
    pub(super) fn scheduler_up(&mut self, _now: Duration, out: &mut Vec<Output>) {
        self.reporter.link = SchedulerLink::Up;
        let holdings = self
            .blobs
            .keys()
            .filter_map(|digest| self.holding_now(digest))
            .collect();
        out.push(Output::Ask(Ask::Register { holdings }));
    }

    pub(super) fn registered(&mut self, now: Duration, every: Duration, out: &mut Vec<Output>) {
        let every = if every.is_zero() { REPORT_EVERY } else { every };
        self.reporter.link = SchedulerLink::Registered {
            every,
            next: now + every,
            outstanding: None,
        };
        let wanted: Vec<(Digest, Source)> = self
            .hungry
            .iter()
            .filter_map(|(_, digest)| Some((*digest, self.blobs.get(digest)?.sources.first()?.clone())))
            .collect();
        for (digest, source) in wanted {
            self.join(now, digest, source, out);
        }
    }

    pub(super) fn reported(&mut self, now: Duration, known: bool, out: &mut Vec<Output>) {
        // Whoever hears it several times over registers once.
        if let SchedulerLink::Registered { outstanding, .. } = &mut self.reporter.link {
            *outstanding = None;
            if !known {
                self.scheduler_up(now, out);
            }
        }
    }

    /// Tells the scheduler that we want a blob; without one, it is told on registration.
    pub(super) fn join(&mut self, now: Duration, digest: Digest, source: Source, out: &mut Vec<Output>) {
        if !self.reporter.is_registered() {
            return;
        }
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let size = state.size;
        let Some(wanted) = &mut state.wanted else { return };
        wanted.asked = now;
        out.push(Output::Ask(Ask::Join {
            digest,
            size,
            source,
            urgent: wanted.urgent,
        }));
    }

    /// Sends the report that is due, if one is.
    pub(super) fn send_report(&mut self, now: Duration, out: &mut Vec<Output>) {
        if !self.reporter.is_due(now) {
            return;
        }
        let changed: Vec<Digest> = self.reporter.changed.iter().take(MAX_ENTRIES).copied().collect();
        let report = Report {
            holdings: changed.iter().filter_map(|digest| self.holding_now(digest)).collect(),
            gone: std::mem::take(&mut self.reporter.gone).into_iter().collect(),
            failed: std::mem::take(&mut self.reporter.failed),
            accusations: std::mem::take(&mut self.reporter.accusations),
            lonely: std::mem::take(&mut self.reporter.lonely).into_iter().collect(),
        };
        for digest in &changed {
            self.reporter.changed.remove(digest);
            if let Some(state) = self.blobs.get_mut(digest) {
                state.access = None;
            }
        }
        // A lease lives by its reports, so a blob that is being read is in every one of them.
        let reading = self.hungry.iter().map(|(_, digest)| *digest);
        self.reporter
            .changed
            .extend(reading.filter(|digest| self.blobs[digest].origin.is_some()));
        self.reporter.sent(now);
        out.push(Output::Ask(Ask::Report(report)));
    }

    /// Notes the blobs for which we wait with too few neighbours.
    pub(super) fn note_lonely(&mut self, now: Duration) {
        let every = REPORT_EVERY * 2;
        for (_, digest) in &self.hungry {
            let Some(state) = self.blobs.get_mut(digest) else {
                continue;
            };
            let few = state.mates.values().filter(|mate| !mate.banned).count() < self.config.lonely_below;
            if let Some(wanted) = &mut state.wanted
                && few
                && now.saturating_sub(wanted.asked) >= every
            {
                wanted.asked = now;
                self.reporter.lonely.insert(*digest);
            }
        }
    }

    pub(super) fn holding_now(&self, digest: &Digest) -> Option<HoldingNow> {
        let state = self.blobs.get(digest)?;
        let blob = state.blob(*digest)?;
        // A blob that was read whole between two reports still says once who may read it.
        let (epoch, source, access) = match &state.origin {
            Some(origin) => (origin.lease.epoch, Some(&origin.lease.source), origin.access),
            None => (
                state.last_epoch,
                state.access.as_ref().map(|(source, _)| source),
                state.access.as_ref().map(|(_, a)| *a),
            ),
        };
        let reading = source.zip(access).filter(|_| epoch > 0).map(|(source, access)| {
            // The last boundary is the digest itself and has no midstate.
            let boundary = state.published().min(blob.geometry().count().saturating_sub(1));
            ReadingNow {
                epoch,
                boundary,
                source: source.clone(),
                access,
            }
        });
        Some(HoldingNow {
            blob,
            pieces: state.pieces.as_ref().map_or(0, |pieces| pieces.have.count()),
            wants: state.is_hungry(),
            media_type: state.media_type.clone(),
            reading,
        })
    }
}
