//! The parts of a node that its tasks share.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use admin::Metrics;
use admin::metrics::ReceivedFrom;
use control::Control;
use identity::NodeKey;
use piece::{Blob, Digest, NodeId, SignedRun, Standing};
use store::{BlobFile, Store, StoreError};
use swarm::node::Input;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::{block_in_place, spawn_blocking};
use transport::Transport;
use wire::control::{Access, Failure, Locality, Role, Source, Swarm};

use crate::access::{Verdict, Verdicts};
use crate::buffers::Buffers;
use crate::cursors::Cursors;
use crate::engine::Engine;
use crate::files::{self, Files};
use crate::lent::Lent;
use crate::origin::Leases;
use crate::pacing::Pacing;
use crate::pinging::Pings;
use crate::providing::Providing;
use crate::proving::Provers;
use crate::repairing;
use crate::seeds::Seeds;
use crate::suspects::Suspects;
use crate::tags::Tags;
use crate::upstream::Upstreams;
use crate::watch::Watches;

/// Everything that tasks of this node use. Made once at start, shared by reference.
pub(crate) struct Parts {
    pub(crate) role: Role,
    pub(crate) key: Arc<NodeKey>,
    /// What others are told of where the data plane listens; an unspecified IP means: where they see this node.
    pub(crate) advertised: SocketAddr,
    pub(crate) locality: Locality,
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) files: Files,
    pub(crate) transport: Transport,
    pub(crate) control: Control,
    pub(crate) registry: registry::Client,
    pub(crate) buffers: Buffers,
    pub(crate) provers: Provers,
    pub(crate) watches: Watches,
    pub(crate) trust: Trust,
    pub(crate) roles: Roles,
    pub(crate) suspects: Suspects,
    pub(crate) seen_at: SeenAt,
    pub(crate) leases: Leases,
    pub(crate) cursors: Cursors,
    pub(crate) pacing: Pacing,
    pub(crate) verdicts: Verdicts,
    pub(crate) seeds: Seeds,
    pub(crate) lent: Lent,
    pub(crate) pings: Pings,
    pub(crate) upstreams: Upstreams,
    pub(crate) tags: Tags,
    pub(crate) providing: Providing,
    pub(crate) metrics: Metrics,
    pub(crate) begun: Mutex<HashMap<Digest, Instant>>,
    /// Whether a scheduler knows this node.
    pub(crate) registered: watch::Sender<bool>,
    /// Whom the operator has expelled, this node among them if it is.
    pub(crate) expelled: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) is_expelled: AtomicBool,
    /// Where the node's tasks run.
    pub(crate) runtime: Handle,
}

impl Parts {
    /// Opens a blob in the store and tells the machine what is there of it.
    pub(crate) fn open(self: &Arc<Self>, blob: Blob, media_type: Option<String>, source: Option<Source>) {
        let parts = Arc::clone(self);
        parts
            .begun
            .lock()
            .expect("no holder of this lock panics")
            .insert(blob.digest, Instant::now());
        spawn_blocking(move || {
            let input = match parts.store.begin(blob, media_type.as_deref()) {
                Ok(file) => {
                    if let Some(source) = &source {
                        remember_source(&file, source);
                    }
                    parts.files.keep(file.clone());
                    parts.watches.tell(&blob.digest, |seen| seen.opened = true);
                    Input::Opened {
                        blob,
                        bits: file.bitfield(),
                        media_type: file.media_type(),
                    }
                }
                Err(error) => Input::OpenFailed {
                    digest: blob.digest,
                    failure: storage_failure(&error),
                },
            };
            parts.engine.tell_blocking(input);
        });
    }

