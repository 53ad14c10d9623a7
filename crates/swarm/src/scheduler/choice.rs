//! Which of those who could be named to a node are named.

use std::cmp::Reverse;

use super::slots::NodeKey;

/// Below this many neighbours, nodes are named that have many links already.
const FEWEST: usize = 6;
/// However near the others are, this many are named that are not, if there are any.
const ACROSS: usize = 2;

/// Somebody who could be named.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) node: NodeKey,
    /// 3 on the same host, 2 in the same rack, 1 in the same zone, else 0.
    pub(super) closeness: u8,
    /// Whether it has pieces, or will have before all others.
    pub(super) holds: bool,
    /// Whether it fetches, for the same zone as the asker, what only other zones have: then each must know what the other has.
    pub(super) partner: bool,
    /// Whether it does so for another zone.
    pub(super) outpost: bool,
    /// Whether it is a source of the blob: a reader, or a seed with pieces.
    pub(super) feeds: bool,
    /// Whether it waits itself: then a link to it serves both.
    pub(super) waits: bool,
    /// Whether it has as many links as it should.
    pub(super) full: bool,
    pub(super) degree: u16,
    pub(super) lot: u32,
}

/// The choice as far as it has come.
struct Choice {
    left: Vec<Candidate>,
    chosen: Vec<Candidate>,
    waiting: usize,
}

impl Choice {
    /// Takes those that fit, in order, until so many are chosen, or so many that wait themselves.
    fn take(&mut self, most: usize, most_waiting: usize, fit: impl Fn(&Candidate) -> bool) {
        self.left.retain(|candidate| {
            let room = self.chosen.len() < most && (!candidate.waits || self.waiting < most_waiting);
            let taken = room && fit(candidate);
            if taken {
                self.chosen.push(*candidate);
                self.waiting += usize::from(candidate.waits);
            }
            !taken
        });
    }

    fn count(&self, like: impl Fn(&Candidate) -> bool) -> usize {
        self.chosen.iter().filter(|candidate| like(candidate)).count()
    }
}

/// Picks up to `want` of the candidates. Of those that wait themselves it picks about half as many, for as many again will
/// be sent here once they have come; and at most two thirds from nearby.
pub(super) fn choose(candidates: Vec<Candidate>, want: usize, must_hold: bool) -> Vec<NodeKey> {
    let mut choice = Choice {
        left: candidates,
        chosen: Vec::with_capacity(want),
        waiting: 0,
    };
    let waiting = want / 2 + 1;
    let across = |candidate: &Candidate| candidate.closeness == 0 && !candidate.feeds;
    // Sources with room first, and then the near: nearest first, holders before others, else by lot.
    choice.left.sort_unstable_by_key(|candidate| {
        (
            Reverse((candidate.feeds, candidate.closeness, candidate.holds)),
            candidate.lot,
            candidate.node,
        )
    });
    choice.take(want, want, |candidate| {
        candidate.partner || candidate.feeds && !candidate.full
    });
    let outposts = choice.chosen.len() + want / 4;
    choice.take(outposts, want, |candidate| candidate.outpost && !candidate.full);
    choice.take(want * 2 / 3, waiting * 2 / 3, |candidate| {
        candidate.closeness > 0 && !candidate.full
    });
    // Then those far away, then whoever is left.
    choice
        .left
        .sort_unstable_by_key(|candidate| (!candidate.outpost, !candidate.holds, candidate.lot, candidate.node));
    choice.take(want, waiting, |candidate| across(candidate) && !candidate.full);
    choice.take(want, waiting, |candidate| !candidate.full);
    // Then those with many links, fewest first: for a way to the rest of the swarm, or when there are few altogether.
    choice
        .left
        .sort_unstable_by_key(|candidate| (candidate.feeds, candidate.degree, candidate.lot, candidate.node));
    let more = ACROSS.saturating_sub(choice.count(across)).min(want);
    choice.take(choice.chosen.len() + more, usize::MAX, across);
    choice.take(want.min(FEWEST), usize::MAX, |candidate| !candidate.feeds);
    // And a source that feeds enough already only when nobody else is left, or has anything.
    if must_hold && choice.count(|candidate| candidate.holds) == 0 {
        choice.take(choice.chosen.len() + 1, usize::MAX, |candidate| candidate.holds);
    }
    if choice.chosen.is_empty() {
        choice.take(want.min(1), usize::MAX, |_| true);
    }
    choice.chosen.into_iter().map(|candidate| candidate.node).collect()
}
