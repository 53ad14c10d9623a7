//! The origin lease from its holder's side: opening, reading ahead, giving back.

use std::time::Duration;

use piece::{Blob, Digest};
use wire::control::{Access, Accusation, Failure, Lease, Offence};

use super::Node;
use super::blob::{BlobState, Wanted};
use super::event::Output;
use super::origin::Origin;

/// After this long without any piece, the registry is asked even for what neighbours say they hold.
const IMPATIENCE: Duration = Duration::from_secs(3);

impl Node {
    /// The scheduler gave us the lease.
    pub(super) fn leased(&mut self, now: Duration, digest: Digest, lease: Lease, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if lease.epoch <= state.last_epoch || state.is_complete() {
            // Stale, or nothing is left to read: our next report says so.
            self.reporter.changed(digest);
            return;
        }
        state.last_epoch = lease.epoch;
        if let Some(origin) = &mut state.origin
            && origin.lease.epoch > 0
            && origin.lease.source == lease.source
        {
            // From a scheduler that has yet to hear of the reading under way, which goes on: reports tell it so.
            origin.lease.epoch = lease.epoch;
            self.reporter.changed(digest);
            self.reporter.hurry(&digest);
            return;
        }
        state.add_source(lease.source.clone());
        if state.wanted.is_none() {
            // A leased blob is wanted whole, whoever waits for it.
            state.wanted = Some(Wanted {
                urgent: true,
                progress: now,
                cursor: None,
                asked: now,
                looked: None,
            });
            self.hungry.insert((false, digest));
        }
        self.open_origin(now, digest, lease, out);
        if let Some(size) = self.blobs.get(&digest).and_then(|state| state.size) {
            self.learn_size(digest, size, None, out);
        }
    }

    /// Begins a reading, under a lease or (epoch 0) on our own decision.
    pub(super) fn open_origin(&mut self, now: Duration, digest: Digest, lease: Lease, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if state.origin.is_some() {
            out.push(Output::CloseOrigin { digest });
        }
        state.origin = Some(Origin::new(now, lease));
        // Neighbours are to spare whoever reads.
        self.tell_mates_again(digest, out);
    }

    /// The scheduler took the lease away.
    pub(super) fn revoked(&mut self, digest: Digest, epoch: u64, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if state.origin.as_ref().is_some_and(|origin| origin.lease.epoch <= epoch) {
            state.origin = None;
            out.push(Output::CloseOrigin { digest });
        }
    }

    /// The registry has answered.
    pub(super) fn origin_opened(
        &mut self,
        now: Duration,
        blob: Blob,
        media_type: Option<String>,
        (access, sequential): (Access, bool),
        out: &mut Vec<Output>,
    ) {
        let Some(state) = self.blobs.get_mut(&blob.digest) else {
            return;
        };
        let Some(origin) = &mut state.origin else { return };
        if let Some((first, count)) = origin.opened(access, sequential) {
            out.push(Output::ReadOrigin {
                digest: blob.digest,
                first,
                count,
            });
        }
        let source = origin.lease.source.clone();
        out.push(Output::Accessible {
            digest: blob.digest,
            source: Some(source.clone()),
            access,
        });
        state.access = Some((source, access));
        if let Some(wanted) = &mut state.wanted {
            wanted.progress = now;
        }
        self.learn_size(blob.digest, blob.size, media_type, out);
        self.reporter.changed(blob.digest);
        self.reporter.hurry(&blob.digest);
    }

    /// The registry has failed us for good: the scheduler tries another reader or source, or tells those who wait.
    pub(super) fn read_failed(&mut self, digest: Digest, failure: Failure, unproven: bool, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let Some(origin) = state.origin.take() else { return };
        let epoch = origin.lease.epoch;
        if epoch > 0 && self.reporter.is_registered() {
            if unproven {
                // Taken back before anybody else goes on from it; what is here has been dropped already.
                state.retracted = state.retracted.max(epoch);
                out.push(state.trust(digest));
                self.reporter.accuse(Accusation {
                    node: self.me.node,
                    digest,
                    offence: Offence::ForgedMidstates,
                });
            }
            self.reporter.gave_back(digest, epoch, failure);
        } else {
            self.fail(digest, failure, out);
        }
    }

    /// Opens what is to be opened, and reads every range that may be read now, of the blobs that were touched.
    pub(super) fn fill_origins(&mut self, now: Duration, out: &mut Vec<Output>) {
        for digest in &self.touched {
            let wanted = |state: &&mut BlobState| state.is_hungry() && !state.discarding;
            let Some(state) = self.blobs.get_mut(digest).filter(wanted) else {
                continue;
            };
            if let (Some(origin), Some(wanted)) = (&mut state.origin, &state.wanted) {
                origin.impatient = now.saturating_sub(wanted.progress) >= IMPATIENCE;
            }
            if let Some(origin) = &mut state.origin
                && let Some(first) = origin.ask(now, state.size, state.pieces.as_ref(), &self.config)
            {
                let lease = origin.lease.clone();
                out.push(Output::OpenOrigin {
                    digest: *digest,
                    size: state.size,
                    lease,
                    first,
                    connections: self.config.origin_ranges,
                    stripe: self.config.origin_range_bytes,
                });
            }
            let (published, others_want) = match &state.origin {
                Some(origin) if origin.is_open() => (state.published(), state.others_want()),
                _ => continue,
            };
            let (Some(origin), Some(pieces)) = (&mut state.origin, &state.pieces) else {
                continue;
            };
            while let Some((first, count)) = origin.next_range(pieces, published, others_want, &self.config) {
                out.push(Output::ReadOrigin {
                    digest: *digest,
                    first,
                    count,
                });
            }
        }
    }
}
