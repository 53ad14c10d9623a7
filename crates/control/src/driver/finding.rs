//! Kademlia: telling others which blobs this node holds, and finding nodes that hold one.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use libp2p::identity::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, GetProvidersOk, ProviderRecord, QueryId, QueryResult, RecordKey};
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use piece::{Digest, NodeId};
use tokio::sync::oneshot;

use super::Driver;
use crate::explain;

/// The most nodes that one search considers, whatever others claim.
const MAX_CANDIDATES: usize = 256;

/// A search for nodes that hold a blob.
pub(super) struct Find {
    limit: usize,
    until: Instant,
    answer: oneshot::Sender<Vec<NodeId>>,
    seen: HashSet<PeerId>,
    candidates: VecDeque<PeerId>,
    dialling: HashSet<PeerId>,
    reached: Vec<PeerId>,
    /// Every node that should know has been asked.
    asked_all: bool,
}

impl Find {
    fn is_over(&self) -> bool {
        self.reached.len() >= self.limit
            || self.answer.is_closed()
            || (self.asked_all && self.candidates.is_empty() && self.dialling.is_empty())
    }
}

impl Driver {
    pub(super) fn provide(&mut self, digest: Digest) {
        let local = self.local;
        let Some(records) = self.swarm.behaviour_mut().records() else {
            return;
        };
        if !self.announcer.add(digest) {
            return;
        }
        // Whoever asks this node learns it at once; others when it is announced.
        if let Err(error) = records.add_provider(ProviderRecord::new(key(&digest), local, Vec::new())) {
            tracing::warn!(%digest, %error, "this node does not say that it holds a blob");
        }
    }

    pub(super) fn unprovide(&mut self, digest: &Digest) {
        let local = self.local;
        if self.announcer.remove(digest)
            && let Some(records) = self.swarm.behaviour_mut().records()
        {
            records.remove_provider(&key(digest), &local);
        }
    }

    /// Announces one blob, if one is due.
    pub(super) fn announce(&mut self, now: Instant) {
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else {
            return;
        };
        let Some(digest) = self.announcer.next(now) else { return };
        match kad.start_providing(key(&digest)) {
            Ok(query) => {
                self.announcing.insert(query, digest);
            }
            Err(error) => {
                tracing::debug!(%digest, %error, "a blob was not announced");
                self.announcer.finished();
            }
        }
    }

    pub(super) fn find(&mut self, digest: Digest, limit: usize, answer: oneshot::Sender<Vec<NodeId>>) {
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else {
            // The asker may have given up.
            let _ = answer.send(Vec::new());
            return;
        };
        let query = kad.get_providers(key(&digest));
        let find = Find {
            limit,
            until: Instant::now() + self.find_timeout,
            answer,
            seen: HashSet::from([self.local]),
            candidates: VecDeque::new(),
            dialling: HashSet::new(),
            reached: Vec::new(),
            asked_all: false,
        };
        self.finds.insert(query, find);
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.announcer.node_known(Instant::now()),
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) = &result {
                    self.found(id, providers);
                }
                if step.last {
                    self.query_over(id);
                }
            }
            kad::Event::RoutingUpdated { .. }
            | kad::Event::InboundRequest { .. }
            | kad::Event::UnroutablePeer { .. }
            | kad::Event::RoutablePeer { .. }
            | kad::Event::PendingRoutablePeer { .. }
            | kad::Event::ModeChanged { .. } => {}
        }
    }

    fn found(&mut self, id: QueryId, providers: &HashSet<PeerId>) {
        let Some(find) = self.finds.get_mut(&id) else { return };
        for provider in providers {
            if find.seen.len() < MAX_CANDIDATES && find.seen.insert(*provider) {
                find.candidates.push_back(*provider);
            }
        }
        self.advance(id);
    }

    fn query_over(&mut self, id: QueryId) {
        if self.announcing.remove(&id).is_some() {
            self.announcer.finished();
        } else if let Some(find) = self.finds.get_mut(&id) {
            find.asked_all = true;
            self.advance(id);
        }
    }

    /// Dials as many candidates as are wanted: now, while the query still knows their addresses.
    fn advance(&mut self, id: QueryId) {
        let Some(find) = self.finds.get_mut(&id) else { return };
        while find.reached.len() + find.dialling.len() < find.limit {
            let Some(peer) = find.candidates.pop_front() else { break };
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            if self.swarm.is_connected(&peer) {
                find.reached.push(peer);
                continue;
            }
            match self.swarm.dial(dial) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {
                    find.dialling.insert(peer);
                }
                Err(error) => {
                    tracing::debug!(%peer, reason = explain::dial_error(&error), "cannot connect to a provider");
                }
            }
        }
        if find.is_over() {
            self.end_find(id);
        }
    }

    /// A node is connected that a search may wait for.
    pub(super) fn find_reached(&mut self, peer: PeerId) {
        self.find_settled(peer, true);
    }

    /// A node cannot be connected to that a search may wait for.
    pub(super) fn find_failed(&mut self, peer: PeerId) {
        self.find_settled(peer, false);
    }

    fn find_settled(&mut self, peer: PeerId, reached: bool) {
        let waiting: Vec<QueryId> = self
            .finds
            .iter_mut()
            .filter_map(|(id, find)| find.dialling.remove(&peer).then_some(*id))
            .collect();
        for id in waiting {
            if let Some(find) = self.finds.get_mut(&id).filter(|_| reached) {
                find.reached.push(peer);
            }
            self.advance(id);
        }
    }

    /// Ends the searches whose time is over, with what they have.
    pub(super) fn end_finds(&mut self, now: Instant) {
        let late: Vec<QueryId> = self
            .finds
            .iter()
            .filter(|(_, find)| find.until <= now || find.answer.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.end_find(id);
        }
    }

    fn end_find(&mut self, id: QueryId) {
        let Some(find) = self.finds.remove(&id) else { return };
        let query = self
            .swarm
            .behaviour_mut()
            .kad
            .as_mut()
            .and_then(|kad| kad.query_mut(&id));
        if let Some(mut query) = query {
            query.finish();
        }
        // The asker may have given up.
        let _ = find
            .answer
            .send(find.reached.iter().filter_map(identity::node_id).collect());
    }
}

fn key(digest: &Digest) -> RecordKey {
    RecordKey::new(digest.as_bytes())
}
