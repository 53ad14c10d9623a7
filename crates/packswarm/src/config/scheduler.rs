//! The options of a scheduler.

use serde::{Deserialize, Serialize};
use wire::control::Role;

use super::error::positive;
use super::section::SectionInfo;
use super::sections::{Control, Http, Log, Memory, Process, Scheduling};
use super::{ConfigError, RoleFile};

/// The options of a scheduler.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SchedulerFile {
    #[serde(flatten)]
    process: Process,
    swarm: Scheduling,
    limits: Memory,
    control: Control,
    http: Http,
    log: Log,
}

/// What a scheduler's options mean to the parts that run.
#[derive(Debug)]
pub(crate) struct SchedulerSettings {
    /// The process around it.
    pub(crate) process: Process,
    /// Its log.
    pub(crate) log: Log,
    /// The scheduler itself.
    pub(crate) config: scheduler::Config,
}

impl RoleFile for SchedulerFile {
    const ROLE: &'static str = Role::Scheduler.name();
    const SECTIONS: &'static [SectionInfo] = &[
        Process::INFO,
        Scheduling::INFO.named("swarm"),
        Memory::INFO.named("limits"),
        Control::INFO.named("control"),
        Http::INFO.named("http"),
        Log::INFO.named("log"),
    ];
    type Settings = SchedulerSettings;

    fn defaults() -> Self {
        let process = Process::default();
        let config = scheduler::Config::new(control::Config::new(process.listen));
        Self {
            process,
            swarm: Scheduling::of(&config.rules),
            limits: Memory::of(&config.rules.limits),
            control: Control::of(&config.control),
            http: Http::of(&config.http),
            log: Log::default(),
        }
    }

    fn settings(self) -> Result<SchedulerSettings, ConfigError> {
        let Self { process, log, .. } = self;
        let mut config = scheduler::Config::new(control::Config::new(process.listen));
        self.control.apply(&mut config.control);
        self.swarm.apply(&mut config.rules);
        self.limits.apply(&mut config.rules.limits);
        self.http.apply(&mut config.http);
        config.control.external = process.advertise;
        let scheduler::Config { rules, http, .. } = &config;
        positive(&[
            ("[swarm] reports_per_second", rules.reports_per_second.into()),
            ("[swarm] neighbours", rules.neighbours as u64),
            ("[swarm] most_neighbours", rules.most_neighbours as u64),
            ("[swarm] importers", rules.importers as u64),
            ("[swarm] seed_fanout", rules.seed_fanout as u64),
            ("[limits] nodes", rules.limits.nodes as u64),
            ("[limits] swarms", rules.limits.swarms as u64),
            ("[limits] memberships", rules.limits.memberships as u64),
            ("[http] connections", http.connections as u64),
        ])?;
        Ok(SchedulerSettings { process, log, config })
    }
}