    /// Dials a node; success is reported by the transport's own event.
    pub(crate) fn connect(self: &Arc<Self>, node: NodeId, address: SocketAddr) {
        let parts = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = parts.transport.connect(node, address).await {
                tracing::debug!(?node, %address, %error, "could not connect");
                parts.engine.tell(Input::Disconnected { node }).await;
            }
        });
    }

    /// A blob is whole.
    pub(crate) fn completed(self: &Arc<Self>, digest: &Digest) {
        if let Some(begun) = self.begun.lock().expect("no holder of this lock panics").remove(digest) {
            self.metrics.blob_finished(begun.elapsed());
        }
        self.trust.forget(digest);
        self.leases.forget(digest);
        self.lent.forget(digest);
        self.watches.tell(digest, |seen| seen.complete = true);
        self.note_usage();
        let (parts, digest) = (Arc::clone(self), *digest);
        tokio::spawn(async move {
            if let Some(signer) = parts.file(&digest).and_then(|file| parts.suspects.judge(&file)) {
                tracing::error!(%digest, %signer, "this node signed a false midstate");
                parts.engine.tell(Input::Forged { digest, signer }).await;
            }
        });
    }

    /// Remembers who may read a content.
    pub(crate) fn learn_access(&self, digest: Digest, source: Option<Source>, access: Access) {
        if let Some(source) = source {
            let verdict = Verdict {
                access,
                size: None,
                media_type: None,
            };
            self.verdicts.learn(Instant::now(), &source.repository, digest, verdict);
        }
    }

    /// What a scheduler said of a blob, on its way to the machine.
    pub(crate) async fn told(&self, scheduler: NodeId, digest: Digest, swarm: Swarm) {
        for neighbour in &swarm.neighbours {
            self.roles.learn(neighbour.node, neighbour.role);
        }
        let told = Input::Told {
            scheduler,
            digest,
            swarm,
        };
        self.engine.tell(told).await;
    }

    /// Counts what the store holds and who is connected.
    pub(crate) fn note_usage(&self) {
        self.metrics.set_store_bytes(self.store.usage().used);
        self.metrics.set_connections(self.transport.status().connections);
    }

    /// A blob has left the store.
    pub(crate) async fn dropped(&self, digest: &Digest) {
        self.files.forget(digest);
        self.trust.forget(digest);
        self.leases.forget(digest);
        self.begun.lock().expect("no holder of this lock panics").remove(digest);
        self.engine.tell(Input::Dropped { digest: *digest }).await;
    }

    /// A blob's file, whole or in progress.
    pub(crate) fn file(&self, digest: &Digest) -> Option<BlobFile> {
        if let Some(file) = self.files.open(digest) {
            return Some(file);
        }
        self.opening(digest, || self.files.get(&self.store, digest))
    }

    /// Opens a blob of the store by `open`, which proves what an unclean stop has put in doubt; if less of it is good than
    /// was said, all are told.
    pub(crate) fn opening(&self, digest: &Digest, open: impl FnOnce() -> Option<BlobFile>) -> Option<BlobFile> {
        let claimed = self.store.is_complete(digest);
        let file = off_the_loop(open);
        if claimed && !file.as_ref().is_some_and(BlobFile::is_complete) {
            repairing::found_less(self, *digest, file.as_ref());
        }
        file
    }

    /// Takes midstates that came with a piece, as far as their signer has standing.
    pub(crate) fn accept_runs(&self, file: &BlobFile, runs: Vec<SignedRun>) {
        for run in runs {
            let trusted = match run.run().standing {
                Standing::Closed => true,
                Standing::Reader { epoch } => self.trust.is_reader(&run.run().blob.digest, &run.signer(), epoch),
            };
            if trusted && let Err(error) = file.accept(run) {
                tracing::debug!(%error, "midstates refused");
            }
        }
    }
}

/// Runs what may take as long as hashing a blob where it holds up nobody else. A runtime of one thread, as tests have it,
/// has no such place.
fn off_the_loop<T>(work: impl FnOnce() -> T) -> T {
    let flavour = Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavour, Ok(RuntimeFlavor::MultiThread)) {
        block_in_place(work)
    } else {
        work()
    }
}

/// Notes with a blob where it can be read again. Losing the note costs no more than a repair that has to be asked for.
pub(crate) fn remember_source(file: &BlobFile, source: &Source) {
    if let Err(error) = file.add_source(&files::source_text(source)) {
        tracing::debug!(%error, "a blob's source was not noted");
    }
}

