//! Who was complained of, by whom, and who is therefore kept from others.
//!
//! One complaint proves nothing, for it may be the liar's. Two nodes that complain independently of the same are believed,
//! and one node is heard about few others only, so that it takes many conspirators to silence a swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Digest, NodeId};
use wire::control::Offence;

/// Independent complaints that are believed.
const BELIEVED: usize = 2;
/// Nodes that one node can complain of.
pub(super) const MAX_ACCUSED: usize = 8;
/// Blobs of one node that complaints are kept about.
const MAX_BLOBS: usize = 64;
/// Nodes that complaints are kept about.
const MAX_RECORDS: usize = 20_000;

/// What became of a complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is remembered.
    Noted,
    /// The accused is kept from this blob's swarm.
    BannedFromBlob,
    /// The accused is kept from all swarms.
    Banned,
}

/// All complaints.
#[derive(Debug)]
pub(super) struct Conduct {
    records: BTreeMap<NodeId, Record>,
    /// When each record was begun or last led to a ban, plus the length of a ban.
    expiries: BTreeSet<(Duration, NodeId)>,
    ban: Duration,
}

#[derive(Debug)]
struct Record {
    blobs: BTreeMap<Digest, Accusers>,
    /// Who says that it forged midstates, of whatever blob.
    forged: Accusers,
    expires: Duration,
}

#[derive(Debug, Default)]
struct Accusers {
    who: Vec<NodeId>,
}

impl Accusers {
    /// Whether this accuser is the one that makes them believed.
    fn convict(&mut self, accuser: NodeId) -> bool {
        if self.who.len() >= BELIEVED || self.who.contains(&accuser) {
            return false;
        }
        self.who.push(accuser);
        self.who.len() == BELIEVED
    }

    fn are_believed(&self) -> bool {
        self.who.len() >= BELIEVED
    }
}

impl Conduct {
    pub(super) const fn new(ban: Duration) -> Self {
        Self {
            records: BTreeMap::new(),
            expiries: BTreeSet::new(),
            ban,
        }
    }

    /// Hears a complaint.
    pub(super) fn accuse(
        &mut self,
        now: Duration,
        accuser: NodeId,
        accused: NodeId,
        digest: Digest,
        offence: Offence,
    ) -> Verdict {
        self.expire(now);
        if !self.records.contains_key(&accused) && self.records.len() >= MAX_RECORDS {
            return Verdict::Noted;
        }
        let expires = now + self.ban;
        let record = self.records.entry(accused).or_insert_with(|| {
            self.expiries.insert((expires, accused));
            Record {
                blobs: BTreeMap::new(),
                forged: Accusers::default(),
                expires,
            }
        });
        let convicted = match offence {
            Offence::ForgedMidstates => record.forged.convict(accuser),
            Offence::WrongBytes if record.blobs.len() < MAX_BLOBS || record.blobs.contains_key(&digest) => {
                record.blobs.entry(digest).or_default().convict(accuser)
            }
            Offence::WrongBytes => false,
        };
        if !convicted {
            return Verdict::Noted;
        }
        self.expiries.remove(&(record.expires, accused));
        record.expires = expires;
        self.expiries.insert((expires, accused));
        match offence {
            Offence::ForgedMidstates => Verdict::Banned,
            Offence::WrongBytes => Verdict::BannedFromBlob,
        }
    }

    /// Whether a node is kept from a blob's swarm.
    pub(super) fn is_banned(&self, now: Duration, node: &NodeId, digest: &Digest) -> bool {
        let Some(record) = self.records.get(node).filter(|record| now < record.expires) else {
            return false;
        };
        record.forged.are_believed() || record.blobs.get(digest).is_some_and(Accusers::are_believed)
    }

    /// Whether a node is kept from all swarms.
    pub(super) fn is_outcast(&self, now: Duration, node: &NodeId) -> bool {
        self.records
            .get(node)
            .is_some_and(|record| now < record.expires && record.forged.are_believed())
    }

    /// Nodes that are kept from all swarms, and until when.
    pub(super) fn outcasts(&self, now: Duration) -> impl Iterator<Item = (NodeId, Duration)> {
        let out = move |record: &Record| now < record.expires && record.forged.are_believed();
        let outcasts = self.records.iter().filter(move |(_, record)| out(record));
        outcasts.map(|(node, record)| (*node, record.expires))
    }

