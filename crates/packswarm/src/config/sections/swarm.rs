//! What a node decides: whom to exchange pieces with, and when to read the registry.

use std::time::Duration;

use swarm::node::Config;

use crate::config::section::section;
use crate::config::{size, time};

section! {
    /// The exchange of pieces. Read again on SIGHUP.
    Exchange in Config;
    /// Neighbours per wanted blob at most. More means more messages and connections; below 8, the swarm gets long.
    neighbours => neighbours: usize, "20";
    /// Neighbours per wanted blob below which the scheduler is asked for more.
    lonely_below => lonely_below: usize, "6";
    /// Connections at most, over all blobs; at most `transport.max_connections`.
    connections => connections: usize, "100";
    /// Bytes of pieces under way to this node at most; at most `pieces.buffers`, which they fill.
    #[serde(with = "size")]
    in_flight_bytes => in_flight_bytes: u64, "16MiB";
    /// Pieces under way to this node besides what fills its link (bandwidth times delay, which is measured). Fewer, and
    /// neighbours idle by chance; more, and pieces wait in their queues.
    window_pieces => window_pieces: usize, "12";
    /// Requests under way to one neighbour at most.
    in_flight_per_neighbour => in_flight_per_neighbour: usize, "8";
    /// Pieces served at the same time. More only splits the uplink finer, and every piece arrives later.
    upload_slots => upload_slots: usize, "4";
    /// Requests that wait for an upload slot; beyond, askers go elsewhere.
    upload_queue => upload_queue: usize, "64";
    /// The least time between two messages to one neighbour about what this node holds of one blob.
    #[serde(with = "time")]
    have_interval => have_interval: Duration, "50ms";
    /// The least time after which a piece is asked of a second neighbour. Shorter wastes bandwidth on jitter.
    #[serde(with = "time")]
    patience => patience: Duration, "1s";
    /// The time after which a request is given up, whatever the link.
    #[serde(with = "time")]
    request_timeout => request_timeout: Duration, "1m";
    /// Time between lookups of holders while no scheduler answers.
    #[serde(with = "time")]
    find_interval => find_interval: Duration, "5s";
    /// Time after which a connection that no wanted blob needs is closed.
    #[serde(with = "time")]
    idle_connection => idle_connection: Duration, "10s";
    /// Distinct neighbours whose bytes for one piece are refused before the signed midstates are doubted instead.
    doubt_after => doubt_after: usize, "2";
    /// Blobs wanted at the same time; more are refused.
    wanted => wanted: usize, "1000";
}

section! {
    /// Reading the registry. Read again on SIGHUP.
    Origin in Config;
    /// Whether this node may read the registry when neither scheduler, holder nor elected reader is there. If not, pulls
    /// wait for the swarm and may fail without it.
    fallback => origin_fallback: bool, "false";
    /// How long to wait for them first. Shorter risks reading the registry twice.
    #[serde(with = "time")]
    wait => origin_wait: Duration, "30s";
    /// Bytes that a reader may hold or be reading and nobody else holds, while others wait: the most that is read again when it dies.
    #[serde(with = "size")]
    read_ahead => read_ahead: u64, "32MiB";
    /// Connections on which one blob is read at most. It begins on one, and takes more for as long as that raises the rate: where
    /// the registry limits each of them.
    ranges => origin_ranges: usize, "2";
    /// Bytes asked for on one of them at once, at most; on slow links it is less by itself, so that pieces come in order.
    #[serde(with = "size")]
    range_bytes => origin_range_bytes: u64, "4MiB";
}

section! {
    /// Rate limits, in bytes per second; 0B for none. Read again on SIGHUP, and changed by the admin API.
    Rates in peer::Rates;
    /// To other nodes. Too low on a seed, and all wait for it.
    #[serde(with = "size")]
    upload => upload: u64, "100MiB";
    /// From other nodes.
    #[serde(with = "size")]
    download => download: u64, "1GiB";
    /// From registries, over all blobs that this node reads. A pull of something new is no faster than that.
    #[serde(with = "size")]
    registry => registry: u64, "50MiB";
}
