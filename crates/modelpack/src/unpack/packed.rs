//! A packed layer: read whole into `stage/`, proven by the blob's digest and the config's diffId, then put in place.
//!
//! An archive cannot be continued in its middle, so an interrupted one is read again from its beginning; a broken
//! *stream* of it is continued, though, and only if the whole does not come out is it read anew.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use piece::Digest;
use rustix::fs::syncfs;
use tokio::sync::mpsc;

use super::archive::{self, Item, ItemKind, SYNCED_SINGLY, Stop};
use super::claims::{Claim, Claims};
use super::error::UnpackError;
use super::gauge::{Excess, Inflow, MAX_HEADERS, Outflow, Source};
use super::journal::{Key, Output};
use super::plan::PackedJob;
use super::shared::{Shared, blocking};
use super::tree::{Staged, mtime_of};
use super::{ANEW, CHUNKS, How, Patience, Summary, local};
use crate::fetch::pump;
use crate::{Fetch, FetchError, Packing, TreePath};

/// Largest zstd window, 128 MiB: what zstd itself takes without being asked, and all that `--ultra -22` needs.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

pub(super) async fn run<F: Fetch>(
    shared: &Arc<Shared>,
    fetch: &F,
    patience: &Patience,
    job: PackedJob,
) -> Result<Summary, UnpackError> {
    let blob = job.blob;
    let local = fetch.local(&blob);
    let layer = PackedLayer {
        shared: shared.clone(),
        job,
    };
    let (layer, local) = match blocking(move || layer.prepare(local.as_deref())).await? {
        Prepared::Present(summary) => return Ok(summary),
        Prepared::Needed(layer, local) => (layer, local),
    };
    if let Some(file) = local {
        let mut summary = blocking(move || layer.unpack(Source::File(file), How::Copied)).await?;
        summary.reused += blob.size;
        return Ok(summary);
    }
    let (mut anew, mut streamed) = (0, 0);
    loop {
        let (sink, chunks) = mpsc::channel(CHUNKS);
        let source = Source::Stream {
            chunks,
            chunk: Bytes::new(),
        };
        let this = layer.clone();
        let unpacking = blocking(move || this.unpack(source, How::Streamed));
        let (pumped, unpacked) = tokio::join!(pump(fetch, &blob, 0, sink, patience), unpacking);
        match (pumped, unpacked) {
            (Ok(pumped), Ok(mut summary)) => {
                summary.streamed += streamed + pumped.bytes;
                return Ok(summary);
            }
            (Ok(pumped), Err(UnpackError::Mismatch { .. })) if pumped.broke && anew < ANEW => {
                anew += 1;
                streamed += pumped.bytes;
                tracing::warn!(digest = %blob.digest, "what came in parts is not the whole; fetching it anew");
            }
            // A cut stream is the reason, a cut archive what follows from it.
            (Err(error), Err(UnpackError::Fetch { .. }) | Ok(_)) | (_, Err(error)) => return Err(error),
        }
    }
}

#[derive(Clone)]
struct PackedLayer {
    shared: Arc<Shared>,
    job: PackedJob,
}

enum Prepared {
    Present(Summary),
    Needed(PackedLayer, Option<File>),
}

