//! Carries out what a node decides.

use piece::Digest;
use swarm::node::{Input, Output};

use crate::queue::Time;
use crate::world::{World, node_index};

/// Until the store has a blob's file open.
const OPENING: Time = 100_000;

impl World {
    /// Carries out one output; what a cancellation gives rise to at once is appended to `outputs`.
    pub(crate) fn perform(&mut self, node: u32, output: Output, outputs: &mut Vec<Output>) {
        match output {
            Output::Open { blob, media_type, .. } => {
                let bits = self.hosts[node as usize].held[self.blob_index(&blob.digest) as usize].clone();
                self.tell(node, OPENING, Input::Opened { blob, bits, media_type });
            }
            Output::Connect { node: to, .. } => self.connect(node, node_index(&to)),
            Output::Disconnect { node: to } => self.disconnect(node, node_index(&to)),
            Output::Send { to, message } => self.send(node, node_index(&to), message),
            Output::Fetch { id, from, blob, piece } => {
                let blob = self.blob_index(&blob.digest);
                self.fetch(node, node_index(&from), id, (blob, piece));
            }
            Output::Cancel { id } => self.cancel(node, id, outputs),
            Output::Serve { id } => self.serve(node, id),
            Output::Refuse { id, refusal } => self.refuse(node, id, refusal),
            Output::OpenOrigin { digest, lease, .. } => {
                let blob = self.blob_index(&digest);
                self.check_lease(node, blob, &lease);
                self.open_origin(node, blob);
            }
            Output::ReadOrigin { digest, first, count } => {
                self.read_origin(node, self.blob_index(&digest), first, count);
            }
            Output::CloseOrigin { digest } => self.close_origin(node, self.blob_index(&digest)),
            Output::Ask { ask, .. } => self.ask(node, ask),
            Output::FindHolders { digest, source, .. } => self.find_holders(node, self.blob_index(&digest), source),
            Output::Provide { digest } => self.provide(node, self.blob_index(&digest)),
            Output::Unprovide { digest } if digest == Digest::EMPTY => {}
            Output::Distrust { digest, .. } => {
                // No midstate is ever forged here: what is on the disk stays proven.
                let bits = self.hosts[node as usize].held[self.blob_index(&digest) as usize].clone();
                let vouchers = Vec::new();
                self.tell(node, 0, Input::ChainBroken { digest, bits, vouchers });
            }
            Output::Complete { digest } => self.completed(node, self.blob_index(&digest)),
            Output::Failed { failure, .. } => {
                self.violated(&format!("node {node} gave up: {}", failure.message));
            }
            Output::Unprovide { .. }
            | Output::Trust { .. }
            | Output::Sized { .. }
            | Output::Accessible { .. }
            | Output::Ban { .. }
            | Output::Expel { .. } => {}
        }
    }

    /// A node says that it has a blob whole.
    fn completed(&mut self, node: u32, blob: u32) {
        self.check_complete(node, blob);
        let (now, blobs) = (self.now, self.blobs.len() as u32);
        let progress = &mut self.hosts[node as usize].progress;
        progress.whole += 1;
        if progress.whole == blobs && progress.wanted.is_some() && progress.done.is_none() {
            progress.done = Some(now);
            progress.quarter.get_or_insert(now);
            self.tally.waiting -= 1;
        }
    }
}
