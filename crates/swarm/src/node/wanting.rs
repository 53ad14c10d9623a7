//! A blob from the moment that somebody wants it until it is whole, has failed, or is gone.

use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use wire::control::{Failure, Source};

use super::Node;
use super::blob::{BlobState, Pieces, Wanted};
use super::event::Output;

impl Node {
    pub(super) fn want(
        &mut self,
        now: Duration,
        digest: Digest,
        size: Option<u64>,
        source: Source,
        urgent: bool,
        out: &mut Vec<Output>,
    ) {
        let known = self.blobs.contains_key(&digest);
        if self.hungry.len() >= self.config.wanted && !known {
            let message = format!("{} blobs are being fetched already; ask again later", self.hungry.len());
            out.push(Output::Failed {
                digest,
                failure: Failure {
                    status: 503,
                    message,
                    retry_after: Some(1),
                    challenge: None,
                },
            });
            return;
        }
        let state = self.blobs.entry(digest).or_insert_with(|| BlobState::new(size));
        if let Some(blob) = state.blob(digest) {
            // Whoever begins to wait now has not heard of it.
            out.push(Output::Sized {
                blob,
                media_type: state.media_type.clone(),
            });
        }
        if state.is_complete() {
            out.push(Output::Complete { digest });
            return;
        }
        self.reporter.changed(digest);
        let new_source = !state.sources.contains(&source);
        state.add_source(source.clone());
        let first = state.wanted.is_none();
        let was_urgent = state.wanted.as_ref().is_some_and(|wanted| wanted.urgent);
        let wanted = state.wanted.get_or_insert(Wanted {
            urgent,
            progress: now,
            cursor: None,
            asked: now,
            looked: None,
        });
        wanted.urgent |= urgent;
        if !first && was_urgent != wanted.urgent {
            self.hungry.remove(&(true, digest));
        }
        self.hungry.insert((!(urgent || was_urgent), digest));
        if first && state.pieces.is_some() {
            // Held in part from an earlier time: neighbours must hear that it is wanted now.
            self.tell_mates_again(digest, out);
        }
        if let Some(size) = size {
            self.learn_size(digest, size, None, out);
        }
        if first || new_source {
            self.join(now, digest, source, out);
        }
    }

    /// The size has become known: the store can open the blob.
    pub(super) fn learn_size(&mut self, digest: Digest, size: u64, media_type: Option<String>, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let first = state.size.is_none();
        if state.size.is_some_and(|known| known != size) {
            return;
        }
        state.size = Some(size);
        let better = state.media_type.is_none() && media_type.is_some();
        if better {
            state.media_type = media_type;
        }
        let blob = Blob { digest, size };
        if first || better {
            out.push(Output::Sized {
                blob,
                media_type: state.media_type.clone(),
            });
        }
        if state.pieces.is_none() && state.wanted.is_some() && !state.opening {
            state.opening = true;
            let source = state.sources.first().cloned();
            out.push(Output::Open {
                blob,
                media_type: state.media_type.clone(),
                source,
            });
        }
    }

    pub(super) fn opened(
        &mut self,
        now: Duration,
        blob: Blob,
        bits: Bitfield,
        media_type: Option<String>,
        out: &mut Vec<Output>,
    ) {
        let digest = blob.digest;
        let state = self
            .blobs
            .entry(digest)
            .or_insert_with(|| BlobState::new(Some(blob.size)));
        state.size = Some(blob.size);
        state.opening = false;
        if state.media_type.is_none() {
            state.media_type = media_type;
        }
        state.discarding = false;
        let geometry = blob.geometry();
        state.pieces = Some(Pieces::new(geometry, bits));
        for mate in state.mates.values_mut() {
            mate.told = false;
            mate.field = None;
        }
        let unread: Vec<NodeId> = state
            .mates
            .iter()
            .filter(|(_, mate)| mate.unread.is_some())
            .map(|(node, _)| *node)
            .collect();
        for node in unread {
            let bits = state.mate(node).unread.take().flatten();
            state.set_field(node, bits);
        }
        self.reporter.changed(digest);
        if self.blobs[&digest].is_complete() {
            self.completed(digest, out);
        } else {
            self.introduce(now, digest, out);
        }
    }

    pub(super) fn completed(&mut self, digest: Digest, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let waited = state.wanted.take().is_some();
        if state.origin.take().is_some() {
            out.push(Output::CloseOrigin { digest });
        }
        self.hungry.remove(&(true, digest));
        self.hungry.remove(&(false, digest));
        self.reporter.changed(digest);
        self.cancel_all(digest, out);
        self.tell_mates_again(digest, out);
        if waited {
            out.push(Output::Complete { digest });
            out.push(Output::Provide { digest });
        }
    }

    /// The blob cannot be had: tell whoever waits, keep what is here.
    pub(super) fn fail(&mut self, digest: Digest, failure: Failure, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let waited = state.wanted.take().is_some();
        state.opening = false;
        if state.origin.take().is_some() {
            out.push(Output::CloseOrigin { digest });
        }
        self.hungry.remove(&(true, digest));
        self.hungry.remove(&(false, digest));
        self.cancel_all(digest, out);
        if waited {
            out.push(Output::Failed { digest, failure });
        }
        if self.blobs[&digest].pieces.is_none() {
            self.forget(digest, out);
        } else {
            self.reporter.changed(digest);
        }
    }

    /// The blob cannot be had from one source; another that was named may still serve it.
    pub(super) fn failed_at(
        &mut self,
        digest: Digest,
        about: Option<&Source>,
        failure: Failure,
        out: &mut Vec<Output>,
    ) {
        if let Some(state) = self.blobs.get_mut(&digest) {
            if let Some(source) = about {
                state.sources.remove(source);
            }
            if about.is_none() || state.sources.is_empty() {
                self.fail(digest, failure, out);
            }
        }
    }

    pub(super) fn dropped(&mut self, digest: Digest, out: &mut Vec<Output>) {
        if self.blobs.contains_key(&digest) {
            self.cancel_all(digest, out);
            self.forget(digest, out);
        }
    }

    fn forget(&mut self, digest: Digest, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.remove(&digest) else {
            return;
        };
        for node in state.mates.keys() {
            self.links.leave(node, &digest);
            out.push(Output::Send {
                to: *node,
                message: wire::exchange::Message::Gone { digest },
            });
        }
        self.links.forget(&digest);
        self.uploads.forget(&digest, out);
        self.news.remove(&digest);
        self.openings.forget(&digest);
        self.spreading.remove(&digest);
        self.hungry.remove(&(true, digest));
        self.hungry.remove(&(false, digest));
        self.reporter.gone(digest);
        out.push(Output::Unprovide { digest });
    }
}
