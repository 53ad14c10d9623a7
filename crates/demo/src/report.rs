//! What the demo has seen, as a table.

use std::fmt;
use std::time::Duration;

use peer::Received;

/// How one node fared.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// Its name in the demo.
    pub name: String,
    /// How long its client took; seeds have none.
    pub took: Option<Duration>,
    /// Bytes it received, by source.
    pub received: Received,
    /// Bytes it sent to other nodes.
    pub sent: u64,
}

/// Everything the demo has measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// Bytes of the artifact: manifest, config and layers.
    pub model_bytes: u64,
    /// Bytes that the registry served while all peers pulled through the swarm.
    pub registry_bytes: u64,
    /// Requests that came to the registry from peers: there should be none.
    pub peer_requests: usize,
    /// Every node.
    pub nodes: Vec<NodeReport>,
    /// How long each client took straight from the registry.
    pub straight: Vec<Duration>,
    /// Bytes that the registry served for that.
    pub straight_bytes: u64,
}

impl Report {
    /// Registry bytes over model bytes, as printed: the promise is 1.00.
    pub fn ratio(&self) -> f64 {
        self.registry_bytes as f64 / self.model_bytes as f64
    }

    /// Whether each byte left the registry exactly once, and no peer spoke to it.
    pub const fn is_kept(&self) -> bool {
        self.registry_bytes == self.model_bytes && self.peer_requests == 0
    }

    fn slowest(&self) -> Duration {
        self.nodes.iter().filter_map(|node| node.took).max().unwrap_or_default()
    }

    fn slowest_straight(&self) -> Duration {
        self.straight.iter().max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  node        time   from registry   from seeds   from peers         sent"
        )?;
        for node in &self.nodes {
            let took = node.took.map_or_else(|| "-".to_owned(), seconds);
            let (registry, seed, peer) = (node.received.registry, node.received.seed, node.received.peer);
            writeln!(
                f,
                "  {:<8} {took:>7}   {:>13}   {:>10}   {:>10}   {:>10}",
                node.name,
                mib(registry),
                mib(seed),
                mib(peer),
                mib(node.sent)
            )?;
        }
        let clients = self.straight.len();
        writeln!(f)?;
        writeln!(f, "                          slowest node   registry served   ÷ model")?;
        writeln!(
            f,
            "  through packswarm     {:>14}   {:>15}   {:>7.2}",
            seconds(self.slowest()),
            mib(self.registry_bytes),
            self.ratio()
        )?;
        writeln!(
            f,
            "  {clients} straight pulls     {:>14}   {:>15}   {:>7.2}",
            seconds(self.slowest_straight()),
            mib(self.straight_bytes),
            self.straight_bytes as f64 / self.model_bytes as f64
        )
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_breaks_the_promise() {
        let mut report = Report {
            model_bytes: 100 << 20,
            registry_bytes: 100 << 20,
            peer_requests: 0,
            nodes: Vec::new(),
            straight: vec![Duration::from_secs(2)],
            straight_bytes: 200 << 20,
        };
        assert!(report.is_kept());
        assert!(report.to_string().contains("1.00") && report.to_string().contains("2.00"));
        report.registry_bytes += 1;
        assert!(!report.is_kept(), "even where the ratio still prints as 1.00");
    }
}
