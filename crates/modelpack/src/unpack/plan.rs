//! From layers to jobs: what is wanted, and what belongs together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use piece::{Blob, Digest};

use super::claims::{Claim, Claims};
use super::error::UnpackError;
use super::tree::Attributes;
use super::{Options, Summary};
use crate::{Artifact, Config, Include, Layer, Packing, TreePath};

/// Everything there is to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) jobs: Vec<Job>,
    /// The raw layers' places; archives claim theirs when they have been read.
    pub(super) claims: Claims,
    /// What will be reported as items, and their bytes.
    pub(super) items: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) enum Job {
    Raw(RawJob),
    Packed(PackedJob),
}

/// One content, wanted at one place or more.
#[derive(Debug)]
pub(super) struct RawJob {
    pub(super) blob: Blob,
    pub(super) targets: Vec<Target>,
}

/// A place for a raw layer's content.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) path: TreePath,
    pub(super) attributes: Attributes,
}

/// One archive.
#[derive(Debug, Clone)]
pub(super) struct PackedJob {
    pub(super) layer: usize,
    /// What events call it: its path annotation, else `layer N`.
    pub(super) label: Arc<str>,
    pub(super) blob: Blob,
    pub(super) packing: Packing,
    pub(super) diff_id: Option<Digest>,
    /// Whether entries have to match `include`; false when all are wanted.
    pub(super) filtered: bool,
}

impl PackedJob {
    /// What errors call it.
    pub(super) fn name(&self) -> String {
        format!("layer {} ({}, {})", self.layer, self.label, self.blob.digest)
    }
}

impl Plan {
    pub(super) fn new(artifact: &Artifact, config: &Config, options: &Options) -> Result<Self, UnpackError> {
        let (diff_ids, layers) = (config.diff_ids.len(), artifact.layers.len());
        if diff_ids != 0 && diff_ids != layers {
            return Err(UnpackError::DiffIdCount { diff_ids, layers });
        }
        let mut planner = Planner::default();
        for (index, layer) in artifact.layers.iter().enumerate() {
            match (layer.packing, &layer.path) {
                (Packing::Raw, Some(path)) if options.include.matches(path.as_str()) => {
                    planner.raw(index, layer, path)?
                }
                (Packing::Raw, _) => {}
                (Packing::Tar | Packing::TarGzip | Packing::TarZstd, _) => {
                    planner.packed(index, layer, config.diff_ids.get(index).copied(), &options.include);
                }
            }
        }
        if planner.plan.jobs.is_empty() && !options.include.is_all() {
            return Err(UnpackError::NothingIncluded);
        }
        Ok(planner.plan)
    }
}

#[derive(Default)]
struct Planner {
    plan: Plan,
    /// Where in `plan.jobs` a content already is.
    raw: HashMap<Digest, usize>,
    packed: HashSet<(Digest, Packing)>,
}

impl Planner {
    fn raw(&mut self, index: usize, layer: &Layer, path: &TreePath) -> Result<(), UnpackError> {
        let Layer { blob, metadata, .. } = layer;
        let claim = Claim::File {
            content: Some(blob.digest),
        };
        match self.plan.claims.take(path, claim.clone(), index)? {
            None => {}
            Some(before) if before == claim => return Ok(()),
            Some(_) => return Err(self.plan.claims.conflict(path, index)),
        }
        let (mode, mtime) = metadata
            .as_ref()
            .map_or((0, None), |metadata| (metadata.mode, metadata.mtime));
        let target = Target {
            path: path.clone(),
            attributes: Attributes::file(mode, mtime),
        };
        self.count(blob.size);
        let at = *self.raw.entry(blob.digest).or_insert_with(|| {
            self.plan.jobs.push(Job::Raw(RawJob {
                blob: *blob,
                targets: Vec::new(),
            }));
            self.plan.jobs.len() - 1
        });
        match &mut self.plan.jobs[at] {
            Job::Raw(job) => job.targets.push(target),
            Job::Packed(_) => unreachable!("the map points at raw jobs"),
        }
        Ok(())
    }

    fn packed(&mut self, index: usize, layer: &Layer, diff_id: Option<Digest>, include: &Include) {
        let Some(filtered) = filter(layer, include) else { return };
        if !self.packed.insert((layer.blob.digest, layer.packing)) {
            return;
        }
        let label = layer
            .path
            .as_ref()
            .map_or_else(|| format!("layer {index}").into(), TreePath::shared);
        let (blob, packing) = (layer.blob, layer.packing);
        self.plan.jobs.push(Job::Packed(PackedJob {
            layer: index,
            label,
            blob,
            packing,
            diff_id,
            filtered,
        }));
        self.count(blob.size);
    }

    fn count(&mut self, bytes: u64) {
        self.plan.items += 1;
        self.plan.bytes += bytes;
    }
}

/// Whether an archive's entries have to be filtered; `None` when surely nothing in it is wanted.
fn filter(layer: &Layer, include: &Include) -> Option<bool> {
    match &layer.path {
        None => Some(!include.is_all()),
        Some(path) if include.matches(path.as_str()) => Some(false),
        Some(_) if layer.metadata.as_ref().is_some_and(crate::FileMetadata::is_file) => None,
        Some(path) => include.may_match_below(path.as_str()).then_some(true),
    }
}

/// What is in place of a raw layer at one target.
pub(super) const fn one_file(size: u64) -> Summary {
    Summary {
        files: 1,
        bytes: size,
        streamed: 0,
        reused: 0,
    }
}

#[cfg(test)]
mod tests;
