//! The role every node has: fetch, verify, store, serve.
//!
//! A byte travels: registry or neighbour → `fetching` or `origin` (its chunks, or the blob's file) → `proving`
//! → the store → `serving` to neighbours and `content` to this node's clients. What to do next is decided by
//! [`swarm::node::Node`], which `engine` drives; everything here only carries it out.

mod access;
mod api;
mod asking;
mod authorising;
mod buffers;
mod children;
mod config;
mod content;
mod cursors;
mod engine;
mod expelling;
mod fetching;
mod files;
mod housekeeping;
mod lending;
mod lent;
mod limits;
mod listening;
mod metering;
mod opening;
mod origin;
mod pacing;
mod parts;
mod pinging;
mod providing;
mod proving;
mod repairing;
mod seeds;
mod serving;
mod status;
mod striping;
mod suspects;
mod tags;
mod upstream;
mod watch;
mod width;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use identity::{ClusterKeys, ExpelledFile, NodeKey};
use swarm::node::{Identity, Input, Node};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use wire::control::Role;

pub use access::LocalAccess;
pub use config::{Addresses, Config, Listeners, StartError};
pub use pacing::Rates;
pub use status::{BlobStatus, Received, Setting, Status};

use engine::{Engine, Loop};
use parts::Parts;

/// A node that runs. Dropping it stops it without draining.
#[derive(Debug)]
pub struct Peer {
    addresses: Addresses,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    handle: Handle,
}

/// What the process around a node may ask of it. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    parts: Arc<Parts>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Peer {
    /// Starts a node on sockets that the caller has bound. It runs until [`Peer::stop`].
    ///
    /// # Errors
    /// If one of its parts cannot start.
    pub async fn start(
        config: Config,
        listeners: Listeners,
        key: Arc<NodeKey>,
        cluster: Arc<ClusterKeys>,
    ) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let registry = prometheus::Registry::new();
        let remembered = config.expelled.as_ref().map(ExpelledFile::load).transpose()?.flatten();
        let (parts, events) = assemble(&config, &listeners, key, cluster, &registry, &stop).await?;
        let addresses = Addresses {
            control: parts.control.local_addr(),
            data: parts.transport.local_addr(),
            mirror: listeners
                .mirror
                .as_ref()
                .map(tokio::net::TcpListener::local_addr)
                .transpose()?,
            admin: listeners.admin.local_addr()?,
        };
        let mut tasks = JoinSet::new();
        let machine = Node::new(
            Identity {
                node: parts.key.node_id(),
                role: config.role,
                zone: config.locality.zone.clone(),
            },
            config.node.clone(),
            rand::random(),
        );
        tasks.spawn(Loop::new(machine, Arc::clone(&parts)).run(events.engine, stop.clone()));
        tasks.spawn(expelling::run(
            Arc::clone(&parts),
            config.expelled.clone(),
            stop.clone(),
        ));
        expelling::remember(&parts, remembered.unwrap_or_default()).await;
        tasks.spawn(introduce_held(Arc::clone(&parts)));
        tasks.spawn(listening::control(Arc::clone(&parts), events.control, stop.clone()));
        tasks.spawn(listening::data(Arc::clone(&parts), events.data, stop.clone()));
        tasks.spawn(housekeeping::run(Arc::clone(&parts), stop.clone()));
        tasks.spawn(repairing::scrub(
            Arc::clone(&parts),
            config.store.scrub_rate,
            stop.clone(),
        ));
        if config.role == Role::Seed {
            parts.providing.provide(asking::seeds_key());
        }
        if let Some(listener) = listeners.mirror {
            let content = Arc::new(content::Swarmed {
                parts: Arc::clone(&parts),
            });
            let meter = Arc::new(metering::MirrorMeter(parts.metrics.clone()));
            let router = mirror::router(&config.mirror, content, meter)?;
            tasks.spawn(httpd::serve(
                listener,
                router,
                config.http.clone(),
                stop.clone().cancelled_owned(),
            ));
        }
        let admin = api::admin(Arc::clone(&parts), registry);
        tasks.spawn(admin.serve(listeners.admin, config.http, stop.clone().cancelled_owned()));
        Ok(Self {
            addresses,
            stop,
            tasks,
            handle: Handle { parts },
        })
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What may be asked of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Drains and stops: no new work, what clients and neighbours are being sent is finished within the HTTP servers' drain
    /// time, and the store is closed cleanly.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let parts = &self.handle.parts;
        parts.transport.close().await;
        parts.control.close().await;
        let store = parts.store.clone();
        parts.files.close_all();
        if !matches!(spawn_blocking(move || store.close()).await, Ok(Ok(()))) {
            tracing::error!("the store could not be closed cleanly; it will be checked at the next start");
        }
    }
}

