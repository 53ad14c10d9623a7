//! What a node knows of one blob: which pieces it holds, who else holds which, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use piece::{Bitfield, Blob, Digest, Geometry, NodeId, PieceIndex};
use wire::control::{Access, Source};

use super::event::{FetchId, Output};
use super::importing::Importing;
use super::origin::Origin;
use super::spreading::Spread;

/// Sources remembered per blob; the first ones named are as good as any later.
const MAX_SOURCES: usize = 8;

/// One blob, from the moment it is wanted or held until it is neither.
#[derive(Debug)]
pub(super) struct BlobState {
    pub(super) size: Option<u64>,
    pub(super) media_type: Option<String>,
    /// Whether the store has been asked to open it.
    pub(super) opening: bool,
    /// Where clients asked for it.
    pub(super) sources: BTreeSet<Source>,
    /// Set while somebody waits for it.
    pub(super) wanted: Option<Wanted>,
    /// Set once the store has it open.
    pub(super) pieces: Option<Pieces>,
    /// Neighbours that hold or want it.
    pub(super) mates: BTreeMap<NodeId, Mate>,
    /// Set while this node reads it from the registry.
    pub(super) origin: Option<Origin>,
    /// What is to be had in other zones.
    pub(super) importing: Importing,
    /// What was read there and is on its way out.
    pub(super) spread: Spread,
    /// Readers whose midstates count, as last passed on.
    pub(super) readers: Vec<NodeId>,
    /// Runs signed under epochs up to this one are worth nothing.
    pub(super) retracted: u64,
    /// What is here does not prove the blob and is being dropped: nothing is asked for, or served, until that is done.
    pub(super) discarding: bool,
    /// Epoch of the last lease, so that a stale grant or revocation is known as such.
    pub(super) last_epoch: u64,
    /// Who may read it where this node read it, until a report has said so.
    pub(super) access: Option<(Source, Access)>,
}

/// Somebody on this node waits.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Whether a client waits, or only a preheat.
    pub(super) urgent: bool,
    /// When it began to be wanted, or last made progress.
    pub(super) progress: Duration,
    /// The lowest piece that a streaming client has got to.
    pub(super) cursor: Option<PieceIndex>,
    /// When the scheduler was last asked about it.
    pub(super) asked: Duration,
    /// When holders were last looked for without a scheduler.
    pub(super) looked: Option<Duration>,
}

/// The pieces of a blob whose size is known and whose file is open.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) geometry: Geometry,
    pub(super) have: Bitfield,
    /// How many mates hold each piece.
    pub(super) rarity: Vec<u16>,
    /// Requests under way, by piece: more than one in the end game or behind a slow neighbour.
    pub(super) in_flight: BTreeMap<PieceIndex, Vec<FetchId>>,
    /// Neighbours whose bytes for a piece were refused.
    pub(super) refused: BTreeMap<PieceIndex, BTreeSet<NodeId>>,
    /// Smoothed time that one piece takes, over all mates.
    pub(super) piece_time: Option<Duration>,
}

/// One neighbour's part in one blob.
#[derive(Debug)]
pub(super) struct Mate {
    /// What it holds; absent until it has said so (or while our geometry is unknown).
    pub(super) field: Option<Bitfield>,
    /// What it said before our geometry was known.
    pub(super) unread: Option<Option<Vec<u8>>>,
    /// Whether it wants pieces.
    pub(super) wants: bool,
    /// Whether it wants to be asked only for what nobody else has.
    pub(super) spare: bool,
    /// Whether it is in another zone than this node.
    pub(super) far: bool,
    /// That zone's weight for the blob.
    pub(super) zone: u64,
    /// Whether it fetches its share of what only other zones hold.
    pub(super) imports: bool,
    /// Whether it has heard our `Holding`.
    pub(super) told: bool,
    /// Sent wrong bytes of this blob: nothing more is asked of it.
    pub(super) banned: bool,
    /// Refused a request; not asked before this.
    pub(super) not_before: Duration,
    /// Pieces gained since its last `Have`.
    pub(super) news: Vec<PieceIndex>,
    /// When it last got one.
    pub(super) last_have: Duration,
}

impl BlobState {
    pub(super) fn new(size: Option<u64>) -> Self {
        Self {
            size,
            media_type: None,
            opening: false,
            sources: BTreeSet::new(),
            wanted: None,
            pieces: None,
            mates: BTreeMap::new(),
            origin: None,
            importing: Importing::default(),
            spread: Spread::default(),
            readers: Vec::new(),
            retracted: 0,
            discarding: false,
            last_epoch: 0,
            access: None,
        }
    }

    pub(super) fn blob(&self, digest: Digest) -> Option<Blob> {
        self.size.map(|size| Blob { digest, size })
    }

    /// Whose midstates count.
    pub(super) fn trust(&self, digest: Digest) -> Output {
        Output::Trust {
            digest,
            readers: self.readers.clone(),
            after: self.retracted,
        }
    }

    pub(super) fn add_source(&mut self, source: Source) {
        if self.sources.len() < MAX_SOURCES {
            self.sources.insert(source);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.have.is_full())
    }

    /// Whether pieces are missing that somebody here waits for.
    pub(super) fn is_hungry(&self) -> bool {
        self.wanted.is_some() && !self.is_complete()
    }

    /// The mate entry for a node, made if it is new.
    pub(super) fn mate(&mut self, node: NodeId) -> &mut Mate {
        self.mates.entry(node).or_insert_with(Mate::new)
    }

