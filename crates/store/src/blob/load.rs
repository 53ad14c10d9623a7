//! Opening a blob, and proving what cannot be taken on trust.
//!
//! What a side file claims is trusted if it names the current epoch: then every bit was set after its data, by a process
//! whose page cache is still there or that synced it all. It is proven anew if the last session ended badly since, or the
//! side file is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};

use piece::{Bitfield, Blob, Chain, Digest, Geometry, PrefixHasher};

use super::{Inner, Phase, State};
use crate::data::Data;
use crate::index::{Meta, Slot};
use crate::shared::Shared;
use crate::side::{Side, snapshot};
use crate::side_log::SideLog;
use crate::{StoreError, locked};

/// Begins a blob: data first, then the side file, without which the data is swept up.
pub(crate) fn create(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Result<Arc<Inner>, StoreError> {
    let (digest, geometry) = (slot.blob.digest, slot.blob.geometry());
    if geometry.is_empty() && digest != Digest::EMPTY {
        return Err(StoreError::WrongContent { digest });
    }
    let path = shared.layout.partial(&digest);
    let data = Data::create(&path, geometry, &shared.promises).map_err(StoreError::io("reserve space for", &path))?;
    let (chain, bits) = (Chain::new(slot.blob), Bitfield::empty(&geometry));
    let meta = locked(&slot.summary).meta.clone();
    let path = shared.layout.side(&digest);
    let start = snapshot(shared.session.epoch, &meta, &chain, &bits);
    let log = SideLog::create(path.clone(), digest, &start).and_then(|log| {
        log.reserve(geometry.count())?;
        Ok(log)
    });
    let log = log.map_err(StoreError::io("write", &path))?;
    let inner = open(
        shared,
        slot,
        Parts {
            phase: Phase::Partial,
            bits,
            chain,
            log,
            data,
        },
    );
    // Only the empty blob is full now.
    inner.finish_if_full()?;
    Ok(inner)
}

/// Opens a blob that has files; `None` if there is nothing to prove or to go on with.
pub(crate) fn load(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Result<Option<Arc<Inner>>, StoreError> {
    let Some(found) = Found::look(shared, slot)? else {
        return Ok(None);
    };
    let trusted = found.is_trusted(shared.session.epoch);
    let parts = if trusted {
        Some(found.trust()?)
    } else {
        found.prove(shared)?
    };
    let Some(parts) = parts else { return Ok(None) };
    let inner = open(shared, slot, parts);
    inner.note(&locked(&inner.state));
    inner.finish_if_full()?;
    Ok(Some(inner))
}

struct Parts {
    phase: Phase,
    bits: Bitfield,
    chain: Chain,
    log: SideLog,
    data: Data,
}

fn open(shared: &Arc<Shared>, slot: &Arc<Slot>, parts: Parts) -> Arc<Inner> {
    let Parts {
        phase,
        bits,
        chain,
        log,
        data,
    } = parts;
    let (claimed, staged) = (BTreeSet::new(), BTreeMap::new());
    Arc::new(Inner {
        shared: Arc::clone(shared),
        slot: Arc::clone(slot),
        geometry: slot.blob.geometry(),
        state: Mutex::new(State {
            phase,
            bits,
            chain,
            log,
            data: Arc::new(data),
            claimed,
            staged,
        }),
        used: AtomicBool::new(false),
        freed: Condvar::new(),
    })
}

/// What lies on disk of one blob.
struct Found {
    digest: Digest,
    geometry: Geometry,
    data: Data,
    data_path: PathBuf,
    side_path: PathBuf,
    finished: bool,
    chain: Chain,
    bits: Bitfield,
    meta: Meta,
    /// The epoch of its claims, and how much of the side file holds; `None` if the side file is damaged.
    intact: Option<(u64, u64)>,
}

impl Found {
    /// Reads what there is; `None` if there is no data of the right length.
    fn look(shared: &Shared, slot: &Slot) -> Result<Option<Self>, StoreError> {
        let (digest, geometry) = (slot.blob.digest, slot.blob.geometry());
        let finished = shared.layout.finished(&digest).exists();
        let data_path = if finished {
            shared.layout.finished(&digest)
        } else {
            shared.layout.partial(&digest)
        };
        let in_progress = (!finished).then_some(&shared.promises);
        let data = match Data::open(&data_path, geometry, in_progress) {
            Ok(Some(data)) => data,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &data_path)(error)),
        };
        let side_path = shared.layout.side(&digest);
        let side = Side::read(&side_path, &digest).map_err(StoreError::io("read", &side_path))?;
        let (chain, bits, meta, intact) = match side.filter(|side| side.blob == slot.blob) {
            Some(mut side) => {
                let (chain, holds) = side.chain();
                (
                    chain,
                    side.bits,
                    side.meta,
                    (side.intact && holds).then_some((side.epoch, side.len)),
                )
            }
            None => (Chain::new(slot.blob), Bitfield::empty(&geometry), Meta::default(), None),
        };
        Ok(Some(Self {
            digest,
            geometry,
            data,
            data_path,
            side_path,
            finished,
            chain,
            bits,
            meta,
            intact,
        }))
    }

    fn is_trusted(&self, epoch: u64) -> bool {
        let Some((of, _)) = self.intact else { return false };
        // Finished but not full: it was being moved back when the process died.
        of == epoch && (!self.finished || self.bits.is_full() && self.knows_all())
    }

    fn knows_all(&self) -> bool {
        self.chain.known_prefix() + 1 >= self.geometry.count()
    }

    fn trust(self) -> Result<Parts, StoreError> {
        let Self {
            digest,
            data,
            side_path,
            finished,
            chain,
            bits,
            intact,
            ..
        } = self;
        let (_, len) = intact.expect("only an intact side file is trusted");
        let log = SideLog::open(side_path.clone(), digest, len).map_err(StoreError::io("open", &side_path))?;
        let phase = if finished { Phase::Finished } else { Phase::Partial };
        Ok(Parts {
            phase,
            bits,
            chain,
            log,
            data,
        })
    }

    /// Keeps what proves itself; `None` if the file was finished and can't be what it was.
    fn prove(mut self, shared: &Shared) -> Result<Option<Parts>, StoreError> {
        tracing::info!(digest = %self.digest, "proving a blob anew after an unclean stop or a damaged side file");
        if self.finished && !self.knows_all() {
            // Without midstates there is one proof: the whole of it.
            let Some(chain) = hash_whole(&self.data, *self.chain.blob()) else {
                return Ok(None);
            };
            self.chain = chain;
            self.bits = Bitfield::full(&self.geometry);
        } else {
            self.bits = self.prove_pieces();
        }
        if self.finished && !self.bits.is_full() {
            // Nobody has a map of it yet, so the bad pieces may be written in place.
            let partial = shared.layout.partial(&self.digest);
            fs::rename(&self.data_path, &partial).map_err(StoreError::io("move back", &self.data_path))?;
            self.finished = false;
        }
        let fresh = snapshot(shared.session.epoch, &self.meta, &self.chain, &self.bits);
        let Self {
            digest,
            data,
            side_path,
            finished,
            chain,
            bits,
            geometry,
            ..
        } = self;
        let log = SideLog::create(side_path.clone(), digest, &fresh).map_err(StoreError::io("write", &side_path))?;
        if !finished && let Err(error) = log.reserve(geometry.count()) {
            tracing::debug!(%digest, %error, "no room is reserved for a side file");
        }
        let phase = if finished { Phase::Finished } else { Phase::Partial };
        Ok(Some(Parts {
            phase,
            bits,
            chain,
            log,
            data,
        }))
    }

    /// The pieces that fit their links, claimed or not: a process that was killed may have written one without its bit.
    fn prove_pieces(&self) -> Bitfield {
        let worth = |piece| self.bits.has(piece) || self.data.was_written(piece);
        let links: Vec<_> = self
            .geometry
            .pieces()
            .filter(|piece| worth(*piece))
            .filter_map(|piece| self.chain.link(piece))
            .collect();
        let mut good = Bitfield::empty(&self.geometry);
        self.data.verify(&links, |piece, holds| {
            if holds {
                good.set(piece);
            }
        });
        good
    }
}

/// The chain of a file that has the digest; `None` if it has not, or cannot be read.
fn hash_whole(data: &Data, blob: Blob) -> Option<Chain> {
    let (mut chain, mut hasher) = (Chain::new(blob), PrefixHasher::new());
    let geometry = blob.geometry();
    for piece in geometry.pieces() {
        let bytes = data.piece(piece).ok()?;
        if geometry.is_last(piece) {
            return (hasher.last(&bytes) == blob.digest).then_some(chain);
        }
        let end = hasher.piece(&bytes);
        chain
            .learn(piece.get() + 1, end)
            .expect("a fresh chain contradicts nothing");
    }
    (blob.digest == Digest::EMPTY).then_some(chain)
}
