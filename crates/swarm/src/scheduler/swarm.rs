//! What a scheduler knows of one blob.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Blob, Digest, NodeId};
use wire::control::{Access, Failure, Repository, Resume, Retraction, Source};

use super::members::Members;
use super::slots::{NodeKey, Slots, SwarmKey};

/// Sources known per blob: as many as a [`super::members::Wait`] has bits for.
const MAX_SOURCES: usize = 8;
/// Former holders of leases remembered per source, so that others have their turn first.
const MAX_TRIED: usize = 16;
/// Readers named per blob, latest last; runs that older ones signed have long been signed anew by those whose chain closed.
pub(super) const MAX_READERS: usize = 16;

/// All swarms.
#[derive(Debug)]
pub(super) struct Swarms {
    slots: Slots<SwarmKey, SwarmState>,
    by_digest: BTreeMap<Digest, SwarmKey>,
}

/// One blob that is held or wanted.
#[derive(Debug)]
pub(super) struct SwarmState {
    pub(super) digest: Digest,
    /// Its size, once somebody who has seen its bytes told.
    pub(super) size: Option<u64>,
    pub(super) media_type: Option<String>,
    pub(super) members: Members,
    pub(super) sources: Sources,
    pub(super) lease: Option<Lease>,
    /// The highest epoch known for this blob.
    pub(super) epoch: u64,
    /// The holders of its leases, latest last.
    pub(super) readers: Vec<NodeId>,
    /// The highest published boundary, and who vouches for its midstate.
    pub(super) published: Option<(Resume, NodeId)>,
    /// The last reading that was taken back, for those who come late.
    pub(super) retracted: Option<Retraction>,
    /// Readers that those who waited could not reach.
    pub(super) unreachable: Vec<NodeId>,
    /// When anybody last got a piece, or began to wait where nobody did.
    pub(super) moved: Duration,
    /// When its timer is set for.
    pub(super) armed: Option<Duration>,
}

/// An origin lease, seen from whoever grants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) holder: NodeKey,
    pub(super) epoch: u64,
    pub(super) source: SourceIndex,
    /// When it is lost, unless its holder reports.
    pub(super) expires: Duration,
    /// Whether the registry has answered its holder.
    pub(super) opened: bool,
    /// What it answered about who may read.
    pub(super) access: Option<Access>,
}

/// The place of a source among those of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceIndex(u8);

/// Where a blob can be read.
#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) source: Source,
    /// Nodes that wait for the blob from here.
    waiting: u32,
    /// Nodes that have not heard whether anybody may read it here.
    pub(super) asking: BTreeSet<NodeKey>,
    /// Whether a seed is being asked that.
    pub(super) probing: bool,
    /// Who has lost or given back a lease for it.
    pub(super) tried: Vec<NodeId>,
    /// How often reading it has failed without getting any further, and how far that was.
    pub(super) failures: (u8, u32),
    /// The last failure, repeated until then.
    pub(super) failed: Option<(Duration, Failure)>,
}

/// The sources of one blob.
#[derive(Debug, Default)]
pub(super) struct Sources([Option<Box<SourceState>>; MAX_SOURCES]);

impl Swarms {
    pub(super) const fn new() -> Self {
        Self {
            slots: Slots::new(),
            by_digest: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn key(&self, digest: &Digest) -> Option<SwarmKey> {
        self.by_digest.get(digest).copied()
    }

    /// The swarm of a blob, made if it is new.
    pub(super) fn enter(&mut self, digest: Digest, now: Duration) -> SwarmKey {
        *self.by_digest.entry(digest).or_insert_with(|| {
            self.slots.insert(SwarmState {
                digest,
                size: None,
                media_type: None,
                members: Members::new(),
                sources: Sources::default(),
                lease: None,
                epoch: 0,
                readers: Vec::new(),
                published: None,
                retracted: None,
                unreachable: Vec::new(),
                moved: now,
                armed: None,
            })
        })
    }

    pub(super) fn remove(&mut self, key: SwarmKey) {
        let swarm = self.slots.remove(key);
        self.by_digest.remove(&swarm.digest);
    }

    /// Those whose digests come after `after`, in order.
    pub(super) fn after(&self, after: Option<Digest>) -> impl Iterator<Item = &SwarmState> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.by_digest.range(range).map(|(_, key)| &self.slots[*key])
    }
}

impl std::ops::Index<SwarmKey> for Swarms {
    type Output = SwarmState;

    fn index(&self, key: SwarmKey) -> &SwarmState {
        &self.slots[key]
    }
}

impl std::ops::IndexMut<SwarmKey> for Swarms {
    fn index_mut(&mut self, key: SwarmKey) -> &mut SwarmState {
        &mut self.slots[key]
    }
}

impl SwarmState {
    pub(super) fn is_held_by(&self, node: NodeKey) -> bool {
        self.lease.is_some_and(|lease| lease.holder == node)
    }

    /// Whether a holding is of the blob as it is known here.
    pub(super) fn agrees(&self, blob: &Blob) -> bool {
        self.size.is_none_or(|size| size == blob.size)
    }

    /// Whether somebody waits and nobody gets anything, although somebody has more to give.
    pub(super) fn is_stuck(&self, now: Duration, after: Duration) -> bool {
        let unpublished = || {
            let lease = self.lease.filter(|lease| lease.opened);
            let held = lease
                .and_then(|lease| self.members.get(lease.holder))
                .map_or(0, |member| member.pieces);
            held > self.published.map_or(0, |(resume, _)| resume.boundary)
        };
        !self.members.waiting.is_empty()
            && now.saturating_sub(self.moved) >= after
            && (self.members.whole() > 0 || unpublished())
    }

