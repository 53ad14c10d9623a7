//! The metric families of every role. Each begins with `packswarm_` and counts in base units.
//!
//! Labels are bounded: a registry's name comes from clients, so only the first [`MAX_REGISTRIES`] get a series of their
//! own; all others share `other`. The remaining labels come from the code.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The most registries with series of their own.
pub const MAX_REGISTRIES: usize = 64;

/// From a blob in memory next door (5 ms) to 100 GiB over a slow link.
const BLOB_SECONDS: [f64; 14] = [
    0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0,
];

/// Where bytes of a blob came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedFrom {
    /// A peer's data plane.
    Peer,
    /// A seed's data plane.
    Seed,
    /// The registry.
    Registry,
}

impl ReceivedFrom {
    const ALL: [Self; 3] = [Self::Peer, Self::Seed, Self::Registry];

    const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Seed => "seed",
            Self::Registry => "registry",
        }
    }
}

/// Every metric of a process. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registries: Arc<Mutex<BTreeSet<String>>>,
    registry_bytes: IntCounterVec,
    registry_requests: IntCounterVec,
    received_bytes: [IntCounter; 3],
    sent_bytes: IntCounter,
    pieces_rejected: IntCounterVec,
    mirror_requests: IntCounterVec,
    mirror_bytes: IntCounter,
    blob_seconds: Histogram,
    store_bytes: IntGauge,
    scrubbed_bytes: IntCounter,
    damaged_pieces: IntCounter,
    connections: IntGauge,
    scheduler_nodes: IntGauge,
    scheduler_swarms: IntGauge,
    scheduler_requests: IntCounterVec,
}

impl Metrics {
    /// Registers all families on `registry`.
    ///
    /// # Errors
    /// If one of them is already registered there: a registry belongs to one role of one process.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name, help, labels: &[&str]| add(registry, IntCounterVec::new(Opts::new(name, help), labels));
        let counter = |name, help| add(registry, IntCounter::new(name, help));
        let gauge = |name, help| add(registry, IntGauge::new(name, help));
        let received = counters(
            "packswarm_received_bytes_total",
            "Bytes of blobs received, by what kind of source sent them.",
            &["source"],
        )?;
        let blob_seconds = HistogramOpts::new(
            "packswarm_blob_seconds",
            "Time from the first request for a blob to its proof, in seconds.",
        );
        Ok(Self {
            registries: Arc::default(),
            registry_bytes: counters(
                "packswarm_registry_bytes_total",
                "Bytes of bodies received from a registry, as they arrive.",
                &["registry"],
            )?,
            registry_requests: counters(
                "packswarm_registry_requests_total",
                "Requests sent to a registry.",
                &["registry", "kind"],
            )?,
            received_bytes: ReceivedFrom::ALL.map(|source| received.with_label_values(&[source.name()])),
            sent_bytes: counter("packswarm_sent_bytes_total", "Bytes of blobs sent to other nodes.")?,
            pieces_rejected: counters(
                "packswarm_pieces_rejected_total",
                "Pieces that were received and not accepted.",
                &["reason"],
            )?,
            mirror_requests: counters(
                "packswarm_mirror_requests_total",
                "Requests answered by the mirror.",
                &["kind", "status"],
            )?,
            mirror_bytes: counter(
                "packswarm_mirror_bytes_total",
                "Bytes of bodies given to the mirror's clients.",
            )?,
            blob_seconds: add(
                registry,
                Histogram::with_opts(blob_seconds.buckets(BLOB_SECONDS.to_vec())),
            )?,
            store_bytes: gauge("packswarm_store_bytes", "Bytes that the store occupies on disk.")?,
            scrubbed_bytes: counter(
                "packswarm_scrubbed_bytes_total",
                "Bytes of the store that were read again in search of damage.",
            )?,
            damaged_pieces: counter(
                "packswarm_damaged_pieces_total",
                "Pieces that had gone bad on the disk and were fetched again.",
            )?,
            connections: gauge("packswarm_connections", "Open connections of the data plane.")?,
            scheduler_nodes: gauge("packswarm_scheduler_nodes", "Nodes that report to this scheduler.")?,
            scheduler_swarms: gauge("packswarm_scheduler_swarms", "Blobs that some node holds or wants.")?,
            scheduler_requests: counters(
                "packswarm_scheduler_requests_total",
                "Requests that this scheduler answered.",
                &["kind"],
            )?,
        })
    }

    /// Bytes of a body arrived from a registry.
    pub fn registry_bytes(&self, registry: &str, bytes: u64) {
        self.with_registry(registry, |name| {
            self.registry_bytes.with_label_values(&[name]).inc_by(bytes)
        });
    }

    /// A request went to a registry. `kind` is one of the code's own names.
    pub fn registry_request(&self, registry: &str, kind: &'static str) {
        self.with_registry(registry, |name| {
            self.registry_requests.with_label_values(&[name, kind]).inc()
        });
    }

    /// Bytes of blobs that arrived from one kind of source so far.
    pub fn received_from(&self, source: ReceivedFrom) -> u64 {
        self.received_bytes[source as usize].get()
    }

    /// Bytes of blobs sent to other nodes so far.
    pub fn sent_so_far(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Bytes of a blob arrived.
    pub fn received_bytes(&self, source: ReceivedFrom, bytes: u64) {
        self.received_bytes[source as usize].inc_by(bytes);
    }

    /// Bytes of a blob went to another node.
    pub fn sent_bytes(&self, bytes: u64) {
        self.sent_bytes.inc_by(bytes);
    }

    /// A piece was received and not accepted. `reason` is one of the code's own names.
    pub fn piece_rejected(&self, reason: &'static str) {
        self.pieces_rejected.with_label_values(&[reason]).inc();
    }

    /// The mirror answered a request. `kind` is one of the code's own names.
    pub fn mirror_request(&self, kind: &'static str, status: u16) {
        self.mirror_requests
            .with_label_values(&[kind, &status.to_string()])
            .inc();
    }

    /// The mirror gave bytes of a body to a client.
    pub fn mirror_bytes(&self, bytes: u64) {
        self.mirror_bytes.inc_by(bytes);
    }

    /// A blob was proven, this long after it was first asked for.
    pub fn blob_finished(&self, after: Duration) {
        self.blob_seconds.observe(after.as_secs_f64());
    }

    /// The store occupies this many bytes now.
    pub fn set_store_bytes(&self, bytes: u64) {
        self.store_bytes.set(gauge_value(bytes));
    }

    /// Bytes of the store were read again.
    pub fn scrubbed(&self, bytes: u64) {
        self.scrubbed_bytes.inc_by(bytes);
    }

    /// Pieces were found damaged on the disk.
    pub fn damaged(&self, pieces: u64) {
        self.damaged_pieces.inc_by(pieces);
    }

    /// The data plane has this many connections now.
    pub fn set_connections(&self, connections: usize) {
        self.connections.set(gauge_value(connections as u64));
    }

    /// The scheduler knows this many nodes and swarms now.
    pub fn set_scheduler(&self, nodes: usize, swarms: usize) {
        self.scheduler_nodes.set(gauge_value(nodes as u64));
        self.scheduler_swarms.set(gauge_value(swarms as u64));
    }

    /// The scheduler answered a request. `kind` is one of the code's own names.
    pub fn scheduler_request(&self, kind: &'static str) {
        self.scheduler_requests.with_label_values(&[kind]).inc();
    }

    fn with_registry(&self, registry: &str, record: impl FnOnce(&str)) {
        // A set of names is whole after any panic of a thread that held it.
        let mut known = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(registry) && known.len() < MAX_REGISTRIES {
            known.insert(registry.to_owned());
        }
        let name = if known.contains(registry) { registry } else { "other" };
        record(name);
    }
}

