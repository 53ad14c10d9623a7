//! One node of the world: its machine, its links, and what the world knows of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use piece::Bitfield;
use swarm::node::{FetchId, Input, Node};
use wire::control::{Address, Locality, Neighbour, Role};

use crate::links::LinkId;
use crate::queue::{Time, TransferId};
use crate::reading::Reader;
use crate::scenario::Scenario;
use crate::world::{World, node_id};

/// One node.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) machine: Node,
    pub(crate) role: Role,
    /// Its group among the scenario's peers; absent for seeds.
    pub(crate) group: Option<usize>,
    pub(crate) zone: u32,
    pub(crate) rack: u32,
    pub(crate) up: LinkId,
    pub(crate) down: LinkId,
    pub(crate) alive: bool,
    /// How often it has been started.
    pub(crate) life: u32,
    /// When its machine's time began.
    pub(crate) born: Time,
    /// When it is woken next.
    pub(crate) wake: Time,
    pub(crate) liar: bool,
    pub(crate) streaming: bool,
    /// Verified pieces on its disk, by blob.
    pub(crate) held: Vec<Bitfield>,
    /// Blobs for which it can be found without a scheduler.
    pub(crate) provides: Vec<bool>,
    /// Its requests under way.
    pub(crate) fetching: Vec<(FetchId, TransferId)>,
    /// Requests of others that it has not let go of.
    pub(crate) serving: Vec<TransferId>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) readers: Vec<Reader>,
    /// Nanoseconds to verify a byte.
    pub(crate) verify: f64,
    /// When it has verified all that it has received.
    pub(crate) verified: Time,
    pub(crate) progress: Progress,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) peer: u32,
    pub(crate) id: u32,
}

/// How far a node has got.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) wanted: Option<Time>,
    /// When a quarter of the model was there from its beginning on.
    pub(crate) quarter: Option<Time>,
    pub(crate) done: Option<Time>,
    /// Blobs that it has whole.
    pub(crate) whole: u32,
    /// The first blob and piece that are not there.
    pub(crate) front: (u32, u32),
    /// Pieces that are there, and those before the front.
    pub(crate) pieces: (u32, u32),
    /// The most pieces that were there behind one that was not.
    pub(crate) lag: u32,
}

impl Host {
    pub(crate) fn connection_to(&self, peer: u32) -> Option<u32> {
        let connection = self.connections.iter().find(|connection| connection.peer == peer);
        connection.map(|connection| connection.id)
    }

    pub(crate) fn is_connected_by(&self, id: u32) -> bool {
        self.connections.iter().any(|connection| connection.id == id)
    }

    /// Forgets the connection to a peer; true if there was one.
    pub(crate) fn hang_up(&mut self, peer: u32) -> bool {
        let place = self.connections.iter().position(|connection| connection.peer == peer);
        place.map(|place| self.connections.swap_remove(place)).is_some()
    }
}

impl World {
    pub(crate) fn add_seed(&mut self, scenario: &Scenario) {
        let seeds = &scenario.seeds;
        let (up, down) = (
            self.links.add(seeds.up_gbit * 1e9),
            self.links.add(seeds.down_gbit * 1e9),
        );
        self.add_host(Role::Seed, (up, down), (0, 0));
    }

    /// Adds a peer, the `dealt`th.
    pub(crate) fn add_peer(&mut self, scenario: &Scenario, group: usize, dealt: u32) {
        let peers = &scenario.peers[group];
        let (up, down) = (
            self.links.add(peers.up_gbit * 1e9),
            self.links.add(peers.down_gbit * 1e9),
        );
        let (zones, racks) = (scenario.network.zones, scenario.network.racks);
        self.add_host(Role::Peer, (up, down), (dealt % zones, dealt / zones % racks));
        let blobs = self.blobs.clone();
        let host = self.hosts.last_mut().expect("just added");
        host.group = Some(group);
        host.liar = peers.liars;
        host.streaming = peers.streaming;
        host.verify = 1.0 / peers.verify_gbyte;
        if peers.holds {
            host.held = blobs.iter().map(|blob| Bitfield::full(&blob.geometry())).collect();
        }
    }