    /// Nobody who waits can reach a reader.
    pub(super) fn give_up_on(&mut self, reader: NodeId) {
        remember(&mut self.unreachable, reader);
    }

    /// Adds the newest reader.
    pub(super) fn add_reader(&mut self, reader: NodeId) {
        self.readers.retain(|other| *other != reader);
        if self.readers.len() >= MAX_READERS {
            self.readers.remove(0);
        }
        self.readers.push(reader);
    }
}

impl SourceIndex {
    const fn bit(self) -> u8 {
        1 << self.0
    }
}

impl SourceState {
    pub(super) fn failure(&self, now: Duration) -> Option<&Failure> {
        self.failed
            .as_ref()
            .filter(|(until, _)| now < *until)
            .map(|(_, failure)| failure)
    }

    /// A failure that is about who asked, and not about the content, no longer counts.
    pub(super) fn forget_refusal(&mut self) {
        self.failed.take_if(|(_, failure)| matches!(failure.status, 401 | 403));
    }

    /// A node has lost or given back a lease.
    pub(super) fn try_by(&mut self, node: NodeId) {
        remember(&mut self.tried, node);
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.waiting == 0 && self.asking.is_empty() && !self.probing && self.failure(now).is_none()
    }
}

fn remember(nodes: &mut Vec<NodeId>, node: NodeId) {
    if !nodes.contains(&node) {
        if nodes.len() >= MAX_TRIED {
            nodes.remove(0);
        }
        nodes.push(node);
    }
}

impl Sources {
    /// The place of a source, made if it is new; none if all places are in use.
    pub(super) fn enter(
        &mut self,
        source: &Source,
        reading: Option<SourceIndex>,
        now: Duration,
    ) -> Option<SourceIndex> {
        let same = |place: &Option<Box<SourceState>>| place.as_ref().is_some_and(|known| known.source == *source);
        if let Some(known) = self.0.iter().position(same) {
            return Some(SourceIndex(known as u8));
        }
        let usable = |(place, state): (usize, &Option<Box<SourceState>>)| {
            let idle = state.as_ref().is_none_or(|state| state.is_idle(now));
            (idle && reading.is_none_or(|reading| usize::from(reading.0) != place)).then_some(place)
        };
        let place = self.0.iter().enumerate().find_map(usable)?;
        self.0[place] = Some(Box::new(SourceState {
            source: source.clone(),
            waiting: 0,
            asking: BTreeSet::new(),
            probing: false,
            tried: Vec::new(),
            failures: (0, 0),
            failed: None,
        }));
        Some(SourceIndex(place as u8))
    }

    pub(super) fn get(&self, index: SourceIndex) -> &SourceState {
        self.0[usize::from(index.0)]
            .as_ref()
            .expect("a source that is waited for, asked or leased stays")
    }

    pub(super) fn get_mut(&mut self, index: SourceIndex) -> &mut SourceState {
        self.0[usize::from(index.0)]
            .as_mut()
            .expect("a source that is waited for, asked or leased stays")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SourceIndex, &SourceState)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(place, state)| Some((SourceIndex(place as u8), state.as_deref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SourceState> {
        self.0.iter_mut().filter_map(|state| state.as_deref_mut())
    }

    /// The sources in one repository.
    pub(super) fn of<'a>(&'a self, repository: &'a Repository) -> impl Iterator<Item = SourceIndex> + 'a {
        self.iter()
            .filter(|(_, state)| state.source.repository == *repository)
            .map(|(index, _)| index)
    }

    /// A waiting node names a source, perhaps again.
    pub(super) fn await_from(&mut self, sources: &mut u8, index: SourceIndex) {
        if *sources & index.bit() == 0 {
            *sources |= index.bit();
            self.get_mut(index).waiting += 1;
        }
    }

    /// A node no longer waits for the blob from a source. Returns whether it did.
    pub(super) fn give_up(&mut self, sources: &mut u8, index: SourceIndex) -> bool {
        let did = *sources & index.bit() != 0;
        if did {
            *sources &= !index.bit();
            self.get_mut(index).waiting -= 1;
        }
        did
    }

    /// A node no longer waits for the blob from anywhere.
    pub(super) fn give_up_all(&mut self, mut sources: u8) {
        for place in 0..MAX_SOURCES as u8 {
            self.give_up(&mut sources, SourceIndex(place));
        }
    }

    /// The first source that somebody waits for and that has not just failed.
    pub(super) fn wanted(&self, now: Duration) -> Option<SourceIndex> {
        self.iter()
            .find(|(_, state)| state.waiting > 0 && state.failure(now).is_none())
            .map(|(index, _)| index)
    }

    /// The first source that has not just failed: for those who want the blob and did not say from where.
    pub(super) fn usable(&self, now: Duration) -> Option<SourceIndex> {
        self.iter()
            .find(|(_, state)| state.failure(now).is_none())
            .map(|(index, _)| index)
    }

    /// When the next failure is forgotten.
    pub(super) fn next_expiry(&self, now: Duration) -> Option<Duration> {
        self.iter()
            .filter_map(|(_, state)| state.failed.as_ref())
            .map(|(until, _)| *until)
            .filter(|until| now < *until)
            .min()
    }

    /// Whether nothing would be lost with them.
    pub(super) fn are_idle(&self, now: Duration) -> bool {
        self.iter().all(|(_, state)| state.is_idle(now))
    }
}
