//! What schedulers are told, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::{Accusation, Failure, Source};

use super::Node;
use super::ask::{Ask, HoldingNow, ReadingNow};
use super::event::Output;
use super::line::{Line, MAX_ACCUSATIONS, Standing};
use super::schedulers::View;

/// Until the scheduler says otherwise.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What the schedulers are to be told.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    lines: BTreeMap<NodeId, Line>,
    /// Those that blobs were last sorted by.
    view: View,
    /// Whether the lines have changed since; and when they will by time alone.
    stale: bool,
    stale_at: Option<Duration>,
    /// Schedulers that have leased a blob to this node and are not among those informed of it anyway.
    granters: BTreeMap<Digest, NodeId>,
    /// Complaints that no scheduler could be told.
    unheard: Vec<Accusation>,
    /// When a scheduler last scheduled for this node; the machine's time begins with the node.
    scheduled: Duration,
}

impl Reporter {
    /// Whether a scheduler schedules for this node.
    pub(super) fn is_registered(&self) -> bool {
        self.lines.values().any(|line| line.settled && line.is_registered())
    }

    /// How long nobody has scheduled for this node; `None` while somebody does.
    pub(super) fn alone_for(&self, now: Duration) -> Option<Duration> {
        (!self.is_registered()).then(|| now.saturating_sub(self.scheduled))
    }

    /// The scheduler that a blob belongs to.
    pub(super) fn home(&self, digest: &Digest) -> Option<NodeId> {
        self.view.home(digest)
    }

    /// The schedulers that are told of a blob.
    pub(super) fn informed(&self, digest: &Digest) -> impl Iterator<Item = NodeId> + use<> {
        let granter = self.granters.get(digest).copied();
        let informed: [Option<NodeId>; 3] = {
            let mut informed = self.view.informed(digest);
            std::array::from_fn(|_| informed.next())
        };
        let granter = granter.filter(|granter| !informed.contains(&Some(*granter)));
        informed.into_iter().chain([granter]).flatten()
    }

    pub(super) fn connected(&mut self, now: Duration, scheduler: NodeId) {
        let line = self.lines.entry(scheduler).or_insert_with(|| Line::new(now));
        for accusation in std::mem::take(&mut self.unheard) {
            line.accuse(accusation);
        }
        self.stale = true;
    }

    pub(super) fn disconnected(&mut self, scheduler: &NodeId) {
        let Some(line) = self.lines.remove(scheduler) else {
            return;
        };
        line.accusations
            .into_iter()
            .for_each(|accusation| self.accuse(accusation));
        self.granters.retain(|_, granter| granter != scheduler);
        self.stale = true;
    }

    pub(super) fn settled(&mut self, scheduler: &NodeId) {
        if let Some(line) = self.lines.get_mut(scheduler) {
            line.settled = true;
            self.stale = true;
        }
    }

    /// A registration is on its way that says all there is to say.
    pub(super) fn begin_registration(&mut self, now: Duration, scheduler: &NodeId) {
        if let Some(line) = self.lines.get_mut(scheduler) {
            line.standing = Standing::Asked { since: now };
            line.changed.clear();
            line.gone.clear();
            self.stale = true;
        }
    }

    pub(super) fn registered(&mut self, now: Duration, scheduler: &NodeId, every: Duration) {
        let every = if every.is_zero() { REPORT_EVERY } else { every };
        if let Some(line) = self.lines.get_mut(scheduler) {
            line.standing = Standing::Registered {
                every,
                next: now + every,
                outstanding: None,
            };
            self.stale = true;
        }
    }

    /// A report has been answered. False if it is of no account any more.
    pub(super) fn answered(&mut self, scheduler: &NodeId) -> bool {
        match self.lines.get_mut(scheduler).map(|line| &mut line.standing) {
            Some(Standing::Registered { outstanding, .. }) => {
                *outstanding = None;
                true
            }
            Some(Standing::Asked { .. }) | None => false,
        }
    }

    /// Brings the view up to date. Returns the one before, if it was another.
    pub(super) fn look(&mut self, now: Duration) -> Option<View> {
        if self.is_registered() {
            self.scheduled = now;
        }
        let expired = self.stale_at.is_some_and(|at| now >= at);
        if !std::mem::take(&mut self.stale) && !expired {
            return None;
        }
        let answers = |line: &Line| line.is_registered() || line.overdue_at().is_some_and(|at| now < at);
        let alive = self.lines.iter().filter(|(_, line)| answers(line));
        let view = View {
            alive: alive.clone().map(|(scheduler, _)| *scheduler).collect(),
            settled: alive
                .filter(|(_, line)| line.settled)
                .map(|(scheduler, _)| *scheduler)
                .collect(),
        };
        self.stale_at = self
            .lines
            .values()
            .filter_map(Line::overdue_at)
            .filter(|at| now < *at)
            .min();
        (view != self.view).then(|| std::mem::replace(&mut self.view, view))
    }

    /// Tells of a blob whoever is to know of it by the view of now and did not by the one before, and the other way round.
    pub(super) fn moved(&mut self, before: &View, digest: Digest) {
        let (old, new): (Vec<NodeId>, Vec<NodeId>) =
            (before.informed(&digest).collect(), self.informed(&digest).collect());
        // Only the home is told what is wanted.
        let homes = [before.home(&digest), self.home(&digest)];
        for (scheduler, line) in &mut self.lines {
            let home = homes[0] != homes[1] && homes.contains(&Some(*scheduler));
            match (old.contains(scheduler), new.contains(scheduler)) {
                (true, true) if home => line.changed(digest),
                (false, true) => line.changed(digest),
                (true, false) => line.gone(digest),
                (true, true) | (false, false) => {}
            }
            line.hurry |= home && new.contains(scheduler);
            if homes[1] != Some(*scheduler) {
                line.lonely.remove(&digest);
            }
        }
    }

