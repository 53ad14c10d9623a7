//! Where results come from: they are worth nothing without.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::lab::workspace;
use serde::Serialize;

/// The machine, and the versions of what is common to all runs.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The registry's.
    pub registry: String,
    /// The commit of packswarm.
    pub commit: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let value = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value));
            line.unwrap_or("unknown").trim().to_owned()
        };
        let kib = value("/proc/meminfo", "MemTotal");
        let kib: u64 = kib.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: value("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory: kib << 10,
            kernel: kernel.trim().to_owned(),
            registry: told(Command::new("docker-registry").arg("--version")),
            commit: told(
                Command::new("git")
                    .args(["describe", "--always", "--dirty"])
                    .current_dir(workspace()),
            ),
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        format!(
            "{} × {}, {} GiB, Linux {}, {}, packswarm at {}",
            self.processors,
            self.processor,
            self.memory >> 30,
            self.kernel,
            self.registry,
            self.commit
        )
    }
}

/// Bytes that may be written below a directory that may not exist yet.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let told = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(there)
        .output()
        .ok()?;
    String::from_utf8_lossy(&told.stdout)
        .lines()
        .nth(1)?
        .trim()
        .parse()
        .ok()
}

fn told(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::this();
        assert!(
            machine.processors > 0 && machine.memory > 1 << 26 && !machine.kernel.is_empty(),
            "{machine:?}"
        );
        assert!(machine.line().contains(&machine.kernel));
        assert!(free_bytes(Path::new("/tmp/not/yet/there")).is_some_and(|bytes| bytes > 0));
    }
}
