//! What one input makes worth telling, gathered so that each node hears about each blob once.

use std::collections::BTreeMap;

use piece::{Digest, NodeId};
use wire::control::{Access, Failure, Source, Swarm};

/// What a registry said about a source.
#[derive(Debug, Clone)]
pub(super) enum Finding {
    /// Who may read there.
    Access(Access),
    /// That the blob cannot be had there.
    Failure(Failure),
}

/// Everything to be told after this input.
#[derive(Debug, Default)]
pub(super) struct News {
    swarms: BTreeMap<(NodeId, Digest), Swarm>,
    /// Findings about a second source of the same blob, for the same node.
    more: Vec<(NodeId, Digest, Swarm)>,
}

impl News {
    /// What a node will be told about a blob, to be added to.
    pub(super) fn tell(&mut self, node: NodeId, digest: Digest) -> &mut Swarm {
        self.swarms.entry((node, digest)).or_default()
    }

    /// Tells a node what was found out about one source.
    pub(super) fn tell_finding(&mut self, node: NodeId, digest: Digest, source: &Source, finding: Finding) {
        let first = self.tell(node, digest);
        let swarm = if first.about.as_ref().is_none_or(|about| about == source) {
            first
        } else {
            self.more.push((node, digest, Swarm::default()));
            &mut self.more.last_mut().expect("just pushed").2
        };
        swarm.about = Some(source.clone());
        match finding {
            Finding::Access(access) => swarm.access = Some(access),
            Finding::Failure(failure) => swarm.failure = Some(failure),
        }
    }

    /// Takes what a node would be told about a blob.
    pub(super) fn take(&mut self, node: NodeId, digest: Digest) -> Option<Swarm> {
        self.swarms.remove(&(node, digest))
    }

    /// Takes what a node would be told about any blob, of at most `most` blobs.
    pub(super) fn take_of(&mut self, node: NodeId, most: usize) -> Vec<(Digest, Swarm)> {
        let from = (node, Digest::from_bytes([0; 32]));
        let to = (node, Digest::from_bytes([0xff; 32]));
        let taken: Vec<Digest> = self
            .swarms
            .range(from..=to)
            .take(most)
            .map(|((_, digest), _)| *digest)
            .collect();
        taken
            .into_iter()
            .filter_map(|digest| Some((digest, self.take(node, digest)?)))
            .collect()
    }

    /// Takes everything, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (NodeId, Digest, Swarm)> {
        let swarms = std::mem::take(&mut self.swarms).into_iter();
        swarms
            .map(|((node, digest), swarm)| (node, digest, swarm))
            .chain(std::mem::take(&mut self.more))
    }
}
