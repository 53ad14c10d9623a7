//! Rereading what is here, and taking out what has gone bad on the disk.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use piece::{Link, PieceIndex};

use super::{BlobFile, Inner, Phase};
use crate::data::Data;
use crate::layout::{remove_if_there, unfinished};
use crate::{StoreError, locked};

impl BlobFile {
    /// Reads every piece that is here and verifies it again, telling about each. The bits of those that are bad are cleared,
    /// and a complete blob is in progress again. Returns the bad ones.
    ///
    /// Their bytes may be on the way to somebody, and bytes once handed out don't change, so the good pieces move to a new
    /// file first. If there is no room for that, the blob is removed as a whole.
    ///
    /// # Errors
    /// If the blob is gone or could not be moved.
    pub fn verify_all(&self, on_piece: impl FnMut(PieceIndex, bool)) -> Result<Vec<PieceIndex>, StoreError> {
        self.verify(0..u32::MAX, on_piece)
    }

    /// The same for the pieces with these numbers.
    ///
    /// # Errors
    /// If the blob is gone or could not be moved.
    pub fn verify(
        &self,
        pieces: Range<u32>,
        mut on_piece: impl FnMut(PieceIndex, bool),
    ) -> Result<Vec<PieceIndex>, StoreError> {
        let (data, mut links) = self.0.links()?;
        links.retain(|link| pieces.contains(&link.piece().get()));
        let mut bad = Vec::new();
        data.verify(&links, |piece, good| {
            if !good {
                bad.push(piece);
            }
            on_piece(piece, good);
        });
        if !bad.is_empty() {
            tracing::warn!(digest = %self.blob().digest, pieces = bad.len(), "pieces have gone bad on the disk");
            let _writing = self.0.shared.enter()?;
            self.0.move_without(&bad, &data)?;
        }
        Ok(bad)
    }
}

impl Inner {
    /// What proves each piece that is here.
    fn links(&self) -> Result<(Arc<Data>, Vec<Link>), StoreError> {
        let state = self.state()?;
        let here = self.geometry.pieces().filter(|piece| state.bits.has(*piece));
        let links = here.filter_map(|piece| state.chain.link(piece)).collect();
        Ok((Arc::clone(&state.data), links))
    }

    /// Moves all pieces but the bad ones to a new file, unless another thread has replaced `data` already.
    fn move_without(&self, bad: &[PieceIndex], data: &Arc<Data>) -> Result<(), StoreError> {
        let mut state = self.state()?;
        while matches!(state.phase, Phase::Finishing | Phase::Moving) || !state.claimed.is_empty() {
            state = self.wait(state)?;
        }
        if !Arc::ptr_eq(&state.data, data) {
            return Ok(());
        }
        state.phase = Phase::Moving;
        for piece in bad {
            state.bits.clear(*piece);
        }
        self.note(&state);
        let good: Vec<_> = self.geometry.pieces().filter(|piece| state.bits.has(*piece)).collect();
        drop(state);
        let moved = self.copy(&good, data).and_then(|new| self.put(new));
        if moved.is_err() {
            // The bad pieces cannot stay in the file, and there is no other. What was copied is swept up at the latest.
            self.die(|| Ok(()))?;
            let _ = remove_if_there(&unfinished(&self.shared.layout.partial(&self.slot.blob.digest)));
            self.shared.remove(&self.slot)?;
        }
        moved
    }

    /// A new file with these pieces, not in place yet.
    fn copy(&self, good: &[PieceIndex], from: &Data) -> Result<Data, StoreError> {
        let path = unfinished(&self.shared.layout.partial(&self.slot.blob.digest));
        let copied = Data::create(&path, self.geometry, &self.shared.promises).and_then(|to| {
            to.prepare(self.geometry.size())?;
            for piece in good {
                to.write(self.geometry.range(*piece).start, &from.piece(*piece)?)?;
            }
            Ok(to)
        });
        copied.map_err(StoreError::io("move good pieces to", &path))
    }

    /// Puts the new file in place. Bits first: until the finished file is gone, its side file says that it isn't whole.
    fn put(&self, new: Data) -> Result<(), StoreError> {
        let layout = &self.shared.layout;
        let (partial, finished) = (
            layout.partial(&self.slot.blob.digest),
            layout.finished(&self.slot.blob.digest),
        );
        let new_path = unfinished(&partial);
        let mut state = locked(&self.state);
        if state.phase == Phase::Gone {
            return Err(self.gone());
        }
        let fresh = self.snapshot(&state);
        state
            .log
            .rewrite(&fresh)
            .map_err(StoreError::io("write", state.log.path()))?;
        fs::rename(&new_path, &partial).map_err(StoreError::io("rename", &new_path))?;
        remove_if_there(&finished).map_err(StoreError::io("remove", &finished))?;
        state.data = Arc::new(new);
        state.staged.clear();
        state.phase = Phase::Partial;
        self.freed.notify_all();
        Ok(())
    }
}
