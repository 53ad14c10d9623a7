//! One run: one system, one number of nodes, cold.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::{Duration, Instant};

use e2e::{Process, Traffic, tree};
use serde::Serialize;
use serde_json::Value;

use crate::site::Site;
use crate::systems::{System, SystemError};
use crate::usage::{Usage, Watch};

/// How precisely a pull's end is seen.
const POLL: Duration = Duration::from_millis(5);
/// Between two looks at the registry's log, which is whole when nothing is added any more.
const SETTLED: Duration = Duration::from_millis(200);
/// Bytes of what a failed pull has said that are shown.
const TAIL: usize = 2000;

/// What one run gave.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The system's name.
    pub system: String,
    /// How many nodes pulled at once.
    pub nodes: u16,
    /// Seconds that each node took, from the start of all pulls to the end of its own.
    pub seconds: Vec<f64>,
    /// Bytes of blobs that the registry has sent, by its log.
    pub registry_bytes: u64,
    /// Bytes of blobs that seeds have sent, by their own count if they have one.
    pub seed_bytes: u64,
    /// Whether seeds have counted themselves; otherwise it is what left their links.
    pub seed_bytes_counted: bool,
    /// Processors, memory, links.
    #[serde(flatten)]
    pub usage: Usage,
    /// Processes that wanted a processor, on average of the minute before.
    pub load_before: f64,
    /// And of the last minute of the run.
    pub load_after: f64,
    /// Packets that were dropped at each link, where there were any: what went out, and what came in.
    pub dropped: BTreeMap<String, [u64; 2]>,
    /// What the system tells about itself.
    pub details: Value,
}

/// Brings a system up, has all nodes pull at once, and takes it down, however that went.
///
/// # Errors
/// If a pull fails, does not end, or bytes are not what they should be.
pub fn measure(system: &mut dyn System, site: &Site<'_>, limit: Duration) -> Result<Run, SystemError> {
    let running = Running { system, site };
    running.system.up(site)?;
    let run = running.measure(limit)?;
    drop(running);
    Ok(run)
}

/// Takes the system down in the end.
struct Running<'a, 'm> {
    system: &'a mut dyn System,
    site: &'a Site<'m>,
}

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        self.system.down(self.site);
    }
}

impl Running<'_, '_> {
    fn measure(&self, limit: Duration) -> Result<Run, SystemError> {
        let site = self.site;
        let nodes = site.nodes.len();
        let mut pulls: Vec<_> = (0..nodes).map(|node| (node, self.system.pull(site, node))).collect();
        let seeds_before = self.link_bytes_of_seeds();
        let load_before = load();
        let hosts = site
            .hosts()
            .map(|host| (host.namespace_number(), host.name().to_owned()));
        let watch = Watch::start(hosts.collect(), site.network.clone());
        let start = Instant::now();
        let started = pulls.iter_mut().map(|(node, command)| {
            let name = format!("pull-{node}");
            Process::start(&name, command, &site.lab.log(&name))
        });
        let seconds = wait_all(started.collect(), start, limit);
        let usage = watch.finish();
        let seconds = seconds?;
        let load_after = load();
        let counted = self.system.seed_bytes();
        let seed_bytes = counted.unwrap_or_else(|| self.link_bytes_of_seeds() - seeds_before);
        let details = self.system.details();
        self.check()?;
        Ok(Run {
            system: self.system.name().to_owned(),
            nodes: u16::try_from(nodes).expect("it was one"),
            seconds,
            registry_bytes: registry_bytes(site),
            seed_bytes,
            seed_bytes_counted: counted.is_some(),
            usage,
            load_before,
            load_after,
            dropped: dropped(site),
            details,
        })
    }

    fn link_bytes_of_seeds(&self) -> u64 {
        self.site.seeds.iter().map(|seed| seed.traffic().sent).sum()
    }

    /// Whether each node has each layer, byte for byte. Not every client keeps the config, which is small.
    fn check(&self) -> Result<(), SystemError> {
        for (node, host) in self.site.nodes.iter().enumerate() {
            let below = self.system.arrived(self.site, node);
            let files = if below.exists() {
                tree::files(&below)
            } else {
                BTreeMap::new()
            };
            for blob in self.site.model.blobs().iter().filter(|blob| blob.path.is_some()) {
                let of_its_size = files.iter().filter(|(_, size)| **size == blob.size);
                let there = of_its_size
                    .into_iter()
                    .filter_map(|(path, _)| File::open(below.join(path)).ok())
                    .any(|file| tree::digest(file) == blob.digest);
                if !there {
                    return Err(SystemError::NotArrived {
                        node: host.name().to_owned(),
                        digest: blob.digest.clone(),
                        below,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Seconds until each of them has ended well.
fn wait_all(mut pulls: Vec<Process>, start: Instant, limit: Duration) -> Result<Vec<f64>, SystemError> {
    let mut seconds = vec![None; pulls.len()];
    while seconds.contains(&None) {
        std::thread::sleep(POLL);
        let now = start.elapsed();
        for (pull, seconds) in pulls
            .iter_mut()
            .zip(&mut seconds)
            .filter(|(_, seconds)| seconds.is_none())
        {
            match pull.ended() {
                Some(status) if status.success() => *seconds = Some(now.as_secs_f64()),
                Some(status) => {
                    return Err(SystemError::Failed {
                        command: pull.name().to_owned(),
                        status,
                        said: tail(&pull.log()),
                    });
                }
                None if now > limit => {
                    return Err(SystemError::Endless {
                        command: pull.name().to_owned(),
                        seconds: limit.as_secs(),
                    });
                }
                None => {}
            }
        }
    }
    Ok(seconds.into_iter().flatten().collect())
}

/// Bytes of blobs by the registry's log, once it is whole.
fn registry_bytes(site: &Site<'_>) -> u64 {
    let sum = || {
        site.model
            .blobs()
            .iter()
            .map(|blob| site.registry.bytes_of(&blob.digest))
            .sum()
    };
    let mut before: u64 = sum();
    loop {
        std::thread::sleep(SETTLED);
        let now = sum();
        if now == before {
            return now;
        }
        before = now;
    }
}

fn dropped(site: &Site<'_>) -> BTreeMap<String, [u64; 2]> {
    let hosts = site.hosts().chain([site.registry_host()]);
    let counts = hosts.map(|host| (host.name().to_owned(), host.dropped()));
    counts
        .filter(|(_, dropped)| *dropped != Traffic::default())
        .map(|(name, dropped)| (name, [dropped.sent, dropped.received]))
        .collect()
}

/// Processes that want a processor, on average of the last minute.
fn load() -> f64 {
    let told = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or(f64::NAN)
}

fn tail(log: &str) -> String {
    let from = log.floor_char_boundary(log.len().saturating_sub(TAIL));
    log[from..].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown() {
        assert_eq!(tail("a\n"), "a");
        let long = "ä".repeat(TAIL);
        assert!(tail(&long).len() <= TAIL + 1 && long.ends_with(&tail(&long)));
        assert!(load() >= 0.0);
    }
}