    /// Whether `accuser` would rather not be sent to a node.
    pub(super) fn is_accused_by(&self, accuser: &NodeId, node: &NodeId, digest: &Digest) -> bool {
        self.records.get(node).is_some_and(|record| {
            record.forged.who.contains(accuser)
                || record
                    .blobs
                    .get(digest)
                    .is_some_and(|accusers| accusers.who.contains(accuser))
        })
    }

    /// How many nodes are kept from some swarm.
    pub(super) fn banned(&self, now: Duration) -> usize {
        let believed =
            |record: &&Record| record.forged.are_believed() || record.blobs.values().any(Accusers::are_believed);
        self.records
            .values()
            .filter(|record| now < record.expires)
            .filter(believed)
            .count()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    fn expire(&mut self, now: Duration) {
        while let Some((expires, node)) = self.expiries.first().copied()
            && expires <= now
        {
            self.expiries.pop_first();
            self.records.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAN: Duration = Duration::from_secs(600);

    fn node(number: u32) -> NodeId {
        NodeId::from_bytes(*Digest::of(&number.to_be_bytes()).as_bytes())
    }

    #[test]
    fn two_accusers_ban_from_the_blob_alone() {
        let mut conduct = Conduct::new(BAN);
        let (now, blob, other) = (Duration::ZERO, Digest::EMPTY, Digest::of(b"x"));
        let mut wrong = |accuser, digest| conduct.accuse(now, node(accuser), node(0), digest, Offence::WrongBytes);
        assert_eq!(wrong(1, blob), Verdict::Noted);
        assert_eq!(wrong(1, blob), Verdict::Noted, "the same one again");
        assert_eq!(wrong(2, other), Verdict::Noted, "of another blob");
        assert_eq!(wrong(2, blob), Verdict::BannedFromBlob);
        assert!(conduct.is_banned(now, &node(0), &blob) && !conduct.is_banned(now, &node(0), &other));
        assert!(!conduct.is_outcast(now, &node(0)));
        assert_eq!(conduct.banned(now), 1);
        assert!(
            !conduct.is_banned(BAN, &node(0), &blob),
            "after ten minutes it may try again"
        );
    }

    #[test]
    fn two_accusers_of_forgery_ban_from_everything() {
        let mut conduct = Conduct::new(BAN);
        let now = Duration::ZERO;
        let mut forged = |accuser, text: &[u8]| {
            conduct.accuse(now, node(accuser), node(0), Digest::of(text), Offence::ForgedMidstates)
        };
        assert_eq!(forged(1, b"a"), Verdict::Noted);
        assert_eq!(forged(2, b"b"), Verdict::Banned);
        assert!(conduct.is_outcast(now, &node(0)) && conduct.is_banned(now, &node(0), &Digest::EMPTY));
    }

    #[test]
    fn an_accuser_is_not_sent_back() {
        let mut conduct = Conduct::new(BAN);
        conduct.accuse(Duration::ZERO, node(1), node(0), Digest::EMPTY, Offence::WrongBytes);
        assert!(conduct.is_accused_by(&node(1), &node(0), &Digest::EMPTY));
        assert!(!conduct.is_accused_by(&node(2), &node(0), &Digest::EMPTY));
    }

    #[test]
    fn records_are_bounded_and_expire() {
        let mut conduct = Conduct::new(BAN);
        for number in 0..MAX_RECORDS as u32 + 10 {
            conduct.accuse(
                Duration::ZERO,
                node(1),
                node(number),
                Digest::EMPTY,
                Offence::WrongBytes,
            );
        }
        assert_eq!(conduct.len(), MAX_RECORDS);
        for number in 0..MAX_BLOBS as u32 + 10 {
            conduct.accuse(
                Duration::ZERO,
                node(1),
                node(0),
                Digest::of(&number.to_be_bytes()),
                Offence::WrongBytes,
            );
        }
        assert_eq!(conduct.records[&node(0)].blobs.len(), MAX_BLOBS);
        conduct.accuse(BAN, node(1), node(0), Digest::EMPTY, Offence::WrongBytes);
        assert_eq!(conduct.len(), 1);
    }
}
