//! The one task that owns the libp2p swarm: takes commands, the swarm's events and the clock, and reports events.

mod asking;
mod dialling;
mod finding;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::core::ConnectedPoint;
use libp2p::identity::{Keypair, PeerId};
use libp2p::pnet::PreSharedKey;
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Swarm, Transport, identify, kad, ping};
use piece::{Digest, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::address::{reachable, to_multiaddr, to_socket};
use crate::announce::Announcer;
use crate::behaviour::{Behaviour, BehaviourEvent, KAD_PROTOCOL, MAX_NEGOTIATING};
use crate::config::Config;
use crate::error::ControlError;
use crate::event::{Answer, Event};
use crate::explain::{self, Quiet};
use crate::links::{Links, Schedulers};
use crate::providers::MAX_PROVIDED;
use crate::transport::SecureTcp;
use asking::Asks;
pub(crate) use asking::{Ask, Waiter};
use dialling::Dial;
use finding::Find;

/// How often times are looked at: links to dial, searches to end, blobs to announce.
const TICK: Duration = Duration::from_millis(100);
/// The most events that wait because their channel is full. The swarm is not polled beyond.
const MAX_BACKLOG: usize = 4096;
/// How often one address may be complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// How long the listener may take to be there, and connections to close at the end.
const SETTLE: Duration = Duration::from_secs(5);
const CLOSE: Duration = Duration::from_secs(1);
/// The most addresses of its own that a node passes on without having been told one.
const MAX_EXTERNAL: usize = 4;

/// What a [`Control`](crate::Control) wants done.
#[derive(Debug)]
pub(crate) enum Command {
    Ask(Target, Ask),
    Provide(Digest),
    Unprovide(Digest),
    Find {
        digest: Digest,
        limit: usize,
        answer: oneshot::Sender<Vec<NodeId>>,
    },
    Close(oneshot::Sender<()>),
}

/// Whom to ask.
#[derive(Debug)]
pub(crate) enum Target {
    Node(PeerId),
    Addresses(Vec<SocketAddr>),
}

/// The driver's ends of its channels.
pub(crate) struct Channels {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) schedulers: watch::Sender<Schedulers>,
    /// Whom to have nothing to do with.
    pub(crate) expelled: watch::Receiver<BTreeSet<NodeId>>,
}

/// What a name stands for now, or why that is not known.
type Resolved = Result<Vec<SocketAddr>, String>;

/// An open connection.
struct Connection {
    node: NodeId,
    remote: SocketAddr,
    dialled: bool,
    /// The link that it serves.
    link: Option<usize>,
}

pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    local: PeerId,
    channels: Channels,
    backlog: VecDeque<Event>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    connections: HashMap<ConnectionId, Connection>,
    links: Links,
    resolving: FuturesUnordered<BoxFuture<'static, (usize, Resolved)>>,
    dials: HashMap<ConnectionId, Dial>,
    asks: Asks,
    announcer: Announcer,
    announcing: HashMap<kad::QueryId, Digest>,
    finds: HashMap<kad::QueryId, Find>,
    find_timeout: Duration,
    quiet: Quiet,
    /// Two cluster keys are accepted, so that some dial with one that is not listened with.
    rotating: bool,
    /// The port listened on, if the addresses at which others see this node are to be passed on.
    learn_external: Option<u16>,
}

impl Driver {
    pub(crate) fn new(
        config: &Config,
        key: &Keypair,
        cluster_keys: Vec<PreSharedKey>,
        channels: Channels,
    ) -> Result<Self, ControlError> {
        let wrong_key = |reason: String| ControlError::Key { reason };
        let local = key.public().to_peer_id();
        let node = identity::node_id(&local).ok_or_else(|| wrong_key("it is not an Ed25519 key".into()))?;
        let rotating = cluster_keys.len() > 1;
        let transport = SecureTcp::new(key, cluster_keys, config.handshake_timeout)
            .map_err(|error| wrong_key(error.to_string()))?
            .boxed();
        let settings = libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(config.idle)
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
        let mut swarm = Swarm::new(transport, Behaviour::new(config, key), local, settings);
        if let Some(external) = config.external {
            swarm.add_external_address(to_multiaddr(external));
        }
        Ok(Self {
            swarm,
            local,
            channels,
            backlog: VecDeque::new(),
            answers: mpsc::channel(config.max_requests_in_flight),
            connections: HashMap::new(),
            links: Links::new(&config.schedulers, &config.bootstrap, node, Instant::now()),
            resolving: FuturesUnordered::new(),
            dials: HashMap::new(),
            asks: Asks::new(config.request_timeout),
            announcer: Announcer::new(MAX_PROVIDED),
            announcing: HashMap::new(),
            finds: HashMap::new(),
            find_timeout: config.find_timeout,
            quiet: Quiet::new(COMPLAIN_EVERY),
            rotating,
            learn_external: config.external.is_none().then_some(0),
        })
    }

