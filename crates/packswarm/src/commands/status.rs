//! `packswarm status`.

use std::fmt::Write as _;

use serde::Deserialize;

use super::table::{Table, short};
use super::{block_on, print};
use crate::config::size;
use crate::failure::Failure;
use crate::http::{ADMIN, Admin};

/// `packswarm status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The admin address of the process: a URL or HOST:PORT.
    #[arg(long, value_name = "URL", env = "PACKSWARM_ADMIN", default_value = ADMIN)]
    admin: String,
    /// Print the JSON of the admin API instead (docs/cli.md has its schema).
    #[arg(long)]
    json: bool,
}

/// What a process says of itself.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Status {
    Node(Box<Node>),
    Scheduler(Scheduler),
}

#[derive(Debug, Deserialize)]
struct Node {
    role: String,
    peer_id: String,
    version: String,
    schedulers: Vec<String>,
    #[serde(default)]
    expelled: bool,
    store_capacity: u64,
    store_used: u64,
    connections: usize,
    received: Received,
    sent: u64,
    settings: Vec<Setting>,
    blobs: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
struct Received {
    peer: u64,
    seed: u64,
    registry: u64,
}

#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    wanted: String,
    got: String,
    advice: Option<String>,
}

/// A blob as the admin API lists it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) pieces: u32,
    pub(super) held: u32,
    pub(super) complete: bool,
    pub(super) pinned: bool,
    pub(super) media_type: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Scheduler {
    role: String,
    peer_id: String,
    version: String,
    uptime_seconds: u64,
    seeds: usize,
    peers: usize,
    swarms: usize,
    holdings: usize,
    preheats: usize,
    banned: usize,
    leases_granted: u64,
    leases_failed: u64,
    complaints_wrong_bytes: u64,
    complaints_forged_midstates: u64,
}

/// Prints what the process says.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    block_on(async {
        let admin = Admin::new(&args.admin)?;
        if args.json {
            let body = admin.get("/api/v1/status").await?;
            return print(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
        }
        let status: Status = admin.get_as("/api/v1/status").await?;
        print(&status.text())
    })
}

impl Status {
    fn text(&self) -> String {
        match self {
            Self::Node(node) => node.text(),
            Self::Scheduler(scheduler) => scheduler.text(),
        }
    }
}

impl Node {
    fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.line(&self.role, &format!("{} (packswarm {})", self.peer_id, self.version));
        let none = "none connected; the node finds others through Kademlia";
        if self.schedulers.is_empty() {
            lines.line("scheduler", none);
        }
        for scheduler in &self.schedulers {
            lines.line("scheduler", scheduler);
        }
        if self.expelled {
            lines.line(
                "expelled",
                "by the operator: other nodes refuse this one until `packswarm node unban`",
            );
        }
        let share = if self.store_capacity == 0 {
            0.0
        } else {
            self.store_used as f64 / self.store_capacity as f64
        };
        let (used, capacity) = (size::about(self.store_used), size::about(self.store_capacity));
        lines.line(
            "store",
            &format!(
                "{used} of {capacity} ({:.0} %), {} blobs",
                100.0 * share,
                self.blobs.len()
            ),
        );
        lines.line("connections", &self.connections.to_string());
        let Received { peer, seed, registry } = self.received;
        let [peer, seed, registry] = [peer, seed, registry].map(size::about);
        lines.line(
            "received",
            &format!("{peer} from peers, {seed} from seeds, {registry} from registries"),
        );
        lines.line("sent", &size::about(self.sent));
        for Setting {
            name,
            wanted,
            got,
            advice,
        } in &self.settings
        {
            let advice = advice.as_ref().map(|advice| format!(": {advice}")).unwrap_or_default();
            lines.line("refused", &format!("{name} = {wanted}; the system gives {got}{advice}"));
        }
        let blobs = if self.blobs.is_empty() {
            String::new()
        } else {
            format!("\n{}", table(&self.blobs))
        };
        lines.0 + &blobs
    }
}

impl Scheduler {
    fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.line(&self.role, &format!("{} (packswarm {})", self.peer_id, self.version));
        lines.line(
            "running",
            &crate::config::time::text(std::time::Duration::from_secs(self.uptime_seconds)),
        );
        lines.line(
            "nodes",
            &format!("{} seeds, {} peers, {} banned", self.seeds, self.peers, self.banned),
        );
        lines.line(
            "blobs",
            &format!(
                "{}, {} holdings, {} preheats under way",
                self.swarms, self.holdings, self.preheats
            ),
        );
        lines.line(
            "leases",
            &format!("{} granted, {} failed", self.leases_granted, self.leases_failed),
        );
        let (bytes, midstates) = (self.complaints_wrong_bytes, self.complaints_forged_midstates);
        lines.line(
            "complaints",
            &format!("{bytes} of wrong bytes, {midstates} of forged midstates"),
        );
        lines.0
    }
}

/// Blobs for people, the largest first.
pub(super) fn table(blobs: &[Blob]) -> String {
    let mut table = Table::new(["digest", ">size", ">here", "pinned", "media type"]);
    let mut blobs: Vec<&Blob> = blobs.iter().collect();
    blobs.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.digest.cmp(&b.digest)));
    for blob in blobs {
        let here = if blob.complete {
            "100 %".to_owned()
        } else {
            // Never 100 before the chain has closed.
            format!(
                "{} %",
                (u64::from(blob.held) * 100 / u64::from(blob.pieces.max(1))).min(99)
            )
        };
        let pinned = if blob.pinned { "yes" } else { "" };
        let media_type = blob.media_type.clone().unwrap_or_default();
        table.row([
            short(&blob.digest),
            size::about(blob.size),
            here,
            pinned.to_owned(),
            media_type,
        ]);
    }
    table.text()
}

/// Names with what they stand for.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: &str) {
        writeln!(self.0, "{name:<12}{value}").expect("a string takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_with_its_blobs() {
        let json = r#"{"role":"peer","peer_id":"12D3","version":"0.1.0","scheduler":null,"schedulers":[],"store_capacity":1000,"store_used":500,
            "connections":3,"received":{"peer":1048576,"seed":0,"registry":0},"sent":0,
            "settings":[{"name":"socket buffer","wanted":"4 MiB","got":"208 KiB","advice":"raise net.core.rmem_max"}],
            "blobs":[{"digest":"sha256:0123456789abcdef","size":400,"pieces":4,"held":4,"complete":false,"pinned":true,
            "media_type":null,"last_used":1}]}"#;
        let status: Status = serde_json::from_str(json).unwrap();
        let text = status.text();
        for part in [
            "peer        12D3 (packswarm 0.1.0)",
            "none connected",
            "500 B of 1000 B (50 %), 1 blobs",
            "1.00 MiB from peers",
            "socket buffer = 4 MiB; the system gives 208 KiB: raise net.core.rmem_max",
            "sha256:0123456789ab  400 B  99 %  yes",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn a_scheduler_is_shown() {
        let json = r#"{"role":"scheduler","peer_id":"12D3","version":"0.1.0","uptime_seconds":90,"seeds":2,"peers":8,"swarms":5,
            "holdings":40,"questions":0,"preheats":0,"banned":1,"leases_granted":5,"leases_failed":0,
            "complaints_wrong_bytes":0,"complaints_forged_midstates":0,"refused":0,"dropped":0}"#;
        let status: Status = serde_json::from_str(json).unwrap();
        assert!(
            status.text().contains("2 seeds, 8 peers, 1 banned"),
            "{}",
            status.text()
        );
    }
}
