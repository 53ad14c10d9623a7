//! Connections between neighbours, and what they say on them.

use swarm::node::Input;
use wire::exchange::Message;

use crate::hosts::Connection;
use crate::links::{LinkId, MAX_HOPS};
use crate::queue::{Event, Time};
use crate::world::{World, seconds};

/// Half round trips until the node that is dialled takes the connection: QUIC's handshake, then the proof of membership.
const ACCEPTED: Time = 3;
/// And until the dialler does.
const CONNECTED: Time = 4;
/// Seconds after which a dial without an answer is given up.
const DIAL_TIMEOUT: f64 = 5.0;

impl World {
    pub(crate) fn connect(&mut self, from: u32, to: u32) {
        if !self.hosts[to as usize].alive {
            self.tell(from, seconds(DIAL_TIMEOUT), Input::Disconnected { node: self.id(to) });
            return;
        }
        if self.hosts[from as usize].connection_to(to).is_some() {
            // The other end dialled first: both keep its connection.
            return;
        }
        let latency = self.latency(from, to);
        if self.hosts[to as usize].hang_up(from) {
            // It has not noticed yet that the dialler was dead: the new connection takes the old one's place.
            self.tell(to, latency * ACCEPTED, Input::Disconnected { node: self.id(from) });
        }
        let id = self.connections;
        self.connections += 1;
        self.hosts[from as usize].connections.push(Connection { peer: to, id });
        self.hosts[to as usize].connections.push(Connection { peer: from, id });
        self.tell(to, latency * ACCEPTED, Input::Connected { node: self.id(from) });
        self.tell(from, latency * CONNECTED, Input::Connected { node: self.id(to) });
    }

    pub(crate) fn disconnect(&mut self, node: u32, peer: u32) {
        self.hosts[node as usize].hang_up(peer);
        if self.hosts[peer as usize].hang_up(node) {
            let latency = self.latency(node, peer);
            self.tell(peer, latency, Input::Disconnected { node: self.id(node) });
        }
    }

    /// A node is dead: those connected to it notice after a while.
    pub(crate) fn go_silent(&mut self, node: u32) {
        let at = self.now + seconds(self.scenario.network.notice_s);
        for Connection { peer, id } in std::mem::take(&mut self.hosts[node as usize].connections) {
            let event = Event::Notice {
                node: peer,
                connection: id,
            };
            self.queue.push(at, event);
        }
    }

    pub(crate) fn notice(&mut self, node: u32, connection: u32) {
        let connections = &self.hosts[node as usize].connections;
        if let Some(dead) = connections.iter().find(|other| other.id == connection).copied() {
            self.hosts[node as usize].hang_up(dead.peer);
            self.deliver(
                node,
                Input::Disconnected {
                    node: self.id(dead.peer),
                },
            );
        }
    }

    pub(crate) fn send(&mut self, from: u32, to: u32, message: Message) {
        let Some(connection) = self.hosts[from as usize].connection_to(to) else {
            return;
        };
        self.check_claim(from, &message);
        self.tally.neighbour_messages += 1;
        let input = Input::Message {
            from: self.id(from),
            message,
        };
        let slot = self.inputs.insert(input);
        let at = self.now + self.latency(from, to);
        let node = to;
        self.queue.push(at, Event::Message { node, connection, slot });
    }
}

impl World {
    /// The links between two nodes; returns how many.
    pub(crate) fn route(&self, from: u32, to: u32, hops: &mut [LinkId; MAX_HOPS]) -> usize {
        let (from, to) = (&self.hosts[from as usize], &self.hosts[to as usize]);
        self.route_between((from.up, from.zone), (to.down, to.zone), hops)
    }

    /// The links from the registry, which stands in zone 0, to a node.
    pub(crate) fn route_from_registry(&self, to: u32, hops: &mut [LinkId; MAX_HOPS]) -> usize {
        let to = &self.hosts[to as usize];
        self.route_between((self.registry, 0), (to.down, to.zone), hops)
    }

    fn route_between(&self, from: (LinkId, u32), to: (LinkId, u32), hops: &mut [LinkId; MAX_HOPS]) -> usize {
        hops[0] = from.0;
        let mut count = 1;
        if from.1 != to.1
            && let (Some((out, _)), Some((_, into))) = (self.zones.get(from.1 as usize), self.zones.get(to.1 as usize))
        {
            hops[1] = *out;
            hops[2] = *into;
            count = 3;
        }
        hops[count] = to.0;
        count + 1
    }
}
