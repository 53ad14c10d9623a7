//! One blob of the store, opened.

mod coverage;
mod hand_out;
mod load;
mod reverify;
mod write;

pub use hand_out::CopyMethod;
pub(crate) use load::{create, load};
pub use write::{Settled, Written};

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use piece::{Bitfield, Blob, Chain, Geometry, Link, Midstate, PieceIndex, SignedRun, Standing};

use crate::data::Data;
use crate::index::Slot;
use crate::shared::Shared;
use crate::side::{Record, snapshot};
use crate::side_log::SideLog;
use crate::{AcceptError, StoreError, locked};
use coverage::Coverage;

/// A blob of the store, whole or in progress, in use (and so never evicted) as long as a handle lives. Clones are the same
/// handle. All methods may block on the disk; none holds up readers of other pieces meanwhile.
#[derive(Debug, Clone)]
pub struct BlobFile(Arc<Inner>);

/// What all handles on a blob share.
#[derive(Debug)]
pub(crate) struct Inner {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    geometry: Geometry,
    state: Mutex<State>,
    /// Whether anybody has it open who uses it, and does not only check it.
    used: AtomicBool,
    /// A claim was given back, finishing or moving has ended, or the blob is gone.
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    bits: Bitfield,
    chain: Chain,
    log: SideLog,
    data: Arc<Data>,
    /// Pieces without a bit that one thread each is writing or hashing just now.
    claimed: BTreeSet<PieceIndex>,
    /// What was staged of pieces that are not settled yet.
    staged: BTreeMap<PieceIndex, Coverage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Partial,
    /// Every bit is set; one thread is making it last and giving it its final name.
    Finishing,
    /// Found bad; one thread is moving the good pieces to a new file.
    Moving,
    Finished,
    Gone,
}

impl BlobFile {
    pub(crate) const fn of(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// The blob.
    pub fn blob(&self) -> Blob {
        self.0.slot.blob
    }

    /// How it is cut into pieces.
    pub fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    /// The verified pieces that are here.
    pub fn bitfield(&self) -> Bitfield {
        locked(&self.0.state).bits.clone()
    }

    /// Whether a verified piece is here.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.0.exists(piece) && locked(&self.0.state).bits.has(piece)
    }

    /// Whether every piece is here and the file has its final name.
    pub fn is_complete(&self) -> bool {
        locked(&self.0.state).phase == Phase::Finished
    }

    /// Media type as the registry gave it, if known.
    pub fn media_type(&self) -> Option<String> {
        locked(&self.0.slot.summary).meta.media_type.clone()
    }

    /// Notes where the blob can be read outside the swarm, in the caller's words. True if that was new: at most
    /// [`crate::MAX_SOURCES`] are kept, of at most [`crate::MAX_SOURCE`] bytes each.
    ///
    /// # Errors
    /// If the blob is gone or the disk refuses.
    pub fn add_source(&self, source: &str) -> Result<bool, StoreError> {
        let _writing = self.0.shared.enter()?;
        let mut state = self.0.state()?;
        let new = locked(&self.0.slot.summary).meta.add_source(source);
        if new {
            self.0.append(&mut state, &Record::Source(source.to_owned()))?;
        }
        Ok(new)
    }

    /// What proves a piece, if both its ends are known.
    pub fn link(&self, piece: PieceIndex) -> Option<Link> {
        let known = self.0.exists(piece);
        known.then(|| locked(&self.0.state).chain.link(piece)).flatten()
    }

    /// The highest boundary up to which all midstates are known.
    pub fn known_prefix(&self) -> u32 {
        locked(&self.0.state).chain.known_prefix()
    }

    /// The midstate at a boundary, if known.
    pub fn boundary(&self, n: u32) -> Option<Midstate> {
        locked(&self.0.state).chain.boundary(n)
    }

    /// Takes midstates from a node that the caller trusts to speak about this blob. `Ok(true)` if one was new.
    ///
    /// # Errors
    /// If the run does not hold or contradicts what is held (see [`Chain::accept`]), or the disk refuses.
    pub fn accept(&self, run: SignedRun) -> Result<bool, AcceptError> {
        let _writing = self.0.shared.enter()?;
        let mut state = self.0.state()?;
        // Neighbours relay the same runs again and again; only one that says something new is worth a copy.
        let (first, count) = (run.run().first, run.run().midstates.len());
        let unheard = (first..=u32::MAX)
            .take(count)
            .any(|n| state.chain.boundary(n).is_none());
        let record = unheard.then(|| Record::Run(run.clone()));
        let new = state.chain.accept(run)?;
        if let (true, Some(record)) = (new, record) {
            self.0.append(&mut state, &record)?;
        }
        Ok(new)
    }