    /// Listens; returns the address with its real port.
    pub(crate) async fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, ControlError> {
        let failed = |source| ControlError::Listen { address, source };
        // libp2p shares ports (SO_REUSEPORT): without this look, two nodes on one port would take turns in accepting.
        drop(std::net::TcpListener::bind(address).map_err(failed)?);
        let port = self.listen_on(address).await.map_err(failed)?;
        let bound = SocketAddr::new(address.ip(), port);
        if address.ip() == IpAddr::from([0u16; 8]) {
            self.listen_on(SocketAddr::from(([0, 0, 0, 0], port)))
                .await
                .map_err(failed)?;
        }
        if self.learn_external.is_some() && !address.ip().is_unspecified() {
            self.swarm.add_external_address(to_multiaddr(bound));
            self.learn_external = None;
        }
        self.learn_external = self.learn_external.map(|_| port);
        Ok(bound)
    }

    async fn listen_on(&mut self, address: SocketAddr) -> std::io::Result<u16> {
        let listener = self
            .swarm
            .listen_on(to_multiaddr(address))
            .map_err(|error| match error {
                libp2p::TransportError::Other(error) => error,
                libp2p::TransportError::MultiaddrNotSupported(address) => std::io::Error::other(format!("{address}?")),
            })?;
        let listening = async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { listener_id, address } = &event
                    && *listener_id == listener
                {
                    break to_socket(address).map_or(0, |address| address.port());
                }
                self.on_swarm_event(event);
            }
        };
        tokio::time::timeout(SETTLE, listening)
            .await
            .map_err(|_| std::io::ErrorKind::TimedOut.into())
    }

    /// Until the last [`Control`](crate::Control) is gone, or one says so.
    pub(crate) async fn run(mut self) {
        let events = self.channels.events.clone();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.channels.commands.recv() => match command {
                    Some(Command::Close(done)) => {
                        self.close().await;
                        drop(self);
                        // The one who closes may have lost patience.
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.on_command(command),
                    None => return self.close().await,
                },
                Some(answer) = self.answers.1.recv() => self.on_answer(answer),
                Some((link, addresses)) = self.resolving.next() => self.on_resolved(link, addresses),
                event = self.swarm.select_next_some(), if self.backlog.len() < MAX_BACKLOG => self.on_swarm_event(event),
                room = events.reserve(), if !self.backlog.is_empty() => match (room, self.backlog.pop_front()) {
                    (Ok(room), Some(event)) => room.send(event),
                    // Nobody listens any more: requests are refused as their replies are dropped.
                    (Err(_), _) => self.backlog.clear(),
                    (Ok(_), None) => {}
                },
                Ok(()) = self.channels.expelled.changed() => self.on_expelled(),
                _ = ticks.tick() => self.on_tick(Instant::now()),
            }
        }
    }

    async fn close(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that the connection is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Ask(target, ask) => self.on_ask(target, ask),
            Command::Provide(digest) => self.provide(digest),
            Command::Unprovide(digest) => self.unprovide(&digest),
            Command::Find { digest, limit, answer } => self.find(digest, limit, answer),
            Command::Close(_) => unreachable!("the loop ends with it"),
        }
    }

    /// Closes the connections to those who are expelled now, and refuses new ones; others may come again.
    fn on_expelled(&mut self) {
        let expelled = self.channels.expelled.borrow_and_update().clone();
        let peers: HashSet<PeerId> = expelled.into_iter().map(identity::peer_id).collect();
        let list = &mut self.swarm.behaviour_mut().expelled;
        let readmitted: Vec<PeerId> = list.blocked_peers().difference(&peers).copied().collect();
        for peer in readmitted {
            list.unblock_peer(peer);
        }
        for peer in peers {
            list.block_peer(peer);
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.dial_links(now);
        self.links.settle(now);
        self.report_schedulers();
        self.announce(now);
        self.end_finds(now);
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                ..
            } => {
                self.on_established(peer_id, connection_id, &endpoint, num_established.get());
            }
            SwarmEvent::ConnectionClosed {
                connection_id,
                num_established,
                cause,
                ..
            } => {
                let reason = cause.map_or_else(|| "it was closed".into(), |cause| cause.to_string());
                self.on_closed(connection_id, num_established, &reason);
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr, error, ..
            } => {
                let from = to_socket(&send_back_addr).map_or([0, 0, 0, 0].into(), |address| address.ip());
                self.on_refused(from, &error);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.on_dial_failed(connection_id, peer_id, explain::dial_error(&error));
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "the control plane no longer listens");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "cannot accept a connection"),
            SwarmEvent::NewListenAddr { address, .. } => tracing::debug!(%address, "listening"),
            SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::Dialing { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. } => {}
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Messages(event) => self.on_message(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => {
                self.on_identified(connection_id, peer_id, &info);
            }
            BehaviourEvent::Ping(ping::Event {
                result: Ok(_) | Err(ping::Failure::Unsupported),
                ..
            }) => {}
            BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(error),
                peer,
            }) => {
                // A node that is alive answers; the connection may be to one that vanished without a word.
                tracing::debug!(%peer, %error, "closing a connection that does not answer");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Identify(
                identify::Event::Sent { .. } | identify::Event::Pushed { .. } | identify::Event::Error { .. },
            ) => {}
            BehaviourEvent::Limits(never) | BehaviourEvent::Expelled(never) | BehaviourEvent::Hold(never) => {
                match never {}
            }
        }
    }

    fn on_established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint, count: u32) {
        let (Some(node), Some(remote)) = (identity::node_id(&peer), to_socket(endpoint.get_remote_address())) else {
            self.swarm.close_connection(connection);
            return self.on_dial_failed(connection, None, format!("the key of node {peer} is not Ed25519"));
        };
        let dialled = endpoint.is_dialer();
        self.connections.insert(
            connection,
            Connection {
                node,
                remote,
                dialled,
                link: None,
            },
        );
        if count == 1 {
            self.backlog.push_back(Event::Connected(node, remote));
        }
        self.on_dialled(connection, peer);
        self.find_reached(peer);
    }

    fn on_closed(&mut self, connection: ConnectionId, remaining: u32, reason: &str) {
        let Some(Connection { node, link, .. }) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(link) = link {
            self.on_link_lost(link, reason);
        }
        if remaining == 0 {
            self.backlog.push_back(Event::Disconnected(node));
        }
    }

    fn on_refused(&mut self, from: IpAddr, error: &ListenError) {
        let (words, for_operator) = explain::listen_error(from, error);
        if for_operator && self.quiet.may_speak(from, Instant::now()) {
            if self.rotating {
                tracing::info!("{words} (to be expected while cluster keys rotate)");
            } else {
                tracing::warn!("{words}");
            }
        } else {
            tracing::debug!("{words}");
        }
    }

    /// A node told its addresses: pass them on, and learn how it sees us.
    fn on_identified(&mut self, connection: ConnectionId, peer: PeerId, info: &identify::Info) {
        let Some(Connection { remote, dialled, .. }) = self.connections.get(&connection) else {
            return;
        };
        if info.protocols.contains(&KAD_PROTOCOL)
            && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
        {
            for address in reachable(&info.listen_addrs, remote.ip()) {
                kad.add_address(&peer, to_multiaddr(address));
            }
        }
        let seen = to_socket(&info.observed_addr)
            .map(|address| address.ip())
            .filter(|ip| !ip.is_loopback());
        if let (Some(port), Some(ip), true) = (self.learn_external, seen, *dialled)
            && self.swarm.external_addresses().count() < MAX_EXTERNAL
        {
            self.swarm.add_external_address(to_multiaddr(SocketAddr::new(ip, port)));
        }
    }

    /// Reports which schedulers are there, if that changed.
    fn report_schedulers(&mut self) {
        let now = self.links.schedulers();
        let before = self.channels.schedulers.borrow().clone();
        if now == before {
            return;
        }
        let new = |now: &[NodeId], before: &[NodeId]| -> Vec<NodeId> {
            now.iter().filter(|node| !before.contains(node)).copied().collect()
        };
        let down = new(&before.connected, &now.connected);
        let up = new(&now.connected, &before.connected);
        let settled = new(&now.settled, &before.settled);
        self.backlog.extend(down.into_iter().map(Event::SchedulerDown));
        self.backlog.extend(up.into_iter().map(Event::SchedulerUp));
        self.backlog.extend(settled.into_iter().map(Event::SchedulerSettled));
        self.channels.schedulers.send_replace(now);
    }
}
