//! What goes wrong: nodes that die and come back, and schedulers that do.

use rand::{Rng as _, RngExt as _};
use swarm::node::Input;
use swarm::scheduler::{self, Scheduler};

use crate::queue::{Event, Time};
use crate::scenario::{Churn, Outage};
use crate::scheduling::SCHEDULER;
use crate::world::{World, seconds};

/// Nodes find a scheduler within so many seconds of its start.
const FOUND: f64 = 1.0;
/// Seconds until the scheduler notices that a killed node's TCP connection is gone: its kernel closes it at once.
const CLOSED: f64 = 0.01;

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let start = seconds(self.scenario.warm_up_s);
        let faults = self.scenario.faults.clone();
        if let Some(churn) = faults.churn {
            self.plan_churn(start, &churn);
        }
        if let Some(Outage { after_s, down_s }) = faults.scheduler {
            let at = start + seconds(after_s);
            self.queue.push(at, Event::SchedulerDown);
            if let Some(down) = down_s {
                self.queue.push(at + seconds(down), Event::SchedulerUp);
            }
        }
        if let Some(after) = faults.reader_killed_s {
            self.queue.push(start + seconds(after), Event::KillReader);
        }
    }

    fn plan_churn(&mut self, start: Time, churn: &Churn) {
        for node in 0..self.hosts.len() as u32 {
            let peer = self.hosts[node as usize].group.is_some();
            if !peer || !self.rng.random_bool(churn.share) {
                continue;
            }
            let at = start + seconds(churn.from_s) + self.rng.next_u64() % seconds(churn.over_s).max(1);
            self.queue.push(at, Event::Kill { node });
            self.queue.push(at + seconds(churn.down_s), Event::Revive { node });
        }
    }

    /// The process ends at once; the disk stays.
    pub(crate) fn kill(&mut self, node: u32) {
        if !std::mem::replace(&mut self.hosts[node as usize].alive, false) {
            return;
        }
        self.go_silent(node);
        self.lose_transfers(node);
        self.close_all_origins(node);
        let input = scheduler::Input::Disconnected(self.id(node));
        self.tell_scheduler(seconds(CLOSED), input);
    }

    /// Kills whoever reads the registry, for good.
    pub(crate) fn kill_reader(&mut self) {
        let reading = (0..self.hosts.len() as u32).find(|node| !self.hosts[*node as usize].readers.is_empty());
        if let Some(node) = reading {
            self.kill(node);
        }
    }

    /// The process comes back with what its disk holds and no memory of anything else.
    pub(crate) fn revive(&mut self, node: u32) {
        if self.hosts[node as usize].alive {
            return;
        }
        let role = self.hosts[node as usize].role;
        let zone = self.locality(node).zone;
        let machine = self.machine(node, role, zone);
        let now = self.now;
        let host = &mut self.hosts[node as usize];
        host.machine = machine;
        host.alive = true;
        host.life += 1;
        host.born = now;
        host.wake = Time::MAX;
        host.verified = now;
        host.progress.whole = 0;
        for blob in 0..self.blobs.len() {
            let bits = self.hosts[node as usize].held[blob].clone();
            if !bits.is_empty() {
                let blob = self.blobs[blob];
                let media_type = None;
                self.tell(node, 0, Input::Opened { blob, bits, media_type });
            }
        }
        if self.scheduler.is_some() {
            self.meet_scheduler(node, seconds(CLOSED));
        }
        if self.hosts[node as usize].progress.wanted.is_some() {
            self.queue.push(now, Event::Want { node });
        }
    }

    /// The scheduler goes away with all that it knew.
    pub(crate) fn stop_scheduler(&mut self) {
        self.scheduler = None;
        self.scheduler_life += 1;
        self.scheduler_wake = Time::MAX;
        self.requests = Default::default();
        for node in 0..self.hosts.len() as u32 {
            self.tell(node, seconds(CLOSED), Input::SchedulerDown { scheduler: SCHEDULER });
        }
    }

    /// A scheduler that knows nothing is there, and the nodes find it one by one.
    pub(crate) fn start_scheduler(&mut self) {
        self.scheduler_life += 1;
        self.scheduler_born = self.now;
        let started = u64::from(self.scheduler_life) << 20;
        let seed = self.rng.next_u64();
        self.scheduler = Some(Scheduler::new(self.scenario.scheduler_config(), started, seed));
        for node in 0..self.hosts.len() as u32 {
            let after = self.rng.next_u64() % seconds(FOUND);
            self.meet_scheduler(node, after);
        }
    }
}
