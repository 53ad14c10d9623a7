//! Network namespaces that remember in their names which process made them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::run;

/// Where iproute2 keeps namespaces by name.
const NAMED: &str = "/run/netns";
/// Of every name: `packswarm-PID-NETWORK-HOST`.
const PREFIX: &str = "packswarm-";

/// A namespace, removed with everything that runs in it when it is dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// A namespace of this process.
    pub(super) fn create(network: u32, host: &str) -> Self {
        let name = format!("{PREFIX}{}-{network}-{host}", std::process::id());
        run(tool("ip").args(["netns", "add", &name]));
        let file = File::open(Path::new(NAMED).join(&name)).expect("it was just made");
        let namespace = Self { name, file };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// What iproute2 calls it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on what is in it.
    pub(super) fn ip(&self, arguments: &[&str]) {
        run(tool("ip").args(["-n", &self.name]).args(arguments));
    }

    /// Runs a program in it, to its end.
    pub(super) fn run(&self, command: &[&str]) {
        run(tool("ip").args(["netns", "exec", &self.name]).args(command));
    }

    /// Packets that an interface's queue has dropped.
    pub(super) fn dropped(&self, interface: &str) -> u64 {
        let told = run(tool("tc").args(["-n", &self.name, "-s", "qdisc", "show", "dev", interface, "root"]));
        // ` Sent 10 bytes 1 pkt (dropped 0, overlimits 0 requeues 0)`
        let dropped = told
            .split_once("(dropped ")
            .and_then(|(_, rest)| rest.split(',').next());
        dropped.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// What the kernel calls it.
    pub(super) fn number(&self) -> u64 {
        self.file.metadata().expect("open files have metadata").ino()
    }

    /// Runs `work` on a thread that is in it. Sockets stay there for good.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let entered = move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
            entered.unwrap_or_else(|error| panic!("{} cannot be entered: {error}", self.name));
            work()
        };
        let done = std::thread::scope(|threads| threads.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces of processes that no longer exist, with whatever still runs in them.
pub(super) fn sweep() {
    let Ok(named) = fs::read_dir(NAMED) else {
        return;
    };
    for entry in named.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists()) {
            remove(&name);
        }
    }
}

/// Somebody else may be removing it too, so that nothing here has to succeed.
fn remove(name: &str) {
    let inside = tool("ip").args(["netns", "pids", name]).output();
    let inside = inside.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&inside).split_whitespace() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = tool("ip").args(["netns", "del", name]).output();
}

/// A program of the system administrator's, whose directory is not on everybody's path.
pub(super) fn tool(name: &str) -> Command {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() {
        Command::new(path)
    } else {
        Command::new(name)
    }
}