    /// Takes a midstate that was computed from the registry's bytes, or that the scheduler's lease named. `Ok(true)` if it
    /// was new.
    ///
    /// # Errors
    /// If another one is held (see [`Chain::learn`]), or the disk refuses.
    pub fn learn(&self, boundary: u32, midstate: Midstate) -> Result<bool, AcceptError> {
        let _writing = self.0.shared.enter()?;
        let mut state = self.0.state()?;
        let unheard =
            boundary > 0 && (state.chain.boundary(boundary).is_none() || state.chain.voucher(boundary).is_some());
        let new = state.chain.learn(boundary, midstate)?;
        if unheard {
            self.0.append(
                &mut state,
                &Record::Learnt {
                    first: boundary,
                    midstates: vec![midstate],
                },
            )?;
        }
        Ok(new)
    }

    /// The first boundary at which a run says otherwise than what is held (see [`Chain::refutes`]).
    pub fn refutes(&self, run: &SignedRun) -> Option<u32> {
        locked(&self.0.state).chain.refutes(run)
    }

    /// The signed midstates that a receiver of this piece needs. Whole, the blob's are signed by us. While we read the
    /// registry under the lease with epoch `reading`, those that we learnt are, and others' are relayed for the rest.
    pub fn runs_for(&self, piece: PieceIndex, key: &SigningKey, reading: Option<u64>) -> Vec<SignedRun> {
        if !self.0.exists(piece) {
            return Vec::new();
        }
        let mut state = locked(&self.0.state);
        if state.phase == Phase::Finished {
            return state.chain.sign_for(piece, key, Standing::Closed);
        }
        let relayed = state.chain.runs_for(piece);
        let Some(epoch) = reading else { return relayed };
        let mut runs = state.chain.sign_for(piece, key, Standing::Reader { epoch });
        let holds = |run: &SignedRun, boundary: u32| {
            let run = run.run();
            (run.first..run.first + run.midstates.len() as u32).contains(&boundary)
        };
        let missing: Vec<_> = [piece.get(), piece.get() + 1]
            .into_iter()
            .filter(|n| !runs.iter().any(|run| holds(run, *n)))
            .collect();
        runs.extend(relayed.into_iter().filter(|run| missing.iter().any(|n| holds(run, *n))));
        runs
    }

    /// A verified piece, straight from the page cache.
    ///
    /// # Errors
    /// If it is not here, the blob is gone, or the disk cannot read it.
    pub fn read(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        if !self.0.exists(piece) {
            return Err(StoreError::Missing {
                digest: self.blob().digest,
                piece: piece.get(),
            });
        }
        self.read_range(self.0.geometry.range(piece))
    }

    /// Bytes of verified pieces, straight from the page cache. They are brought into memory before this returns, so ask for
    /// a few pieces at a time.
    ///
    /// # Errors
    /// If the range is not inside the blob, a piece of it is not here, the blob is gone, or the disk cannot read it.
    pub fn read_range(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let pieces = self.0.pieces_in(&range)?;
        let data = {
            let state = self.0.state()?;
            if let Some(missing) = pieces.iter().find(|piece| !state.bits.has(**piece)) {
                return Err(StoreError::Missing {
                    digest: self.blob().digest,
                    piece: missing.get(),
                });
            }
            Arc::clone(&state.data)
        };
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        data.bytes(range).map_err(self.0.refused("read"))
    }

