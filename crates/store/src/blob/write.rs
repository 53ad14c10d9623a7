//! Bytes into a blob. Whoever writes or hashes a piece without a bit holds the only claim on it meanwhile; data goes before
//! its bit, and a bit before the name of the whole.

use std::io;
use std::sync::Arc;

use piece::{MAX_PIECE_LEN, NodeId, PieceIndex, PrefixHasher, Proven};

use super::{BlobFile, Inner, Phase};
use crate::data::Data;
use crate::index::footprint;
use crate::layout::sync_dir;
use crate::side::Record;
use crate::{StoreError, locked};

/// Blobs of at most this size are not synced when they finish: after an unclean stop they are hashed again, which takes
/// milliseconds, where four syncs for each of an artifact's two hundred small files would take seconds.
pub(super) const UNSYNCED: u64 = MAX_PIECE_LEN;

/// What became of a proven piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Whether the piece was not here before.
    pub new: bool,
    /// Whether the blob is complete now: every piece here, under its final name.
    pub complete: bool,
}

/// What became of a staged piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It fits what is known; its end is known now, and its bit is set.
    Good {
        /// Whether the blob is complete now.
        complete: bool,
    },
    /// Its bytes lead to another midstate than the one held: the registry or the voucher is wrong.
    Contradiction {
        /// The boundary at the piece's end.
        boundary: u32,
        /// Who vouched for the midstate held; `None` if it was learnt here.
        voucher: Option<NodeId>,
    },
    /// It is the last piece, and the digest does not come out: the registry lied, or some midstate before is false.
    WrongDigest,
    /// The midstate at its start is not known, so nothing can be said yet.
    StartUnknown,
}

impl BlobFile {
    /// Stores a verified piece. The last one makes the blob complete, which for a large one waits for the disk.
    ///
    /// # Errors
    /// If the piece belongs to another blob, the blob is gone, or the disk refuses.
    pub fn write(&self, proven: Proven<impl AsRef<[u8]>>) -> Result<Written, StoreError> {
        let inner = &*self.0;
        let _writing = inner.shared.enter()?;
        let (piece, blob) = (proven.piece(), inner.slot.blob);
        if *proven.blob() != blob {
            return Err(StoreError::OtherBlob {
                blob,
                proven: *proven.blob(),
            });
        }
        let claim = inner.claim(piece)?;
        let new = claim.is_some();
        if let Some(claim) = claim {
            let offset = inner.geometry.range(piece).start;
            inner.prepare(&claim, inner.geometry.len(piece))?;
            claim
                .data
                .write_chunks(offset, proven.chunks())
                .map_err(inner.refused("write"))?;
            inner.have(claim)?;
        }
        Ok(Written {
            new,
            complete: inner.finish_if_full()?,
        })
    }

    /// Writes bytes from the registry, not verified yet. They count for nothing until [`BlobFile::settle`]; bytes of pieces
    /// that are here already are skipped.
    ///
    /// # Errors
    /// If they reach past the blob's end, the blob is gone, or the disk refuses.
    pub fn stage(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let inner = &*self.0;
        let _writing = inner.shared.enter()?;
        let end = offset.saturating_add(bytes.len() as u64);
        for piece in inner.pieces_in(&(offset..end))? {
            let Some(claim) = inner.claim(piece)? else { continue };
            let whole = inner.geometry.range(piece);
            let part = whole.start.max(offset)..whole.end.min(end);
            let bytes = &bytes[(part.start - offset) as usize..(part.end - offset) as usize];
            inner.prepare(&claim, bytes.len() as u64)?;
            claim.data.write(part.start, bytes).map_err(inner.refused("write"))?;
            inner.state()?.staged.entry(piece).or_default().add(part);
        }
        Ok(())
    }

    /// Hashes a piece from the midstate at its start: one that was staged whole, or one that is here. Learns the midstate at
    /// its end, or checks it against the one held, and sets the bit.
    ///
    /// # Errors
    /// If not all of it was staged since the store was opened, the blob is gone, or the disk refuses.
    pub fn settle(&self, piece: PieceIndex) -> Result<Settled, StoreError> {
        let inner = &*self.0;
        let _writing = inner.shared.enter()?;
        let (digest, number) = (inner.slot.blob.digest, piece.get());
        if !inner.exists(piece) {
            return Err(StoreError::Missing { digest, piece: number });
        }
        let claim = inner.claim(piece)?;
        let range = inner.geometry.range(piece);
        let (start, data) = {
            let state = inner.state()?;
            if claim.is_some() && !state.staged.get(&piece).is_some_and(|staged| staged.holds(&range)) {
                return Err(StoreError::NotStaged { digest, piece: number });
            }
            let Some(start) = state.chain.boundary(number) else {
                return Ok(Settled::StartUnknown);
            };
            (start, Arc::clone(&state.data))
        };
        let bytes = data.piece(piece).map_err(inner.refused("read"))?;
        let hasher = PrefixHasher::resume(start, range.start);
        let refusal = if inner.geometry.is_last(piece) {
            (hasher.last(&bytes) != digest).then_some(Settled::WrongDigest)
        } else {
            inner.learn_end(piece, hasher, &bytes)?
        };
        // A claim may be given up only after the last look at its bytes.
        drop(bytes);
        if let Some(refusal) = refusal {
            inner.state()?.staged.remove(&piece);
            return Ok(refusal);
        }
        if let Some(claim) = claim {
            inner.have(claim)?;
        }
        Ok(Settled::Good {
            complete: inner.finish_if_full()?,
        })
    }

