//! The options of the roles that hold blobs: peers, and seeds, which are peers that may read the registry.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;

use serde::{Deserialize, Serialize};
use wire::control::Role;

use super::error::positive;
use super::section::SectionInfo;
use super::sections::{
    Access, Control, Exchange, Http, Joining, Locality, Log, Mirror, Origin, Pieces, Process, Rates, Registry, Store,
    Transport,
};
use super::{ConfigError, RoleFile};

/// More threads verify no faster than the network brings.
const MAX_PROVERS: usize = 8;

/// The options of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NodeFile {
    #[serde(flatten)]
    process: Process,
    #[serde(flatten)]
    joining: Joining,
    store: Store,
    origin: Origin,
    registry: Registry,
    /// A seed has none.
    mirror: Option<Mirror>,
    access: Access,
    exchange: Exchange,
    rates: Rates,
    pieces: Pieces,
    transport: Transport,
    control: Control,
    http: Http,
    locality: Locality,
    log: Log,
}

/// The options of a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PeerFile(NodeFile);

/// The options of a seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SeedFile(NodeFile);

/// What a node's options mean to the parts that run.
#[derive(Debug)]
pub(crate) struct NodeSettings {
    /// The process around it.
    pub(crate) process: Process,
    /// Where it stands, as far as the options say.
    pub(crate) locality: Locality,
    /// Its log.
    pub(crate) log: Log,
    /// Where the mirror listens.
    pub(crate) mirror: Option<SocketAddr>,
    /// The node itself.
    pub(crate) config: peer::Config,
}

impl RoleFile for PeerFile {
    const ROLE: &'static str = Role::Peer.name();
    const SECTIONS: &'static [SectionInfo] = &[
        Process::INFO,
        Joining::INFO,
        Store::INFO.named("store"),
        Mirror::INFO.named("mirror"),
        Access::INFO.named("access"),
        Registry::INFO.named("registry"),
        Origin::INFO.named("origin"),
        Exchange::INFO.named("exchange"),
        Rates::INFO.named("rates"),
        Pieces::INFO.named("pieces"),
        Transport::INFO.named("transport"),
        Control::INFO.named("control"),
        Http::INFO.named("http"),
        Locality::INFO.named("locality"),
        Log::INFO.named("log"),
    ];
    type Settings = NodeSettings;

    fn defaults() -> Self {
        Self(NodeFile::of(&node_defaults(), Some(Mirror::default())))
    }

    fn settings(self) -> Result<NodeSettings, ConfigError> {
        self.0.settings(node_defaults())
    }
}

impl RoleFile for SeedFile {
    const ROLE: &'static str = Role::Seed.name();
    const SECTIONS: &'static [SectionInfo] = &[
        Process::INFO,
        Joining::INFO,
        Store::INFO.named("store"),
        Access::INFO.named("access"),
        Registry::INFO.named("registry"),
        Origin::INFO.named("origin"),
        Exchange::INFO.named("exchange"),
        Rates::INFO.named("rates"),
        Pieces::INFO.named("pieces"),
        Transport::INFO.named("transport"),
        Control::INFO.named("control"),
        Http::INFO.named("http"),
        Locality::INFO.named("locality"),
        Log::INFO.named("log"),
    ];
    type Settings = NodeSettings;

    fn defaults() -> Self {
        Self(NodeFile::of(&seed::config(node_defaults()), None))
    }

    fn settings(self) -> Result<NodeSettings, ConfigError> {
        self.0.settings(seed::config(node_defaults()))
    }
}

impl NodeFile {
    /// The options as a configuration has them.
    fn of(config: &peer::Config, mirror: Option<Mirror>) -> Self {
        Self {
            process: Process::default(),
            joining: Joining::default(),
            store: Store::of(&config.store),
            origin: Origin::of(&config.node),
            registry: Registry::of(config),
            mirror,
            access: Access::of(config),
            exchange: Exchange::of(&config.node),
            rates: Rates::of(&config.rates),
            pieces: Pieces::of(config),
            transport: Transport::of(&config.transport),
            control: Control::of(&config.control),
            http: Http::of(&config.http),
            locality: Locality::default(),
            log: Log::default(),
        }
    }

