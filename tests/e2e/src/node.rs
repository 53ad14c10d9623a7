//! One node of a cluster: a `packswarm` process with a data directory that outlives it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::http::{Request, Response};
use crate::lab::binary;
use crate::memory::Watch;
use crate::{Host, Process, wait};

/// A debug build opens a store with a few blobs in much less.
const START: Duration = Duration::from_secs(30);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Knows who has what.
    Scheduler,
    /// Reads the registry.
    Seed,
    /// Serves clients.
    Peer,
}

impl Role {
    /// The subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Seed => "seed",
            Self::Peer => "peer",
        }
    }
}

/// How a node is started, each time.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What it is.
    pub role: Role,
    /// What tests and logs call it.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// The cluster key's file.
    pub key: PathBuf,
    /// Schedulers to join.
    pub schedulers: Vec<SocketAddr>,
    /// Where it listens, each time.
    pub ip: IpAddr,
    /// The host that it runs in, and that its clients are in. Unset: this machine.
    pub host: Option<Host>,
}

impl Setup {
    /// Has it run in a host of a network, and listen there.
    pub fn move_to(&mut self, host: Host) {
        self.ip = host.address();
        self.host = Some(host);
    }
}

/// A node, running or killed.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    ready: Ready,
    process: Option<Process>,
    memory: Arc<Watch>,
}

/// What the ready file says.
#[derive(Debug, Clone)]
struct Ready {
    peer_id: String,
    control: SocketAddr,
    data: Option<SocketAddr>,
    mirror: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Node {
    /// Starts it on free ports, and waits until it is ready.
    pub fn start(setup: Setup, memory: &Arc<Watch>) -> Self {
        let process = spawn(&setup, None);
        let mut node = Self {
            ready: Ready::unknown(),
            setup,
            process: Some(process),
            memory: Arc::clone(memory),
        };
        node.wait_ready();
        node
    }

    /// Starts it again after a [`Node::kill`], with the same data at the same address.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "{} still runs", self.setup.name);
        self.process = Some(spawn(&self.setup, Some(self.ready.control)));
        self.wait_ready();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.running_mut().kill();
        self.process = None;
    }

    /// SIGTERM, and its end within a while; panics unless it exits with 0.
    pub fn stop(&mut self) {
        let process = self.running_mut();
        process.terminate();
        let status = process.wait(START);
        assert!(
            status.success(),
            "{} ended with {status} after SIGTERM",
            self.setup.name
        );
        self.process = None;
    }

    /// Waits until it has ended, however.
    pub fn wait_ended(&mut self, limit: Duration) -> ExitStatus {
        let status = self.running_mut().wait(limit);
        self.process = None;
        status
    }

    /// What tests and logs call it.
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    /// How it is started.
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its libp2p peer id.
    pub fn peer_id(&self) -> &str {
        &self.ready.peer_id
    }

    /// Its control plane.
    pub const fn control(&self) -> SocketAddr {
        self.ready.control
    }

    /// Its data plane.
    pub fn data(&self) -> SocketAddr {
        self.ready
            .data
            .unwrap_or_else(|| panic!("{} has no data plane", self.setup.name))
    }

    /// Its mirror.
    pub fn mirror(&self) -> SocketAddr {
        self.ready
            .mirror
            .unwrap_or_else(|| panic!("{} has no mirror", self.setup.name))
    }