fn add<C>(registry: &Registry, collector: Result<C, prometheus::Error>) -> Result<C, prometheus::Error>
where
    C: Collector + Clone + 'static,
{
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Gauges are signed; no store or count comes near the limit.
fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[test]
    fn every_family_shows_what_was_recorded() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.registry_bytes("quay.io", 10);
        metrics.registry_request("quay.io", "blob");
        metrics.received_bytes(ReceivedFrom::Peer, 1);
        metrics.received_bytes(ReceivedFrom::Seed, 2);
        metrics.received_bytes(ReceivedFrom::Registry, 3);
        metrics.sent_bytes(4);
        metrics.piece_rejected("wrong_bytes");
        metrics.mirror_request("blob", 206);
        metrics.clone().mirror_bytes(5);
        metrics.blob_finished(Duration::from_millis(30));
        metrics.set_store_bytes(6);
        metrics.scrubbed(10);
        metrics.damaged(11);
        metrics.set_connections(7);
        metrics.set_scheduler(8, 9);
        metrics.scheduler_request("join");
        let text = text(&registry);
        for line in [
            "packswarm_registry_bytes_total{registry=\"quay.io\"} 10",
            "packswarm_registry_requests_total{kind=\"blob\",registry=\"quay.io\"} 1",
            "packswarm_received_bytes_total{source=\"peer\"} 1",
            "packswarm_received_bytes_total{source=\"seed\"} 2",
            "packswarm_received_bytes_total{source=\"registry\"} 3",
            "packswarm_sent_bytes_total 4",
            "packswarm_pieces_rejected_total{reason=\"wrong_bytes\"} 1",
            "packswarm_mirror_requests_total{kind=\"blob\",status=\"206\"} 1",
            "packswarm_mirror_bytes_total 5",
            "packswarm_blob_seconds_bucket{le=\"0.02\"} 0",
            "packswarm_blob_seconds_bucket{le=\"0.05\"} 1",
            "packswarm_store_bytes 6",
            "packswarm_scrubbed_bytes_total 10",
            "packswarm_damaged_pieces_total 11",
            "packswarm_connections 7",
            "packswarm_scheduler_nodes 8",
            "packswarm_scheduler_swarms 9",
            "packswarm_scheduler_requests_total{kind=\"join\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn registries_share_a_series_past_the_limit() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        for number in 0..MAX_REGISTRIES + 10 {
            metrics.registry_bytes(&format!("{number:03}.example.com"), 1);
        }
        metrics.registry_bytes("000.example.com", 1);
        let text = text(&registry);
        let series = text
            .lines()
            .filter(|line| line.starts_with("packswarm_registry_bytes_total{"))
            .count();
        assert_eq!(series, MAX_REGISTRIES + 1);
        assert!(text.contains("packswarm_registry_bytes_total{registry=\"other\"} 10"));
        assert!(text.contains("packswarm_registry_bytes_total{registry=\"000.example.com\"} 2"));
    }

    #[test]
    fn a_registry_belongs_to_one_set_of_metrics() {
        let registry = Registry::new();
        Metrics::new(&registry).unwrap();
        assert!(matches!(Metrics::new(&registry), Err(prometheus::Error::AlreadyReg)));
    }
}
