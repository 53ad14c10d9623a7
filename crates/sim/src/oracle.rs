//! What must never happen, whatever the seed, the faults and the order of events.
//!
//! The world knows which pieces are really verified and on which disk; the machines only believe it. A violation ends the
//! run and is reported with the seed.

use piece::{Bitfield, PieceIndex};
use wire::control::{Lease, Swarm};
use wire::exchange::Message;

use crate::world::World;

/// Violations that are reported; the first tells the story.
const MAX_VIOLATIONS: usize = 8;

impl World {
    pub(crate) fn violated(&mut self, what: &str) {
        if self.tally.violations.len() < MAX_VIOLATIONS {
            let at = self.now as f64 / 1e9;
            self.tally.violations.push(format!("at {at:.6} s: {what}"));
        }
    }

    /// Nobody says that it holds what it has not verified.
    pub(crate) fn check_claim(&mut self, node: u32, message: &Message) {
        let held = |digest| &self.hosts[node as usize].held[self.blob_index(digest) as usize];
        let honest = match message {
            Message::Holding { blob, bits, .. } => match bits {
                None => held(&blob.digest).is_full(),
                Some(bits) => {
                    let held = held(&blob.digest).as_bytes();
                    bits.iter().zip(held).all(|(said, held)| said & !held == 0)
                }
            },
            Message::Have { digest, ranges, .. } => {
                let (held, geometry) = (held(digest), self.blobs[self.blob_index(digest) as usize].geometry());
                let mut numbers = ranges.iter().flat_map(|(first, count)| *first..first + count);
                numbers.all(|number| geometry.piece(number).is_some_and(|piece| held.has(piece)))
            }
            Message::Gone { .. } => true,
        };
        if !honest {
            self.violated(&format!("node {node} announces pieces that it has not verified"));
        }
    }

    /// Nobody serves what it has not verified.
    pub(crate) fn check_serving(&mut self, node: u32, blob: u32, piece: PieceIndex) {
        if !self.hosts[node as usize].held[blob as usize].has(piece) {
            let piece = piece.get();
            self.violated(&format!("node {node} serves piece {piece} without having verified it"));
        }
    }

    /// Nothing is stored that came from a liar.
    pub(crate) fn check_stored(&mut self, server: u32, blob: u32, piece: PieceIndex) {
        let server_host = &self.hosts[server as usize];
        if server_host.liar || !server_host.held[blob as usize].has(piece) {
            self.violated(&format!("a piece from node {server} was stored that it did not hold"));
        }
    }

    /// Nothing is published whole that is not.
    pub(crate) fn check_complete(&mut self, node: u32, blob: u32) {
        if !self.hosts[node as usize].held[blob as usize].is_full() {
            self.violated(&format!("node {node} publishes blob {blob} with pieces missing"));
        }
    }

    /// In each epoch one node holds a blob's lease, as the scheduler sees it,
    pub(crate) fn note_lease(&mut self, node: u32, blob: u32, swarm: &Swarm) {
        if let Some(lease) = &swarm.lease {
            self.check_lease(node, blob, lease);
        }
    }

    /// and as those see it who read the registry.
    pub(crate) fn check_lease(&mut self, node: u32, blob: u32, lease: &Lease) {
        let epoch = lease.epoch;
        if epoch > 0 && *self.leases.entry((blob, epoch)).or_insert(node) != node {
            self.violated(&format!("blob {blob} has two readers in epoch {epoch}"));
        }
    }

    /// Those whom the run leaves done hold every piece, and those who wait are counted.
    pub(crate) fn check_the_end(&mut self) {
        for node in 0..self.hosts.len() as u32 {
            let host = &self.hosts[node as usize];
            if host.progress.done.is_some() && !host.held.iter().all(Bitfield::is_full) {
                self.violated(&format!("node {node} was done and is not"));
            }
        }
    }
}
