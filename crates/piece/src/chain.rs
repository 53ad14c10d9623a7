//! The midstates known of one blob, and the signed runs that vouch for them.
//!
//! A boundary's midstate is *learnt* (computed here from the registry's bytes) or *vouched* (told under a signature). The
//! first one held stays: a later, different one is an error that names both sides, and who is right shows when the chain
//! closes or fails to. Three rules make the blame safe:
//! - a reader signs only what it learnt. So the lowest false boundary of a chain bears the signature of a liar: an honest
//!   reader that took over after a false boundary signs only ones that lie higher.
//! - whoever has closed the chain may sign all of it, because all of it is proven.
//! - after a failure only the learnt prefix is kept; what was learnt beyond a vouched boundary rests on that one's word.

use std::collections::BTreeMap;
use std::ops::Range;

use ed25519_dalek::SigningKey;

use crate::cover::{Cover, extent};
use crate::verify::LinkEnd;
use crate::{Blob, Link, MAX_RUN, Midstate, MidstateRun, NodeId, PieceIndex, RunError, SignedRun, Standing};

/// The midstates known of one blob. Boundary 0 is [`Midstate::START`], 1 to count - 1 are kept here, and the end of the
/// chain is the digest.
#[derive(Debug, Clone)]
pub struct Chain {
    blob: Blob,
    /// Boundary *n* at index *n* - 1.
    inner: Vec<Option<Known>>,
    /// Whoever vouched first for some boundary; [`Source::Vouched`] points into it.
    vouchers: Vec<NodeId>,
    /// Boundaries 0 to `prefix` are known.
    prefix: u32,
    /// Accepted runs.
    runs: Cover,
    /// What was signed here last, by group of [`MAX_RUN`] boundaries.
    signed: BTreeMap<u32, SignedRun>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    midstate: Midstate,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Learnt,
    Vouched(u32),
}

/// Why the chain refuses a run or a midstate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The run itself is wrong: whoever sent it should have checked.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run belongs to another blob.
    #[error("the run belongs to another blob")]
    OtherBlob,
    /// A signer says otherwise than what is held; one of the two is false.
    #[error("{told_by} signed another midstate at boundary {boundary} than the one held ({})", held(.held_from))]
    Contradiction {
        /// The first boundary at which they differ.
        boundary: u32,
        /// Who vouched for the midstate held; `None` if it was learnt here.
        held_from: Option<NodeId>,
        /// Who signed the other one.
        told_by: NodeId,
    },
    /// What was computed here differs from what is held.
    #[error("the midstate computed at boundary {boundary} is not the one held ({})", held(.held_from))]
    Refuted {
        /// The boundary.
        boundary: u32,
        /// Who vouched for the midstate held; `None` if it was learnt here, or is the start.
        held_from: Option<NodeId>,
    },
    /// The blob has no such boundary that would carry a midstate.
    #[error("the blob has no midstate at boundary {boundary}")]
    NoBoundary {
        /// The boundary asked for.
        boundary: u32,
    },
}

fn held(from: &Option<NodeId>) -> String {
    from.map_or_else(|| "computed here".to_owned(), |node| format!("signed by {node}"))
}

impl Chain {
    /// The chain of a blob of which only the start and the digest are known.
    pub fn new(blob: Blob) -> Self {
        let inner = vec![None; blob.geometry().count().saturating_sub(1) as usize];
        Self {
            blob,
            inner,
            vouchers: Vec::new(),
            prefix: 0,
            runs: Cover::default(),
            signed: BTreeMap::new(),
        }
    }

    /// The blob.
    pub const fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The midstate at a boundary, if known. The end of the blob has none: it is the digest.
    pub fn boundary(&self, n: u32) -> Option<Midstate> {
        if n == 0 {
            Some(Midstate::START)
        } else {
            self.known(n).map(|known| known.midstate)
        }
    }

    /// What proves a piece, if both its ends are known.
    pub fn link(&self, piece: PieceIndex) -> Option<Link> {
        let start = self.boundary(piece.get())?;
        let end = if self.blob.geometry().is_last(piece) {
            LinkEnd::Digest
        } else {
            LinkEnd::Midstate(self.boundary(piece.get() + 1)?)
        };
        Some(Link::new(self.blob, piece, start, end))
    }

    /// The highest *n* such that boundaries 0 to *n* are known.
    pub const fn known_prefix(&self) -> u32 {
        self.prefix
    }