    /// The configuration that these options make of one with the role's defaults.
    fn settings(self, mut config: peer::Config) -> Result<NodeSettings, ConfigError> {
        let Self {
            process,
            joining,
            mirror,
            locality,
            log,
            ..
        } = self;
        let registries = self.registry.names();
        self.store.apply(&mut config.store);
        self.origin.apply(&mut config.node);
        let registry = self.registry.apply(&mut config);
        registry.map_err(|error| ConfigError::Together {
            reason: error.to_string(),
        })?;
        self.access.apply(&mut config);
        self.exchange.apply(&mut config.node);
        self.rates.apply(&mut config.rates);
        self.pieces.apply(&mut config);
        self.transport.apply(&mut config.transport);
        self.control.apply(&mut config.control);
        self.http.apply(&mut config.http);
        config.store.data_dir.clone_from(&process.data_dir);
        config.control.listen = process.listen;
        config.control.external = process.advertise;
        config.control.schedulers = joining.scheduler;
        config.control.bootstrap = joining.bootstrap;
        config.advertise = process.advertise.unwrap_or(config.advertise);
        if config.provers == 0 {
            config.provers = std::thread::available_parallelism()
                .map_or(1, NonZero::get)
                .min(MAX_PROVERS);
        }
        let listen = mirror.as_ref().map(|mirror| mirror.listen);
        config.mirror = mirror.map(|mirror| mirror.config(registries)).unwrap_or_default();
        check(&config)?;
        Ok(NodeSettings {
            process,
            locality,
            log,
            mirror: listen,
            config,
        })
    }
}

/// What the parts themselves would refuse only when they start.
fn check(config: &peer::Config) -> Result<(), ConfigError> {
    let together = |reason: String| Err(ConfigError::Together { reason });
    if let Err(error) = config.transport.check() {
        return together(format!("[transport] {error}"));
    }
    let node = &config.node;
    positive(&[
        ("[exchange] neighbours", node.neighbours as u64),
        ("[exchange] connections", node.connections as u64),
        ("[exchange] in_flight_bytes", node.in_flight_bytes),
        (
            "[exchange] in_flight_per_neighbour",
            node.in_flight_per_neighbour as u64,
        ),
        ("[exchange] upload_slots", node.upload_slots as u64),
        ("[exchange] doubt_after", node.doubt_after as u64),
        ("[exchange] wanted", node.wanted as u64),
        ("[origin] read_ahead", node.read_ahead),
        ("[origin] ranges", node.origin_ranges as u64),
        ("[origin] range_bytes", node.origin_range_bytes),
        ("[http] connections", config.http.connections as u64),
        ("[mirror] max_requests", config.mirror.max_requests as u64),
    ])?;
    let store::Config {
        low_water: low,
        high_water: high,
        ..
    } = config.store;
    if !(0.0 < low && low <= high && high <= 1.0) {
        return together(format!(
            "[store] low_water {low} and high_water {high} must be shares, low below high"
        ));
    }
    if config.node.in_flight_bytes > config.buffers {
        return together(format!(
            "[exchange] in_flight_bytes = {} is more than [pieces] buffers = {} hold",
            super::size::text(config.node.in_flight_bytes),
            super::size::text(config.buffers),
        ));
    }
    if config.node.connections > config.transport.max_connections {
        return together(format!(
            "[exchange] connections = {} is more than [transport] max_connections = {}",
            config.node.connections, config.transport.max_connections,
        ));
    }
    Ok(())
}

/// A peer when nobody sets anything.
fn node_defaults() -> peer::Config {
    let anywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    peer::Config {
        advertise: (Ipv4Addr::UNSPECIFIED, 0).into(),
        // One per core, which is looked up when a node starts.
        provers: 0,
        ..peer::Config::new(store::Config::at(""), control::Config::new(anywhere))
    }
}