    /// Its admin HTTP.
    pub const fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    /// The process, while it runs.
    pub fn process(&self) -> &Process {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("{} was killed", self.setup.name))
    }

    /// Everything it has logged, in all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.setup.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log contains this.
    pub fn wait_log(&self, text: &str, limit: Duration) {
        let what = format!("`{text}` in the log of {}", self.setup.name);
        wait::until_true(&what, limit, || self.log().contains(text));
    }

    /// Asks its admin endpoint.
    pub fn get(&self, path: &str) -> Response {
        self.send(&Request::get(self.admin(), path))
    }

    /// Tells its admin endpoint to do something.
    pub fn post(&self, path: &str) -> Response {
        self.send(&Request::new("POST", self.admin(), path))
    }

    /// Sends a request from where the node is.
    pub fn send(&self, request: &Request<'_>) -> Response {
        match &self.setup.host {
            Some(host) => host.enter(|| request.send()),
            None => request.send(),
        }
    }

    /// The same command where the node is.
    pub fn beside(&self, command: Command) -> Command {
        match &self.setup.host {
            Some(host) => host.inside(&command),
            None => command,
        }
    }

    /// Its status.
    pub fn status(&self) -> Value {
        self.get("/api/v1/status").json()
    }

    /// What it holds of a blob, by its status.
    pub fn blob(&self, digest: &str) -> Option<Value> {
        let status = self.status();
        let blobs = status["blobs"].as_array().expect("a status has blobs");
        blobs.iter().find(|blob| blob["digest"] == digest).cloned()
    }

    /// Pieces of a blob that it holds.
    pub fn pieces(&self, digest: &str) -> u64 {
        self.blob(digest).and_then(|blob| blob["held"].as_u64()).unwrap_or(0)
    }

    /// Waits until it holds all of a blob.
    pub fn wait_complete(&self, digest: &str, limit: Duration) {
        let what = format!("{digest} at {}", self.setup.name);
        wait::until_true(&what, limit, || {
            self.blob(digest).is_some_and(|blob| blob["complete"] == true)
        });
    }

    /// The sum over all series of a metric that have these labels, written as `name="value"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.get("/metrics").text(), name, labels)
    }

    /// Bytes that it has received from `peer`, `seed` or `registry`.
    pub fn received(&self, source: &str) -> u64 {
        self.metric("packswarm_received_bytes_total", &[&format!("source=\"{source}\"")]) as u64
    }

    fn running_mut(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("{} was killed", self.setup.name))
    }

    fn wait_ready(&mut self) {
        let path = ready_file(&self.setup);
        let process = self.process.as_mut().expect("it was just started");
        let what = format!("the ready file of {}", self.setup.name);
        self.ready = wait::until(&what, START, || {
            if let Some(status) = process.ended() {
                panic!("{} ended with {status} instead of getting ready", process.name());
            }
            fs::read_to_string(&path).ok().map(|text| Ready::parse(&text))
        });
        self.memory.watch(&self.setup.name, process.id());
    }
}

/// The command that starts a node.
pub fn command(setup: &Setup, listen: Option<SocketAddr>) -> Command {
    let any = SocketAddr::new(setup.ip, 0);
    let mut command = Command::new(binary());
    command
        .arg(setup.role.name())
        .arg("--config")
        .arg(&setup.config)
        .arg("--data-dir")
        .arg(&setup.data);
    command
        .arg("--cluster-key")
        .arg(&setup.key)
        .arg("--ready-file")
        .arg(ready_file(setup));
    command
        .arg("--listen")
        .arg(listen.unwrap_or(any).to_string())
        .arg("--admin")
        .arg(any.to_string());
    if let Ok(filter) = std::env::var("PACKSWARM_TEST_LOG") {
        command.arg("--log").arg(filter);
    }
    for scheduler in &setup.schedulers {
        command.arg("--scheduler").arg(scheduler.to_string());
    }
    if setup.role == Role::Peer {
        command.arg("--mirror").arg(any.to_string());
    }
    command
}

fn spawn(setup: &Setup, listen: Option<SocketAddr>) -> Process {
    // The old one says nothing about the new process. There is none at the first start.
    let _ = fs::remove_file(ready_file(setup));
    let command = command(setup, listen);
    let mut command = match &setup.host {
        Some(host) => host.inside(&command),
        None => command,
    };
    Process::start(&setup.name, &mut command, &setup.log)
}

fn ready_file(setup: &Setup) -> PathBuf {
    let name = format!("{}.ready", setup.name);
    setup.data.parent().unwrap_or(Path::new(".")).join(name)
}

impl Ready {
    fn unknown() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            peer_id: String::new(),
            control: nowhere,
            data: None,
            mirror: None,
            admin: nowhere,
        }
    }

    fn parse(text: &str) -> Self {
        let ready: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let address = |name: &str| {
            ready[name]
                .as_str()
                .map(|text| text.parse().expect("addresses are IP:PORT"))
        };
        let must = |name: &str| address(name).unwrap_or_else(|| panic!("no `{name}` in {text}"));
        Self {
            peer_id: ready["peer_id"]
                .as_str()
                .unwrap_or_else(|| panic!("no `peer_id` in {text}"))
                .to_owned(),
            control: must("control"),
            data: address("data"),
            mirror: address("mirror"),
            admin: must("admin"),
        }
    }
}

/// The sum over all series of a metric that have these labels.
pub fn sum(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    let series = exposition.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, with) = series.split_once('{').unwrap_or((series, ""));
        (found == name && labels.iter().all(|label| with.contains(label))).then(|| value.parse::<f64>().ok())?
    });
    series.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_series_with_the_labels() {
        let text = "# HELP a_total x\na_total{k=\"x\",s=\"1\"} 2\na_total{k=\"x\",s=\"2\"} 3\na_total{k=\"y\"} 4\nab_total 9\n";
        assert_eq!(sum(text, "a_total", &["k=\"x\""]) as u64, 5);
        assert_eq!(sum(text, "a_total", &[]) as u64, 9);
        assert_eq!(sum(text, "c_total", &[]) as u64, 0);
    }
}
