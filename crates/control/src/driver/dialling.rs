//! Dialling addresses: for the links that are kept up, and for those who ask at an address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::FutureExt;
use libp2p::identity::PeerId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError};

use super::{Ask, Driver, Resolved};
use crate::address::{resolve, to_multiaddr};
use crate::explain;
use crate::links::Kind;

/// A scheduler that stays away is mentioned once in so many attempts, which is about once a minute.
const MENTION_EVERY: u32 = 12;

/// An attempt to connect to one of several addresses of the same node.
pub(super) struct Dial {
    address: SocketAddr,
    rest: VecDeque<SocketAddr>,
    purpose: Purpose,
    failures: Vec<String>,
}

enum Purpose {
    Link(usize),
    Ask(Vec<Ask>),
}

impl Driver {
    /// Dials the links that are due, their names resolved anew.
    pub(super) fn dial_links(&mut self, now: Instant) {
        let alone = self.connections.is_empty();
        for link in self.links.due(now, alone) {
            let name = self.links.name(link).to_owned();
            self.resolving.push(async move { (link, resolve(&name).await) }.boxed());
        }
    }

    pub(super) fn on_resolved(&mut self, link: usize, addresses: Resolved) {
        match addresses {
            Ok(addresses) => self.dial(addresses.into(), Purpose::Link(link), Vec::new()),
            Err(reason) => self.on_link_lost(link, &reason),
        }
    }

    /// Asks whoever listens at one of the addresses, over a connection that was dialled before if there is one.
    pub(super) fn ask_address(&mut self, addresses: Vec<SocketAddr>, ask: Ask) {
        let connected = self
            .connections
            .values()
            .find(|open| open.dialled && addresses.contains(&open.remote));
        if let Some(connection) = connected {
            let peer = identity::peer_id(connection.node);
            return self.ask_node(peer, ask);
        }
        let dialling = self.dials.values_mut().find_map(|dial| match &mut dial.purpose {
            Purpose::Ask(asks) if addresses.contains(&dial.address) => Some(asks),
            Purpose::Ask(_) | Purpose::Link(_) => None,
        });
        match dialling {
            Some(asks) => asks.push(ask),
            None => self.dial(addresses.into(), Purpose::Ask(vec![ask]), Vec::new()),
        }
    }

    fn dial(&mut self, mut addresses: VecDeque<SocketAddr>, purpose: Purpose, mut failures: Vec<String>) {
        while let Some(address) = addresses.pop_front() {
            let opts = DialOpts::unknown_peer_id().address(to_multiaddr(address)).build();
            let connection = opts.connection_id();
            if matches!(purpose, Purpose::Link(link) if self.links.kind(link) == Kind::Scheduler) {
                self.swarm.behaviour_mut().hold.hold(connection);
            }
            match self.swarm.dial(opts) {
                Ok(()) => {
                    self.dials.insert(
                        connection,
                        Dial {
                            address,
                            rest: addresses,
                            purpose,
                            failures,
                        },
                    );
                    return;
                }
                // libp2p strikes this node's own addresses off.
                Err(DialError::NoAddresses) => failures.push(format!("{address} is this node itself")),
                Err(error) => failures.push(explain::dial_error(&error)),
            }
        }
        let reason = failures.join("; ");
        match purpose {
            Purpose::Link(link) => self.on_link_lost(link, &reason),
            Purpose::Ask(asks) => asks.into_iter().for_each(|ask| ask.waiter.unreachable(reason.clone())),
        }
    }

    /// A connection is there: it may be one that was dialled here.
    pub(super) fn on_dialled(&mut self, connection: ConnectionId, peer: PeerId) {
        let Some(dial) = self.dials.remove(&connection) else {
            return;
        };
        match dial.purpose {
            Purpose::Ask(asks) => asks.into_iter().for_each(|ask| self.ask_node(peer, ask)),
            Purpose::Link(link) => {
                let Some(open) = self.connections.get_mut(&connection) else {
                    return;
                };
                open.link = Some(link);
                let kind = self.links.kind(link);
                tracing::info!(name = self.links.name(link), at = %dial.address, %peer, ?kind, "connected");
                self.links.up(link, open.node, Instant::now());
                self.report_schedulers();
            }
        }
    }

    pub(super) fn on_dial_failed(&mut self, connection: ConnectionId, peer: Option<PeerId>, reason: String) {
        if let Some(mut dial) = self.dials.remove(&connection) {
            dial.failures.push(reason);
            self.dial(dial.rest, dial.purpose, dial.failures);
        } else if let Some(peer) = peer {
            tracing::debug!(%peer, reason, "cannot connect");
            self.find_failed(peer);
            self.asks.note_failure(connection, reason);
        }
    }

    pub(super) fn on_link_lost(&mut self, link: usize, reason: &str) {
        let wait: Duration = self.links.down(link, Instant::now());
        let (name, failures) = (self.links.name(link), self.links.failures(link));
        if self.links.kind(link) == Kind::Scheduler && failures % MENTION_EVERY == 1 {
            tracing::warn!(scheduler = name, reason, "no connection to the scheduler; trying again");
        } else {
            tracing::debug!(name, reason, failures, ?wait, "no connection; trying again");
        }
        self.report_schedulers();
    }
}