    /// Who vouched first for a boundary; `None` if it was learnt here or is not known.
    pub fn voucher(&self, boundary: u32) -> Option<NodeId> {
        self.known(boundary).and_then(|known| self.name(known.source))
    }

    /// Takes a run whose signer the caller trusts to speak about this blob. `Ok(true)` if a boundary was unknown until now.
    /// The first midstate accepted wins, and a run that is refused changes nothing. A run that repeats what is held anyway is
    /// not even checked: neighbours relay the same ones again and again.
    ///
    /// # Errors
    /// If the run is out of bounds, wrongly signed, about another blob, or contradicts what is held.
    pub fn accept(&mut self, run: SignedRun) -> Result<bool, ChainError> {
        if run.run().blob != self.blob {
            return Err(ChainError::OtherBlob);
        }
        run.check_bounds()?;
        let refuted = self.refutes(&run);
        if refuted.is_none() && self.has_no_use_for(&run) {
            return Ok(false);
        }
        let MidstateRun { first, midstates, .. } = run.check()?;
        if let Some(boundary) = refuted {
            let held_from = self.voucher(boundary);
            return Err(ChainError::Contradiction {
                boundary,
                held_from,
                told_by: run.signer(),
            });
        }
        let unknown: Vec<_> = (*first..)
            .zip(midstates)
            .filter(|(n, _)| self.known(*n).is_none())
            .collect();
        let new = !unknown.is_empty();
        if new {
            let source = self.vouched_by(run.signer());
            unknown
                .into_iter()
                .for_each(|(n, midstate)| self.set(n, *midstate, source));
        }
        self.runs.add(run);
        Ok(new)
    }

    /// Takes a midstate computed here from the registry's bytes, or proven by a chain that closed. It overrules nothing. One
    /// that was vouched for before counts as learnt from now on. `Ok(true)` if the boundary was unknown until now.
    ///
    /// # Errors
    /// If the blob has no such boundary or another midstate is held there.
    pub fn learn(&mut self, boundary: u32, midstate: Midstate) -> Result<bool, ChainError> {
        if boundary as usize > self.inner.len() {
            return Err(ChainError::NoBoundary { boundary });
        }
        let held = self.boundary(boundary);
        if held.is_some_and(|held| held != midstate) {
            return Err(ChainError::Refuted {
                boundary,
                held_from: self.voucher(boundary),
            });
        }
        if boundary > 0 {
            self.set(boundary, midstate, Source::Learnt);
        }
        Ok(held.is_none())
    }

    /// Signed runs at hand that hold the boundaries at both ends of a piece, for relaying: kept ones, else what was signed
    /// here. One or two, usually; fewer where a boundary is unknown, or was learnt here and never signed.
    pub fn runs_for(&self, piece: PieceIndex) -> Vec<SignedRun> {
        let mut found: Vec<SignedRun> = Vec::with_capacity(2);
        for boundary in self.ends(piece) {
            if !found.iter().any(|run| extent(run).contains(&boundary)) {
                let own = || {
                    self.signed
                        .get(&group(boundary))
                        .filter(|run| extent(run).contains(&boundary))
                };
                found.extend(self.runs.holding(boundary).or_else(own).cloned());
            }
        }
        found
    }

    /// Signs what is known around both ends of a piece, at most one run for each aligned group of [`MAX_RUN`] boundaries. A
    /// reader signs only what it learnt; a node whose chain has closed signs all. What was signed before to the same extent
    /// is not signed again.
    pub fn sign_for(&mut self, piece: PieceIndex, key: &SigningKey, standing: Standing) -> Vec<SignedRun> {
        let mut signed: Vec<SignedRun> = Vec::with_capacity(2);
        for boundary in self.ends(piece) {
            if signed.iter().any(|run| extent(run).contains(&boundary)) {
                continue;
            }
            let around = self.signable_around(boundary, standing);
            if !around.is_empty() {
                signed.push(self.sign(around, key, standing));
            }
        }
        signed
    }

    /// The kept runs, in order, to persist.
    pub fn runs(&self) -> impl Iterator<Item = &SignedRun> {
        self.runs.iter()
    }