    pub(super) fn changed(&mut self, digest: Digest) {
        for scheduler in self.informed(&digest) {
            if let Some(line) = self.lines.get_mut(&scheduler) {
                line.changed(digest);
            }
        }
    }

    pub(super) fn gone(&mut self, digest: Digest) {
        self.lines.values_mut().for_each(|line| line.gone(digest));
        self.granters.remove(&digest);
    }

    /// A scheduler has given this node a lease: whoever it is, it must hear of the reading.
    pub(super) fn granted(&mut self, digest: Digest, scheduler: NodeId) {
        if !self.view.informed(&digest).any(|informed| informed == scheduler) {
            self.granters.insert(digest, scheduler);
        }
    }

    pub(super) fn gave_back(&mut self, digest: Digest, epoch: u64, failure: Failure) {
        for scheduler in self.informed(&digest) {
            if let Some(line) = self.lines.get_mut(&scheduler) {
                line.failed.push((digest, epoch, failure.clone()));
                line.hurry = true;
            }
        }
    }

    /// Whom not to trust concerns every scheduler.
    pub(super) fn accuse(&mut self, accusation: Accusation) {
        for line in self.lines.values_mut() {
            line.accuse(accusation.clone());
        }
        if self.lines.is_empty() && self.unheard.len() < MAX_ACCUSATIONS && !self.unheard.contains(&accusation) {
            self.unheard.push(accusation);
        }
    }

    pub(super) fn lonely(&mut self, digest: Digest) {
        let home = self.home(&digest);
        if let Some(line) = home.and_then(|home| self.lines.get_mut(&home)) {
            line.lonely.insert(digest);
        }
    }

    /// What is known now of a blob cannot wait for the next regular report.
    pub(super) fn hurry(&mut self, digest: &Digest) {
        for scheduler in self.informed(digest) {
            if let Some(line) = self.lines.get_mut(&scheduler) {
                line.hurry = true;
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let lines = self.lines.values().filter_map(Line::deadline);
        lines.chain(self.stale_at).min()
    }

    fn due(&mut self, now: Duration) -> Vec<NodeId> {
        let lines = self.lines.iter_mut();
        lines
            .filter_map(|(scheduler, line)| line.is_due(now).then_some(*scheduler))
            .collect()
    }
}

impl Node {
    /// Tells a blob's scheduler that we want it; without one, it is told on registration.
    pub(super) fn join(&mut self, now: Duration, digest: Digest, source: Source, out: &mut Vec<Output>) {
        let home = self.reporter.home(&digest);
        let registered = |home: &NodeId| self.reporter.lines.get(home).is_some_and(Line::is_registered);
        let Some(scheduler) = home.filter(registered) else {
            return;
        };
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let size = state.size;
        let Some(wanted) = &mut state.wanted else { return };
        wanted.asked = now;
        let ask = Ask::Join {
            digest,
            size,
            source,
            urgent: wanted.urgent,
        };
        out.push(Output::Ask { scheduler, ask });
    }

    /// Sends the reports that are due.
    pub(super) fn send_reports(&mut self, now: Duration, out: &mut Vec<Output>) {
        for scheduler in self.reporter.due(now) {
            self.send_report(now, scheduler, out);
        }
    }

    fn send_report(&mut self, now: Duration, scheduler: NodeId, out: &mut Vec<Output>) {
        let Some(line) = self.reporter.lines.get_mut(&scheduler) else {
            return;
        };
        let (changed, mut report) = line.take();
        line.sent(now);
        let holdings = changed.iter().filter_map(|digest| self.holding_for(digest, &scheduler));
        report.holdings = holdings.collect();
        for digest in &changed {
            let others = self.reporter.lines.values();
            if let Some(state) = self.blobs.get_mut(digest)
                && !others.into_iter().any(|line| line.changed.contains(digest))
            {
                state.access = None;
            }
        }
        // A lease lives by its reports, so a blob that is being read is in every one of them.
        let blobs = &self.blobs;
        let reads = |digest: &Digest| blobs.get(digest).is_some_and(|state| state.origin.is_some());
        self.reporter.granters.retain(|digest, _| reads(digest));
        for (_, digest) in self.hungry.iter().filter(|(_, digest)| reads(digest)) {
            if self.reporter.informed(digest).any(|informed| informed == scheduler)
                && let Some(line) = self.reporter.lines.get_mut(&scheduler)
            {
                line.changed.insert(*digest);
            }
        }
        let ask = Ask::Report(report);
        out.push(Output::Ask { scheduler, ask });
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
                self.reporter.lonely(*digest);
            }
        }
    }

    /// What a scheduler is told of a blob: who waits for it is its home's business alone.
    pub(super) fn holding_for(&self, digest: &Digest, scheduler: &NodeId) -> Option<HoldingNow> {
        let mut holding = self.holding_now(digest)?;
        holding.wants &= self.reporter.home(digest) == Some(*scheduler);
        Some(holding)
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
