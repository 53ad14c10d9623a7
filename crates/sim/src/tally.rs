//! What is counted while the world runs.

use piece::PieceIndex;
use wire::control::Role;

use crate::hosts::Host;
use crate::queue::{Event, Time};
use crate::scenario::Scenario;

/// FNV-1a's constants: a digest of the trace, to tell two runs apart.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Counters over a run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    /// Digest of every event's time and kind and every piece gained, in order.
    pub(crate) trace: u64,
    /// Peers that do not have the model yet.
    pub(crate) waiting: u32,
    pub(crate) violations: Vec<String>,
    /// Bytes that left the registry.
    pub(crate) registry_bytes: u64,
    pub(crate) registry_requests: u64,
    /// Bytes that left seeds.
    pub(crate) seed_bytes: u64,
    /// Bytes that came into each zone from others, node to node.
    pub(crate) zone_bytes: Vec<u64>,
    /// Bytes that moved between nodes for nothing.
    pub(crate) wasted: u64,
    /// `Holding`s, `Have`s and `Gone`s.
    pub(crate) neighbour_messages: u64,
    /// Messages to and from the scheduler.
    pub(crate) scheduler_messages: u64,
    pub(crate) scheduler_requests: u64,
    /// Of these, those from before the first want.
    pub(crate) requests_before_wants: u64,
    pub(crate) refused_by_scheduler: u64,
    /// Piece requests, those turned down, and those let go.
    pub(crate) requests: u64,
    pub(crate) refusals: u64,
    pub(crate) cancelled: u64,
    /// Lookups without a scheduler.
    pub(crate) lookups: u64,
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            events: 0,
            trace: FNV_OFFSET,
            waiting: 0,
            violations: Vec::new(),
            registry_bytes: 0,
            registry_requests: 0,
            seed_bytes: 0,
            zone_bytes: vec![0; scenario.network.zones as usize],
            wasted: 0,
            neighbour_messages: 0,
            scheduler_messages: 0,
            scheduler_requests: 0,
            requests_before_wants: 0,
            refused_by_scheduler: 0,
            requests: 0,
            refusals: 0,
            cancelled: 0,
            lookups: 0,
        }
    }

    /// An event happens.
    pub(crate) fn saw(&mut self, at: Time, event: &Event) {
        self.events += 1;
        self.mix(at);
        self.mix(event.fingerprint());
    }

    /// A piece is verified and stored.
    pub(crate) fn gained(&mut self, at: Time, node: u32, blob: u32, piece: PieceIndex) {
        self.mix(at);
        self.mix(u64::from(node) << 32 | u64::from(blob));
        self.mix(piece.get().into());
    }

    /// Bytes have moved from one node to another.
    pub(crate) fn moved(&mut self, hosts: &[Host], from: u32, to: u32, bytes: u64) {
        let (from, to) = (&hosts[from as usize], &hosts[to as usize]);
        if from.role == Role::Seed {
            self.seed_bytes += bytes;
        }
        if from.zone != to.zone {
            self.zone_bytes[to.zone as usize] += bytes;
        }
    }

    fn mix(&mut self, value: u64) {
        self.trace = (self.trace ^ value).wrapping_mul(FNV_PRIME);
    }
}