    /// Forgets what rests on anybody's word, after a chain failed to close: only the prefix that was learnt here stays.
    /// Returns the dropped runs; when the true midstates are known, [`Chain::refutes`] shows which of them were false.
    pub fn forget_vouched(&mut self) -> Vec<SignedRun> {
        let learnt = |known: &Option<Known>| known.is_some_and(|known| known.source == Source::Learnt);
        let keep = self.inner.iter().take_while(|known| learnt(known)).count();
        self.inner[keep..].fill(None);
        self.prefix = keep as u32;
        self.vouchers.clear();
        self.signed.clear();
        self.runs.take()
    }

    /// The first boundary at which a run says otherwise than what is held. Of several refuted runs, the one refuted at the
    /// lowest boundary was signed by a liar; others may follow from it in good faith.
    pub fn refutes(&self, run: &SignedRun) -> Option<u32> {
        let MidstateRun {
            blob, first, midstates, ..
        } = run.run();
        if *blob != self.blob {
            return None;
        }
        let mut told = (*first..=u32::MAX).zip(midstates);
        told.find_map(|(n, midstate)| self.boundary(n).is_some_and(|held| held != *midstate).then_some(n))
    }

    fn known(&self, boundary: u32) -> Option<Known> {
        *self.inner.get(boundary.checked_sub(1)? as usize)?
    }

    fn name(&self, source: Source) -> Option<NodeId> {
        match source {
            Source::Learnt => None,
            Source::Vouched(index) => Some(self.vouchers[index as usize]),
        }
    }

    /// Whether a run that agrees with all that is held adds neither a midstate nor a signature that somebody might want.
    fn has_no_use_for(&self, run: &SignedRun) -> bool {
        let told = extent(run);
        let kept = self
            .runs
            .holding(told.start)
            .is_some_and(|kept| extent(kept).end >= told.end);
        let learnt = |n| self.known(n).is_some_and(|known| known.source == Source::Learnt);
        kept || told.into_iter().all(learnt)
    }

    fn vouched_by(&mut self, signer: NodeId) -> Source {
        let index = self
            .vouchers
            .iter()
            .position(|node| *node == signer)
            .unwrap_or_else(|| {
                self.vouchers.push(signer);
                self.vouchers.len() - 1
            });
        Source::Vouched(index as u32)
    }

    fn set(&mut self, boundary: u32, midstate: Midstate, source: Source) {
        self.inner[boundary as usize - 1] = Some(Known { midstate, source });
        while self.known(self.prefix + 1).is_some() {
            self.prefix += 1;
        }
    }

    /// The boundaries at the ends of a piece that carry midstates: neither the start of the blob nor its end.
    fn ends(&self, piece: PieceIndex) -> impl Iterator<Item = u32> + use<> {
        let last = self.inner.len() as u32;
        [piece.get(), piece.get() + 1]
            .into_iter()
            .filter(move |n| (1..=last).contains(n))
    }

    /// The boundaries around one, within its group, that a signer of this standing can vouch for.
    fn signable_around(&self, boundary: u32, standing: Standing) -> Range<u32> {
        let signable = |n: &u32| {
            self.known(*n).is_some_and(|known| match standing {
                Standing::Reader { .. } => known.source == Source::Learnt,
                Standing::Closed => true,
            })
        };
        let group = group(boundary);
        let below = (group * MAX_RUN as u32..boundary).rev().take_while(signable).count() as u32;
        let from = (boundary..(group + 1) * MAX_RUN as u32).take_while(signable).count() as u32;
        if from == 0 {
            boundary..boundary
        } else {
            boundary - below..boundary + from
        }
    }

    fn sign(&mut self, around: Range<u32>, key: &SigningKey, standing: Standing) -> SignedRun {
        let group = group(around.start);
        let signer = NodeId::from_bytes(key.verifying_key().to_bytes());
        if let Some(run) = self.signed.get(&group)
            && extent(run) == around
            && run.signer() == signer
            && run.run().standing == standing
        {
            return run.clone();
        }
        let first = around.start;
        let midstates = around.filter_map(|n| self.boundary(n)).collect();
        let run = MidstateRun {
            blob: self.blob,
            first,
            midstates,
            standing,
        };
        let run = SignedRun::sign(run, key).expect("a group's known boundaries lie inside the blob");
        self.signed.insert(group, run.clone());
        run
    }
}

const fn group(boundary: u32) -> u32 {
    boundary / MAX_RUN as u32
}

#[cfg(test)]
mod tests;