/// What a client is told when the store cannot take a blob.
pub(crate) fn storage_failure(error: &StoreError) -> Failure {
    Failure {
        status: 507,
        message: error.to_string(),
        retry_after: None,
        challenge: None,
    }
}

/// Whose midstates count for a blob, besides those of nodes whose chain has closed.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    readers: Mutex<HashMap<Digest, Trusted>>,
    changes: watch::Sender<()>,
}

/// A blob's readers whose midstates count.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    pub(crate) readers: Vec<NodeId>,
    /// What they signed under this epoch, or an older one, does not. Epoch 0 is nobody's lease.
    pub(crate) after: u64,
}

impl Trust {
    pub(crate) fn set(&self, digest: Digest, trusted: Trusted) {
        self.readers
            .lock()
            .expect("no holder of this lock panics")
            .insert(digest, trusted);
        self.changes.send_replace(());
    }

    /// Tells when readers of some blob have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Who reads a blob from the registry now, as far as this node was told.
    pub(crate) fn reader(&self, digest: &Digest) -> Option<NodeId> {
        let readers = self.readers.lock().expect("no holder of this lock panics");
        readers.get(digest)?.readers.last().copied()
    }

    /// These are no longer believed, whoever names them.
    pub(crate) fn remove(&self, digest: &Digest, liars: &[NodeId]) {
        let mut readers = self.readers.lock().expect("no holder of this lock panics");
        if let Some(trusted) = readers.get_mut(digest) {
            trusted.readers.retain(|reader| !liars.contains(reader));
        }
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.readers
            .lock()
            .expect("no holder of this lock panics")
            .remove(digest);
    }

    fn is_reader(&self, digest: &Digest, node: &NodeId, epoch: u64) -> bool {
        let readers = self.readers.lock().expect("no holder of this lock panics");
        let counts = |trusted: &Trusted| trusted.readers.contains(node) && (epoch == 0 || epoch > trusted.after);
        readers.get(digest).is_some_and(counts)
    }
}

/// Nodes whose role is remembered; the map starts afresh beyond.
const MAX_ROLES: usize = 16_384;

/// What other nodes do, as far as somebody told.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    roles: Mutex<HashMap<NodeId, Role>>,
}

impl Roles {
    pub(crate) fn learn(&self, node: NodeId, role: Role) {
        let mut roles = self.roles.lock().expect("no holder of this lock panics");
        if roles.len() >= MAX_ROLES {
            roles.clear();
        }
        roles.insert(node, role);
    }

    /// Where bytes from this node are counted.
    pub(crate) fn source_of(&self, node: &NodeId) -> ReceivedFrom {
        match self.roles.lock().expect("no holder of this lock panics").get(node) {
            Some(Role::Seed) => ReceivedFrom::Seed,
            Some(Role::Peer | Role::Scheduler) | None => ReceivedFrom::Peer,
        }
    }
}

/// Where the control plane's connections lead to; as many entries as connections.
#[derive(Debug, Default)]
pub(crate) struct SeenAt {
    addresses: Mutex<HashMap<NodeId, IpAddr>>,
}

impl SeenAt {
    pub(crate) fn connected(&self, node: NodeId, address: SocketAddr) {
        self.addresses
            .lock()
            .expect("no holder of this lock panics")
            .insert(node, address.ip());
    }

    pub(crate) fn disconnected(&self, node: &NodeId) {
        self.addresses
            .lock()
            .expect("no holder of this lock panics")
            .remove(node);
    }

    pub(crate) fn of(&self, node: &NodeId) -> Option<IpAddr> {
        self.addresses
            .lock()
            .expect("no holder of this lock panics")
            .get(node)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_bounded_and_the_latest_known() {
        let roles = Roles::default();
        let node = |n: usize| NodeId::from_bytes(*Digest::of(&n.to_be_bytes()).as_bytes());
        (0..2 * MAX_ROLES + 1).for_each(|n| roles.learn(node(n), Role::Seed));
        assert!(roles.roles.lock().unwrap().len() <= MAX_ROLES);
        assert_eq!(roles.source_of(&node(2 * MAX_ROLES)), ReceivedFrom::Seed);
    }
}
