//! What an operator can change about a node's decisions.

use std::time::Duration;

use super::Node;

/// A node's settings. Every number says its unit and why it is what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Neighbours per wanted blob at most. More means more haves and connections; below 8, random graphs get long.
    pub neighbours: usize,
    /// Neighbours per wanted blob below which the scheduler is asked for more.
    pub lonely_below: usize,
    /// Connections at most, over all blobs.
    pub connections: usize,
    /// Bytes of pieces under way to this node at most, so that the buffer pool is never what stops it.
    pub in_flight_bytes: u64,
    /// Pieces under way to this node besides what bandwidth × delay fills. Fewer, and neighbours idle by chance; more, and pieces
    /// queue at them.
    pub window_pieces: usize,
    /// Piece requests under way to one neighbour at most.
    pub in_flight_per_neighbour: usize,
    /// Pieces served at the same time. More only splits the uplink finer, and every piece arrives later.
    pub upload_slots: usize,
    /// Requests that wait for an upload slot; beyond, askers are told `Busy` and go elsewhere.
    pub upload_queue: usize,
    /// The least time between two `Have` messages to one neighbour about one blob.
    pub have_interval: Duration,
    /// The least time after which a piece is asked of a second neighbour.
    pub patience: Duration,
    /// The time after which a request is given up, whatever the link.
    pub request_timeout: Duration,
    /// Bytes that a reader of the registry may hold or be reading and nobody else holds, while others wait.
    pub read_ahead: u64,
    /// Connections on which one blob is read from the registry.
    pub origin_ranges: usize,
    /// Bytes asked for on one of them at once, at most; on slow links less, so that pieces come in order.
    pub origin_range_bytes: u64,
    /// How long to wait with no scheduler, no holder and no elected reader before reading the registry oneself.
    pub origin_wait: Duration,
    /// Whether this node may read the registry at all when nobody else does.
    pub origin_fallback: bool,
    /// Time between lookups of holders while no scheduler answers.
    pub find_interval: Duration,
    /// Time after which a connection that no wanted blob needs is closed.
    pub idle_connection: Duration,
    /// Distinct neighbours whose bytes for one piece the vouched midstates refuse, before the midstates are doubted.
    pub doubt_after: usize,
    /// Blobs wanted at the same time; more are refused.
    pub wanted: usize,
}

impl Config {
    /// A seed's: it is a neighbour of the first nodes of every swarm, of many at a time, and whoever joins before the first
    /// pieces went round asks it. Slow neighbours must not leave its uplink idle.
    pub fn seed() -> Self {
        Self {
            connections: 256,
            upload_queue: 1024,
            upload_slots: 16,
            ..Self::default()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            neighbours: 16,
            lonely_below: 4,
            connections: 64,
            in_flight_bytes: 64 << 20,
            window_pieces: 10,
            in_flight_per_neighbour: 4,
            upload_slots: 8,
            upload_queue: 256,
            have_interval: Duration::from_millis(10),
            patience: Duration::from_millis(500),
            request_timeout: Duration::from_secs(30),
            read_ahead: 64 << 20,
            origin_ranges: 4,
            origin_range_bytes: 8 << 20,
            origin_wait: Duration::from_secs(10),
            origin_fallback: true,
            find_interval: Duration::from_secs(2),
            idle_connection: Duration::from_secs(60),
            doubt_after: 3,
            wanted: 16_384,
        }
    }
}

impl Node {
    /// The settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the settings; what is under way goes on under the old ones.
    pub fn reconfigure(&mut self, config: Config) {
        self.links.set_limit(config.connections);
        self.uploads.set_limits(config.upload_slots, config.upload_queue);
        self.config = config;
    }
}