    /// Stores all bytes of the blob, which the caller has hashed. False if some midstate held contradicts them.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<bool, StoreError> {
        if self.is_complete() {
            return Ok(true);
        }
        self.stage(0, bytes)?;
        for piece in self.geometry().pieces() {
            match self.settle(piece)? {
                Settled::Good { .. } => {}
                Settled::Contradiction { .. } | Settled::WrongDigest | Settled::StartUnknown => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// The sole right to touch a piece that has no bit.
pub(super) struct Claim<'a> {
    inner: &'a Inner,
    piece: PieceIndex,
    data: Arc<Data>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        locked(&self.inner.state).claimed.remove(&self.piece);
        self.inner.freed.notify_all();
    }
}

impl Inner {
    /// Claims a piece, or waits until whoever has it is done; `None` if its bit is set.
    fn claim(&self, piece: PieceIndex) -> Result<Option<Claim<'_>>, StoreError> {
        let mut state = self.state()?;
        loop {
            if state.bits.has(piece) {
                return Ok(None);
            }
            if state.phase != Phase::Moving && state.claimed.insert(piece) {
                let data = Arc::clone(&state.data);
                return Ok(Some(Claim {
                    inner: self,
                    piece,
                    data,
                }));
            }
            state = self.wait(state)?;
        }
    }

    /// Reserves the blob's space if that is due; others are evicted for it if need be.
    fn prepare(&self, claim: &Claim<'_>, len: u64) -> Result<(), StoreError> {
        loop {
            match claim.data.prepare(len).map_err(self.refused("reserve space for")) {
                Err(StoreError::DiskFull { .. }) if self.shared.make_room(footprint(&self.slot.blob)) => {}
                other => return other,
            }
        }
    }

    /// Sets the bit of a piece whose bytes are written.
    fn have(&self, claim: Claim<'_>) -> Result<(), StoreError> {
        let mut state = self.state()?;
        self.append(&mut state, &Record::Have(claim.piece.get()))?;
        state.bits.set(claim.piece);
        state.staged.remove(&claim.piece);
        self.note(&state);
        // Giving back the claim takes the lock.
        drop(state);
        drop(claim);
        Ok(())
    }

    /// Learns the midstate at the end of a piece; what speaks against it, if another one is held.
    fn learn_end(
        &self,
        piece: PieceIndex,
        mut hasher: PrefixHasher,
        bytes: &[u8],
    ) -> Result<Option<Settled>, StoreError> {
        let (boundary, end) = (piece.get() + 1, hasher.piece(bytes));
        let mut state = self.state()?;
        let voucher = state.chain.voucher(boundary);
        let held = state.chain.boundary(boundary);
        if held.is_some_and(|held| held != end) {
            return Ok(Some(Settled::Contradiction { boundary, voucher }));
        }
        state
            .chain
            .learn(boundary, end)
            .expect("a piece that is not the last ends at a boundary, and this is its midstate");
        if held.is_none() || voucher.is_some() {
            self.append(
                &mut state,
                &Record::Learnt {
                    first: boundary,
                    midstates: vec![end],
                },
            )?;
        }
        Ok(None)
    }

    /// Finishes a blob that has every bit, or waits for whoever does. Whether it is complete now.
    pub(super) fn finish_if_full(&self) -> Result<bool, StoreError> {
        let mut state = self.state()?;
        let data = loop {
            match state.phase {
                Phase::Finished => return Ok(true),
                Phase::Finishing => state = self.wait(state)?,
                Phase::Gone => return Err(self.gone()),
                Phase::Moving => return Ok(false),
                Phase::Partial if !state.bits.is_full() => return Ok(false),
                Phase::Partial => {
                    state.phase = Phase::Finishing;
                    break Arc::clone(&state.data);
                }
            }
        };
        drop(state);
        let finished = self.finish(&data);
        let mut state = locked(&self.state);
        if state.phase == Phase::Finishing {
            state.phase = if finished.is_ok() {
                Phase::Finished
            } else {
                Phase::Partial
            };
            state.staged.clear();
        }
        self.note(&state);
        self.freed.notify_all();
        finished.map(|()| true)
    }

    /// Makes data and bits last, then gives the blob its name, then makes that last. The caller is the only one here.
    fn finish(&self, data: &Data) -> Result<(), StoreError> {
        let layout = &self.shared.layout;
        let (partial, finished) = (
            layout.partial(&self.slot.blob.digest),
            layout.finished(&self.slot.blob.digest),
        );
        let sync = self.geometry.size() > UNSYNCED;
        if sync {
            data.file.sync_all().map_err(StoreError::io("sync", &partial))?;
            let (side, path) = {
                let state = self.state()?;
                (state.log.duplicate(), state.log.path().to_owned())
            };
            side.and_then(|side| side.sync_all())
                .map_err(StoreError::io("sync", &path))?;
            sync_dir(&layout.side).map_err(StoreError::io("sync", &layout.side))?;
        }
        {
            // Under the lock, so that nobody removes the blob while it changes its name.
            let state = self.state()?;
            if let Err(error) = state.log.trim() {
                tracing::debug!(%error, "a side file keeps more room than it needs");
            }
            match std::fs::rename(&partial, &finished) {
                // An earlier attempt got this far.
                Err(error) if error.kind() == io::ErrorKind::NotFound && finished.exists() => {}
                other => other.map_err(StoreError::io("give its final name to", &partial))?,
            }
        }
        if sync {
            sync_dir(&layout.blobs).map_err(StoreError::io("sync", &layout.blobs))?;
            sync_dir(&layout.partial).map_err(StoreError::io("sync", &layout.partial))?;
        }
        Ok(())
    }
}