    /// Removes the blob from the store: data, bits and midstates. Every handle on it is dead from then on. Returns the runs
    /// that vouched for its midstates, to show later who lied.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn discard(self) -> Result<Vec<SignedRun>, StoreError> {
        let _writing = self.0.shared.enter()?;
        let runs = locked(&self.0.state).chain.runs().cloned().collect();
        self.0.shared.remove(&self.0.slot)?;
        Ok(runs)
    }

    pub(crate) fn add_media_type(&self, media_type: &str) -> Result<(), StoreError> {
        let mut state = self.0.state()?;
        let new = {
            let meta = &mut locked(&self.0.slot.summary).meta;
            meta.media_type.is_none() && meta.set_media_type(media_type)
        };
        if new {
            self.0.append(&mut state, &Record::MediaType(media_type.to_owned()))
        } else {
            Ok(())
        }
    }

    pub(crate) fn set_pinned(&self, pinned: bool) -> Result<(), StoreError> {
        let _writing = self.0.shared.enter()?;
        let mut state = self.0.state()?;
        let before = std::mem::replace(&mut locked(&self.0.slot.summary).meta.pinned, pinned);
        if before == pinned {
            Ok(())
        } else {
            self.0.append(&mut state, &Record::Pinned(pinned))
        }
    }
}

impl Inner {
    /// Notes that somebody uses the blob.
    pub(crate) fn set_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Unlinks the blob's files and makes every handle say so. Nobody gives a file a name meanwhile.
    pub(crate) fn die(&self, unlink: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut state = locked(&self.state);
        unlink()?;
        state.phase = Phase::Gone;
        state.bits = Bitfield::empty(&self.geometry);
        self.freed.notify_all();
        Ok(())
    }

    /// The state, unless the blob is gone.
    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = locked(&self.state);
        if state.phase == Phase::Gone {
            Err(self.gone())
        } else {
            Ok(state)
        }
    }

    /// Waits until something is freed; the blob may be gone then.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>, StoreError> {
        let state = self
            .freed
            .wait(state)
            .expect("no thread panics while it holds this lock");
        if state.phase == Phase::Gone {
            Err(self.gone())
        } else {
            Ok(state)
        }
    }

    fn gone(&self) -> StoreError {
        StoreError::Gone {
            digest: self.slot.blob.digest,
        }
    }

    /// Appends to the side file, and rewrites it when it has become wasteful.
    fn append(&self, state: &mut State, record: &Record) -> Result<(), StoreError> {
        let write = |state: &mut State| -> io::Result<()> {
            state.log.append(record)?;
            if state.log.is_wasteful() {
                state.log.rewrite(&self.snapshot(state))
            } else {
                Ok(())
            }
        };
        write(state).map_err(StoreError::io("write", state.log.path()))
    }

    fn snapshot(&self, state: &State) -> Vec<u8> {
        let meta = locked(&self.slot.summary).meta.clone();
        snapshot(self.shared.session.epoch, &meta, &state.chain, &state.bits)
    }

    /// Brings what the index knows up to date.
    fn note(&self, state: &State) {
        let mut summary = locked(&self.slot.summary);
        summary.pieces = state.bits.count();
        summary.complete = state.phase == Phase::Finished;
    }

    /// Whether a piece number, perhaps another blob's, is one of ours.
    fn exists(&self, piece: PieceIndex) -> bool {
        self.geometry.piece(piece.get()).is_some()
    }

    /// The pieces that a range touches.
    fn pieces_in(&self, range: &Range<u64>) -> Result<Vec<PieceIndex>, StoreError> {
        let Blob { digest, size } = self.slot.blob;
        if range.start > range.end || range.end > size {
            return Err(StoreError::OutOfRange {
                digest,
                size,
                start: range.start,
                end: range.end,
            });
        }
        let len = self.geometry.piece_len();
        let numbers = if range.is_empty() {
            0..0
        } else {
            range.start / len..range.end.div_ceil(len)
        };
        Ok(numbers
            .filter_map(|number| self.geometry.piece(number as u32))
            .collect())
    }

    /// Turns what the system says into an error about the blob's file.
    fn refused(&self, attempt: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |error| {
            let (layout, digest) = (&self.shared.layout, &self.slot.blob.digest);
            let finished = locked(&self.state).phase == Phase::Finished;
            let path = if finished {
                layout.finished(digest)
            } else {
                layout.partial(digest)
            };
            StoreError::io(attempt, &path)(error)
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.used.get_mut() {
            return;
        }
        let now = self.slot.touch();
        let state = self.state.get_mut().expect("no thread panics while it holds this lock");
        if let Err(error) = state.log.touch(now) {
            tracing::debug!(digest = %self.slot.blob.digest, %error, "cannot note when a blob was used");
        }
    }
}