    /// Replaces what a mate holds. False if the bits do not fit the blob.
    pub(super) fn set_field(&mut self, node: NodeId, bits: Option<Vec<u8>>) -> bool {
        let Some(pieces) = &mut self.pieces else {
            self.mate(node).unread = Some(bits);
            return true;
        };
        let field = match &bits {
            None => Bitfield::full(&pieces.geometry),
            Some(bits) => match Bitfield::from_bytes(&pieces.geometry, bits) {
                Ok(field) => field,
                Err(_) => return false,
            },
        };
        let mate = self.mates.entry(node).or_insert_with(Mate::new);
        let old = mate.field.replace(field);
        if let Some(old) = old {
            pieces.count(&old, -1);
        }
        pieces.count(self.mates[&node].field.as_ref().expect("just set"), 1);
        true
    }

    /// Adds pieces to what a mate holds; ranges that do not fit are ignored.
    pub(super) fn add_pieces(&mut self, node: NodeId, ranges: &[(u32, u32)]) {
        let (Some(pieces), Some(mate)) = (&mut self.pieces, self.mates.get_mut(&node)) else {
            return;
        };
        let field = mate.field.get_or_insert_with(|| Bitfield::empty(&pieces.geometry));
        for (first, count) in ranges {
            let end = first.saturating_add(*count).min(pieces.geometry.count());
            for piece in (*first..end).filter_map(|number| pieces.geometry.piece(number)) {
                if field.set(piece) {
                    pieces.rarity[piece.as_usize()] += 1;
                }
            }
        }
    }

    /// Forgets a mate.
    pub(super) fn remove_mate(&mut self, node: &NodeId) {
        let Some(mate) = self.mates.remove(node) else { return };
        if let (Some(pieces), Some(field)) = (&mut self.pieces, mate.field) {
            pieces.count(&field, -1);
        }
    }

    /// A mate said that it does not have a piece after all.
    pub(super) fn lacks(&mut self, node: &NodeId, piece: PieceIndex) {
        let (Some(pieces), Some(mate)) = (&mut self.pieces, self.mates.get_mut(node)) else {
            return;
        };
        if mate.field.as_mut().is_some_and(|field| field.clear(piece)) {
            let holders = &mut pieces.rarity[piece.as_usize()];
            *holders = holders.saturating_sub(1);
        }
    }

    /// The number of leading pieces that this node has and at least one other node holds as well.
    pub(super) fn published(&self) -> u32 {
        let Some(pieces) = &self.pieces else { return 0 };
        pieces
            .rarity
            .iter()
            .take_while(|holders| **holders > 0)
            .count()
            .min(pieces.have.prefix() as usize) as u32
    }

    /// Whether somebody who need not be spared, and is no farther away than who is to be, has a piece.
    pub(super) fn is_common(&self, piece: PieceIndex, far: bool) -> bool {
        self.mates
            .values()
            .any(|mate| !mate.spare && !mate.banned && (far || !mate.far) && mate.has(piece))
    }

    /// Whether somebody has a piece that this node has not, or is reading the registry. Neighbours that all have the same part,
    /// because who read the rest is gone, are no help to each other.
    pub(super) fn others_help(&self) -> bool {
        self.mates.values().filter(|mate| !mate.banned).any(|mate| {
            let Some(field) = &mate.field else { return false };
            mate.spare
                || self.pieces.as_ref().map_or(!field.is_empty(), |pieces| {
                    field.beyond(&pieces.have, 0..pieces.geometry.count()).next().is_some()
                })
        })
    }

    /// Whether any neighbour wants pieces.
    pub(super) fn others_want(&self) -> bool {
        self.mates.values().any(|mate| mate.wants)
    }
}

impl Pieces {
    pub(super) fn new(geometry: Geometry, have: Bitfield) -> Self {
        Self {
            geometry,
            have,
            rarity: vec![0; geometry.count() as usize],
            in_flight: BTreeMap::new(),
            refused: BTreeMap::new(),
            piece_time: None,
        }
    }

    /// Pieces that are neither here nor on their way.
    pub(super) fn missing(&self) -> u32 {
        let under_way = self.in_flight.keys().filter(|piece| !self.have.has(**piece)).count() as u32;
        self.geometry.count() - self.have.count() - under_way
    }

    fn count(&mut self, field: &Bitfield, by: i32) {
        for piece in self.geometry.pieces().filter(|piece| field.has(*piece)) {
            let holders = &mut self.rarity[piece.as_usize()];
            *holders = holders.saturating_add_signed(by as i16);
        }
    }
}

impl Mate {
    fn new() -> Self {
        Self {
            field: None,
            unread: None,
            wants: false,
            spare: false,
            far: false,
            zone: 0,
            imports: false,
            told: false,
            banned: false,
            not_before: Duration::ZERO,
            news: Vec::new(),
            last_have: Duration::ZERO,
        }
    }

    /// It is to hear that we have a piece.
    pub(super) fn news(&mut self, piece: PieceIndex) {
        if self.cares(piece) {
            self.news.push(piece);
        }
    }

    /// Forgets pieces that it has got itself since.
    pub(super) fn forget_stale_news(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        news.retain(|piece| self.cares(*piece));
        self.news = news;
    }

    /// Whether it helps it to know that we have a piece: it has not, or is a reader, who counts what others hold.
    fn cares(&self, piece: PieceIndex) -> bool {
        self.spare || !self.has(piece)
    }

    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        self.field.as_ref().is_some_and(|field| field.has(piece))
    }
}