impl PackedLayer {
    /// Looks whether everything is there already, and if not, whether a local store has the blob.
    fn prepare(self, local: Option<&Path>) -> Result<Prepared, UnpackError> {
        if let Some(outputs) = self.shared.recorded(&self.key())
            && outputs.iter().all(|output| output.is_intact(&self.shared.tree))
        {
            return Ok(Prepared::Present(self.present(&outputs)?));
        }
        let size = self.job.blob.size;
        let local = local.and_then(|path| match local::open(path, size) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::debug!(store = %path.display(), %error, "the local store's file could not be used");
                None
            }
        });
        Ok(Prepared::Needed(self, local))
    }

    fn present(&self, outputs: &[Output]) -> Result<Summary, UnpackError> {
        let mut summary = Summary::default();
        let mut claims = self.claims();
        for output in outputs {
            let (path, claim) = match output {
                Output::File { path, size, .. } => {
                    summary.add(Summary {
                        files: 1,
                        bytes: *size,
                        streamed: 0,
                        reused: *size,
                    });
                    (path, Claim::File { content: None })
                }
                Output::Link { path, target } => (
                    path,
                    Claim::Link {
                        target: target.as_str().into(),
                    },
                ),
                Output::Directory { path, mtime } => {
                    if let Some(mtime) = mtime {
                        self.shared.set_later(path.clone(), *mtime);
                    }
                    (path, Claim::Directory)
                }
            };
            claims.take(path, claim, self.job.layer)?;
        }
        drop(claims);
        self.shared
            .start(self.job.label.clone(), self.job.blob.size)
            .done(How::Present);
        Ok(summary)
    }

    fn unpack(self, source: Source, how: How) -> Result<Summary, UnpackError> {
        let progress = self.shared.start(self.job.label.clone(), self.job.blob.size);
        let mut inflow = Inflow::new(source, progress);
        let items = self.read_proven(&mut inflow)?;
        if items
            .iter()
            .filter(|item| matches!(item.kind, ItemKind::File { .. }))
            .count()
            > SYNCED_SINGLY
        {
            let synced = syncfs(self.shared.tree.work()).map_err(Into::into);
            synced.map_err(self.shared.tree.failed("sync", ".packswarm/stage"))?;
        }
        let summary = self.place(items)?;
        inflow.progress().done(how);
        Ok(summary)
    }

    /// The archive's items, once every byte of the blob has been hashed and both digests are right.
    fn read_proven(&self, inflow: &mut Inflow) -> Result<Vec<Item>, UnpackError> {
        let read = self.read(inflow);
        let (items, unpacked) = match read {
            Ok(read) => read,
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Unreadable(source)) => {
                // Bytes that are not the blob's explain a broken archive better than the archive does.
                self.prove_blob(inflow)?;
                let (layer, packing) = (self.job.name(), packing_name(self.job.packing));
                return Err(UnpackError::Archive { layer, packing, source });
            }
        };
        self.prove_blob(inflow)?;
        match self.job.diff_id {
            // modctl writes the layer's own digest, which has been proven.
            Some(diff_id) if diff_id != unpacked && diff_id != self.job.blob.digest => {
                let what = format!("{} after decompression (its diffId)", self.job.name());
                Err(UnpackError::Mismatch {
                    what,
                    expected: diff_id,
                    found: unpacked,
                })
            }
            _ => Ok(items),
        }
    }

    /// Reads the archive to its end and beyond; also returns the digest of what came out of the decompressor.
    fn read(&self, inflow: &mut Inflow) -> Result<(Vec<Item>, Digest), Stop> {
        let limit = self.job.blob.size.saturating_mul(self.shared.options.limits.expansion);
        match self.job.packing {
            Packing::Raw | Packing::Tar => self.read_from(inflow, u64::MAX),
            Packing::TarGzip => self.read_from(MultiGzDecoder::new(inflow), limit),
            Packing::TarZstd => {
                let mut decoder = zstd::Decoder::new(inflow).map_err(Stop::Unreadable)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(Stop::Unreadable)?;
                self.read_from(decoder, limit)
            }
        }
    }

    fn read_from(&self, decompressed: impl Read, limit: u64) -> Result<(Vec<Item>, Digest), Stop> {
        let mut outflow = Outflow::new(decompressed, limit, &self.shared.slack);
        let valve = outflow.valve();
        let read = archive::read(&self.shared, &self.job, &mut outflow, &valve)
            .and_then(|items| Ok((items, outflow.drain().map_err(Stop::Unreadable)?)));
        let exceeded = |limit| {
            Err(Stop::Failed(UnpackError::Limit {
                layer: self.job.name(),
                limit,
            }))
        };
        match (read, valve.excess()) {
            (Err(Stop::Unreadable(_)), Some(Excess::Expansion)) => exceeded(format!(
                "it unpacks to more than {limit} bytes, too many for its {}, and the {} that an artifact's archives may \
                 have beyond that are used up",
                self.job.blob.size, self.shared.options.limits.expansion_slack
            )),
            (Err(Stop::Unreadable(_)), Some(Excess::Headers)) => exceeded(format!(
                "the headers of one of its entries are longer than {MAX_HEADERS} bytes"
            )),
            (read, _) => read,
        }
    }

    fn prove_blob(&self, inflow: &mut Inflow) -> Result<(), UnpackError> {
        let blob = self.job.blob;
        let drained = inflow.drain();
        let found = drained.map_err(self.shared.tree.failed("read the local copy of", &self.job.label))?;
        if inflow.taken() < blob.size {
            let (offset, missing) = (inflow.taken(), blob.size - inflow.taken());
            return Err(UnpackError::Fetch {
                blob,
                offset,
                source: FetchError::Short { missing },
            });
        }
        if found != blob.digest {
            return Err(UnpackError::Mismatch {
                what: self.job.name(),
                expected: blob.digest,
                found,
            });
        }
        Ok(())
    }

    /// Renames everything to its final name, after all places were found free. One layer at a time: whoever finds a
    /// place taken by an archive can rely on the file being there.
    fn place(&self, items: Vec<Item>) -> Result<Summary, UnpackError> {
        let mut claims = self.claims();
        let mut free = Vec::with_capacity(items.len());
        for item in items {
            if self.claim(&mut claims, &item)? {
                free.push(item);
            } else if let ItemKind::File { staged, .. } = item.kind {
                self.shared.tree.unstage(staged);
            }
        }
        let mut summary = Summary::default();
        let mut outputs = Vec::with_capacity(free.len());
        for Item { path, kind } in free {
            if let ItemKind::File { size, .. } = kind {
                summary.add(Summary {
                    files: 1,
                    bytes: size,
                    streamed: 0,
                    reused: 0,
                });
            }
            outputs.push(self.put(path, kind)?);
        }
        self.shared.record(self.key(), outputs)?;
        Ok(summary)
    }

    /// Whether the place is free; an error when something else is there.
    fn claim(&self, claims: &mut Claims, item: &Item) -> Result<bool, UnpackError> {
        let (path, layer) = (&item.path, self.job.layer);
        let same = match &item.kind {
            ItemKind::Directory(_) => {
                claims.take(path, Claim::Directory, layer)?;
                return Ok(true);
            }
            ItemKind::Link { target } => {
                let claim = Claim::Link { target: target.clone() };
                match claims.take(path, claim.clone(), layer)? {
                    None => return Ok(true),
                    Some(before) => before == claim,
                }
            }
            ItemKind::File { staged, .. } => match claims.take(path, Claim::File { content: None }, layer)? {
                None => return Ok(true),
                Some(Claim::File { content }) => self.is_same(*staged, path, content)?,
                Some(Claim::Directory | Claim::Link { .. }) => false,
            },
        };
        if same {
            Ok(false)
        } else {
            Err(claims.conflict(path, layer))
        }
    }

    /// Whether a staged file is what another layer has, or will have, at its place.
    fn is_same(&self, staged: Staged, path: &TreePath, content: Option<Digest>) -> Result<bool, UnpackError> {
        let tree = &self.shared.tree;
        let compare = || {
            let found = local::hash(&tree.open_staged(staged)?)?;
            match content {
                Some(content) => Ok(found == content),
                None => Ok(found == local::hash(&tree.open_file(path)?)?),
            }
        };
        compare().map_err(tree.failed("compare", path.as_str()))
    }

    fn put(&self, path: TreePath, kind: ItemKind) -> Result<Output, UnpackError> {
        let tree = &self.shared.tree;
        let failed = tree.failed("put in place", path.as_str());
        let put = || match kind {
            ItemKind::File { staged, size } => {
                let mtime = mtime_of(&tree.stat_staged(staged)?);
                tree.place(staged, &path)?;
                Ok(Output::File { path, size, mtime })
            }
            ItemKind::Link { target } => {
                tree.place(tree.stage_symlink(&target)?, &path)?;
                Ok(Output::Link {
                    path,
                    target: target.as_ref().to_owned(),
                })
            }
            ItemKind::Directory(attributes) => {
                tree.make_directory(&path, attributes.mode)?;
                if let Some(mtime) = attributes.mtime {
                    self.shared.set_later(path.clone(), mtime);
                }
                Ok(Output::Directory {
                    path,
                    mtime: attributes.mtime,
                })
            }
        };
        put().map_err(failed)
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, Claims> {
        self.shared.claims.lock().expect("no holder of this lock panics")
    }

    fn key(&self) -> Key {
        let filter = if self.job.filtered {
            self.shared.options.include.fingerprint()
        } else {
            String::new()
        };
        Key::packed(&self.job.blob.digest, packing_name(self.job.packing), &filter)
    }
}

const fn packing_name(packing: Packing) -> &'static str {
    match packing {
        Packing::Raw => "raw",
        Packing::Tar => "tar",
        Packing::TarGzip => "tar+gzip",
        Packing::TarZstd => "tar+zstd",
    }
}