    fn add_host(&mut self, role: Role, (up, down): (LinkId, LinkId), (zone, rack): (u32, u32)) {
        let node = u32::try_from(self.hosts.len()).expect("the scenario bounds the nodes");
        self.ids.push(node_id(node));
        let host = Host {
            machine: self.machine(node, role, zone_label(&self.scenario, zone)),
            role,
            group: None,
            zone,
            rack,
            up,
            down,
            alive: true,
            life: 0,
            born: 0,
            wake: Time::MAX,
            liar: false,
            streaming: false,
            held: self
                .blobs
                .iter()
                .map(|blob| Bitfield::empty(&blob.geometry()))
                .collect(),
            provides: vec![false; self.blobs.len()],
            fetching: Vec::new(),
            serving: Vec::new(),
            connections: Vec::new(),
            readers: Vec::new(),
            verify: 0.0,
            verified: 0,
            progress: Progress::default(),
        };
        self.hosts.push(host);
    }

    /// A node as others are told of it.
    pub(crate) fn neighbour(&self, node: u32) -> Neighbour {
        Neighbour {
            node: self.id(node),
            data: Address(address(node)),
            role: self.hosts[node as usize].role,
            locality: self.locality(node),
        }
    }

    pub(crate) fn locality(&self, node: u32) -> Locality {
        let host = &self.hosts[node as usize];
        let network = &self.scenario.network;
        Locality {
            host: Some(format!("host-{node}")),
            rack: (network.racks > 1).then(|| format!("rack-{}-{}", host.zone, host.rack)),
            zone: zone_label(&self.scenario, host.zone),
        }
    }

    /// A piece is verified and on a node's disk.
    pub(crate) fn gain(&mut self, node: u32, blob: u32, piece: piece::PieceIndex) {
        self.tally.gained(self.now, node, blob, piece);
        let host = &mut self.hosts[node as usize];
        if !host.held[blob as usize].set(piece) {
            return;
        }
        let before = host.progress.front;
        let is_next = before == (blob, piece.get());
        while let Some(field) = host.held.get(host.progress.front.0 as usize).filter(|_| is_next) {
            host.progress.pieces.1 += field.prefix() - host.progress.front.1;
            host.progress.front.1 = field.prefix();
            if !field.is_full() {
                break;
            }
            host.progress.front = (host.progress.front.0 + 1, 0);
        }
        let progress = &mut host.progress;
        progress.pieces.0 += 1;
        let (here, in_order) = progress.pieces;
        progress.lag = progress.lag.max(here - in_order);
        if !is_next {
            return;
        }
        let all: u64 = self.blobs.iter().map(|blob| u64::from(blob.geometry().count())).sum();
        if u64::from(in_order) * 4 >= all && progress.wanted.is_some() {
            progress.quarter.get_or_insert(self.now);
        }
        if host.streaming {
            self.stream(node, before.0);
        }
    }

    /// A node's client has got a piece further, and perhaps into another blob.
    fn stream(&mut self, node: u32, before: u32) {
        let (blob, number) = self.hosts[node as usize].progress.front;
        if before != blob {
            let digest = self.blobs[before as usize].digest;
            self.tell(node, 0, Input::Cursor { digest, piece: None });
        }
        if let Some(Some((digest, piece))) = self
            .blobs
            .get(blob as usize)
            .map(|blob| Some((blob.digest, blob.geometry().piece(number)?)))
        {
            let piece = Some(piece);
            self.tell(node, 0, Input::Cursor { digest, piece });
        }
    }
}

/// What a zone is called, where there is more than one.
fn zone_label(scenario: &Scenario, zone: u32) -> Option<String> {
    (scenario.network.zones > 1).then(|| format!("zone-{zone}"))
}

/// Where a node's data plane listens.
pub(crate) fn address(node: u32) -> SocketAddr {
    let [_, a, b, c] = node.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 7654)
}