impl Handle {
    /// What the node is doing, for `status` and the demo.
    pub fn status(&self) -> Status {
        status::status(&self.parts)
    }

    /// Waits until a scheduler knows the node.
    pub async fn registered(&self) {
        let mut registered = self.parts.registered.subscribe();
        // The sender lives as long as the parts, which this handle holds.
        let _ = registered.wait_for(|registered| *registered).await;
    }

    /// Changes the node's decisions and rate limits while it runs.
    pub async fn reconfigure(&self, config: swarm::node::Config, rates: Rates) {
        self.parts.pacing.set(rates);
        // Fails only while the node stops, when it no longer matters.
        let _ = self.parts.engine.adjust(|now| *now = config).await;
    }
}

/// The receiving ends that the node's loops own.
struct Events {
    engine: tokio::sync::mpsc::Receiver<engine::Event>,
    control: tokio::sync::mpsc::Receiver<control::Event>,
    data: tokio::sync::mpsc::Receiver<transport::Event>,
}

async fn assemble(
    config: &Config,
    listeners: &Listeners,
    key: Arc<NodeKey>,
    cluster: Arc<ClusterKeys>,
    registry: &prometheus::Registry,
    stop: &CancellationToken,
) -> Result<(Arc<Parts>, Events), StartError> {
    let store = {
        let config = config.store.clone();
        spawn_blocking(move || store::Store::open(config))
            .await
            .map_err(std::io::Error::other)??
    };
    let metrics = admin::Metrics::new(registry)?;
    let meter = Arc::new(metering::RegistryMeter(metrics.clone()));
    let client = registry::Client::new(config.registry.clone())?.with_meter(meter);
    let socket = listeners.data.try_clone()?;
    let (transport, data) =
        transport::Transport::bind(config.transport.clone(), socket, Arc::clone(&key), Arc::clone(&cluster))?;
    let (control, control_events) = control::Control::start(config.control.clone(), Arc::clone(&key), cluster).await?;
    let (engine, engine_events) = Engine::channel();
    let mut advertised = config.advertise;
    if advertised.port() == 0 {
        advertised = SocketAddr::new(advertised.ip(), transport.local_addr().port());
    }
    let parts = Arc::new(Parts {
        role: config.role,
        key,
        advertised,
        locality: config.locality.clone(),
        engine,
        store,
        files: files::Files::default(),
        transport,
        registry: client,
        buffers: buffers::Buffers::new(config.buffers),
        provers: proving::Provers::start(config.provers)?,
        watches: watch::Watches::default(),
        trust: parts::Trust::default(),
        roles: parts::Roles::default(),
        suspects: suspects::Suspects::default(),
        seen_at: parts::SeenAt::default(),
        leases: origin::Leases::default(),
        cursors: cursors::Cursors::default(),
        pacing: pacing::Pacing::new(config.rates),
        verdicts: access::Verdicts::new(config.local_access, config.access_ttl, config.access_grace),
        seeds: seeds::Seeds::default(),
        lent: lent::Lent::default(),
        pings: pinging::Pings::default(),
        upstreams: upstream::Upstreams::new(config.node.origin_wait, config.node.origin_fallback),
        tags: tags::Tags::new(config.tag_ttl),
        providing: providing::Providing::start(control.clone(), stop.clone()),
        control,
        metrics,
        begun: Mutex::default(),
        registered: tokio::sync::watch::Sender::new(false),
        expelled: tokio::sync::watch::Sender::default(),
        is_expelled: AtomicBool::new(false),
        runtime: tokio::runtime::Handle::current(),
    });
    parts.note_usage();
    Ok((
        parts,
        Events {
            engine: engine_events,
            control: control_events,
            data,
        },
    ))
}

/// Tells the machine what the store holds from an earlier life.
async fn introduce_held(parts: Arc<Parts>) {
    for held in parts.store.held() {
        if held.complete {
            // Opened, and proven if there is doubt, when somebody wants it: a large store would take minutes.
            let (blob, media_type) = (held.blob, held.media_type);
            let bits = piece::Bitfield::full(&blob.geometry());
            parts.engine.tell(Input::Opened { blob, bits, media_type }).await;
            parts.providing.provide(blob.digest);
            continue;
        }
        let file = {
            let (store, digest) = (parts.store.clone(), held.blob.digest);
            spawn_blocking(move || store.get(&digest)).await.ok().flatten()
        };
        if let Some(file) = file {
            let (bits, media_type) = (file.bitfield(), file.media_type());
            parts
                .engine
                .tell(Input::Opened {
                    blob: held.blob,
                    bits,
                    media_type,
                })
                .await;
            parts.providing.provide(held.blob.digest);
        }
    }
}
