//! Who is named to whom.
//!
//! Candidates are drawn, so naming costs the same in a swarm of ten thousand as in one of a hundred. Whoever waits gets
//! [`Config::neighbours`](super::Config::neighbours), at most two thirds of them near (same host, rack or zone) where others may be named, so that
//! there are always links across; holders first; nobody with more links than [`Config::most_neighbours`](super::Config::most_neighbours) while others will do. Seeds and the reader are named to few at a time, and always to
//! some. Where nodes have zones, only a few of each zone, its importers, are named nodes of other zones, and whoever would be
//! alone or has stalled. A node that is named to another is not told: it learns of it by the connection.

use std::collections::BTreeSet;
use std::time::Duration;

use piece::NodeId;
use rand::Rng as _;
use wire::control::{MAX_NEIGHBOURS, Role};

use super::Scheduler;
use super::choice::{Candidate, choose};
use super::slots::{NodeKey, SwarmKey};

/// Draws from those who hold pieces, those who hold none, and those near on each level.
const HOLDERS: usize = 24;
const EMPTY: usize = 16;
const NEAR: usize = 8;

impl Scheduler {
    /// Names neighbours to a node that waits. `anew` when those it was named have not sufficed: then at least one that
    /// holds pieces is among them, if there is any.
    pub(super) fn introduce(&mut self, now: Duration, swarm: SwarmKey, node: NodeKey, anew: bool) {
        let members = &mut self.swarms[swarm].members;
        if members.wait(node).is_none() {
            return;
        }
        members.prune(node);
        let linked = if anew {
            0
        } else {
            members.get(node).map_or(0, |member| usize::from(member.degree))
        };
        let want = self.config.neighbours.min(MAX_NEIGHBOURS).saturating_sub(linked);
        let imports = self.imports(swarm, node) || anew;
        let candidates = self.candidates(now, swarm, node, imports);
        let mut chosen = choose(candidates, want, anew);
        if chosen.is_empty() && !imports {
            let candidates = self.candidates(now, swarm, node, true);
            chosen = choose(candidates, want, anew);
        }
        if anew && chosen.is_empty() {
            // Everybody has been named and it was not enough: connections fail, and can be tried again.
            self.swarms[swarm].members.forget_named(node);
            let candidates = self.candidates(now, swarm, node, true);
            chosen = choose(candidates, want, anew);
        }
        self.name_to(swarm, node, &chosen);
        if let Some(wait) = self.swarms[swarm].members.wait_mut(node) {
            wait.moved = now;
        }
    }

    /// Names a source to waiting nodes until as many have it as should.
    pub(super) fn feed(&mut self, swarm: SwarmKey, source: NodeKey) {
        let state = &self.swarms[swarm];
        let Some(member) = state.members.get(source) else {
            return;
        };
        let room = self.config.seed_fanout.saturating_sub(member.degree.into());
        if room == 0 || !self.nodes[source].connected {
            return;
        }
        let fed = |node: &NodeKey| {
            state
                .members
                .wait(*node)
                .is_some_and(|wait| wait.named.contains(&source))
        };
        let hungry: BTreeSet<NodeKey> = state
            .members
            .waiting
            .draw(4 * self.config.seed_fanout, &mut self.rng)
            .filter(|node| *node != source && !fed(node))
            .filter(|node| !self.nodes.are_apart(source, *node) || state.members.is_importer(*node))
            .collect();
        for node in hungry.into_iter().take(room) {
            self.name_to(swarm, node, &[source]);
        }
    }

    /// Whether a node is a source of a blob: its reader, or a seed that has some of it.
    pub(super) fn feeds(&self, swarm: SwarmKey, node: NodeKey) -> bool {
        let state = &self.swarms[swarm];
        state.is_held_by(node)
            || (self.nodes[node].role == Role::Seed && state.members.get(node).is_some_and(|member| member.pieces > 0))
    }

    fn name_to(&mut self, swarm: SwarmKey, node: NodeKey, chosen: &[NodeKey]) {
        let state = &mut self.swarms[swarm];
        let told = self.news.tell(self.nodes[node].id, state.digest);
        for other in chosen {
            if told.neighbours.len() < MAX_NEIGHBOURS {
                state.members.name(node, *other);
                told.neighbours.push(self.nodes.neighbour(*other));
            }
        }
    }

    /// Whether a node is one of its zone's importers, or becomes one now.
    fn imports(&mut self, swarm: SwarmKey, node: NodeKey) -> bool {
        let (nodes, most) = (&self.nodes, self.config.importers);
        let Some(zone) = nodes.zone(node) else { return false };
        let members = &mut self.swarms[swarm].members;
        members.imports(node, zone, most, |other| nodes.zone(other) == Some(zone))
    }

    fn candidates(&mut self, now: Duration, swarm: SwarmKey, node: NodeKey, imports: bool) -> Vec<Candidate> {
        let state = &self.swarms[swarm];
        let mut seen = BTreeSet::from([node]);
        seen.extend(
            state
                .members
                .wait(node)
                .into_iter()
                .flat_map(|wait| wait.named.iter().copied()),
        );
        let mut drawn: Vec<NodeKey> = state.lease.iter().map(|lease| lease.holder).collect();
        drawn.extend(state.members.holding.draw(HOLDERS, &mut self.rng));
        drawn.extend(state.members.empty.draw(EMPTY, &mut self.rng));
        for near in self.nodes.around(node) {
            drawn.extend(near.draw(NEAR, &mut self.rng));
        }
        let zone = self.nodes.zone(node).filter(|_| imports);
        let (mut partners, mut outposts) = (Vec::new(), Vec::new());
        if let Some(zone) = zone {
            partners.extend(state.members.importers(zone));
            outposts.extend(state.members.outposts(zone, &mut self.rng));
            drawn.extend(partners.iter().chain(&outposts));
        }
        let asker = self.nodes[node].id;
        let fit = |other: &NodeId| {
            !self.conduct.is_banned(now, other, &state.digest)
                && !self.conduct.is_accused_by(&asker, other, &state.digest)
        };
        let mut candidates = Vec::new();
        for other in drawn {
            let Some(member) = state.members.get(other) else {
                continue;
            };
            let known = &self.nodes[other];
            let linked = state.members.wait(other).is_some_and(|wait| wait.named.contains(&node));
            let apart = self.nodes.are_apart(node, other);
            if !seen.insert(other) || linked || !known.connected || !fit(&known.id) || apart && !imports {
                continue;
            }
            let feeds = self.feeds(swarm, other);
            let most = if feeds {
                self.config.seed_fanout
            } else {
                self.config.most_neighbours
            };
            candidates.push(Candidate {
                node: other,
                closeness: self.nodes.closeness(node, other),
                partner: partners.contains(&other),
                outpost: outposts.contains(&other),
                holds: member.pieces > 0 || state.is_held_by(other),
                feeds,
                waits: state.members.wait(other).is_some(),
                full: usize::from(member.degree) >= most,
                degree: member.degree,
                lot: self.rng.next_u32(),
            });
        }
        candidates
    }
}
