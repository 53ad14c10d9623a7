//! What a node says to a scheduler.

use piece::{Blob, Digest};
use wire::control::{Access, Accusation, Failure, Source};

/// What is asked of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Introduce this node with all that it holds and the scheduler is to know; the answer is [`Input::Registered`](super::Input::Registered).
    Register {
        /// What it holds, or wants if that is this scheduler's business.
        holdings: Vec<HoldingNow>,
    },
    /// Say that this node wants a blob; the answer is [`Input::Told`](super::Input::Told).
    Join {
        /// Which.
        digest: Digest,
        /// Its size, if known.
        size: Option<u64>,
        /// Where it was asked for.
        source: Source,
        /// Whether a client waits.
        urgent: bool,
    },
    /// Say what has changed; the answer is [`Input::Reported`](super::Input::Reported), and
    /// [`Input::Told`](super::Input::Told) for the lonely.
    Report(Report),
}

/// What changed since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Changed holdings.
    pub holdings: Vec<HoldingNow>,
    /// Blobs no longer held or wanted.
    pub gone: Vec<Digest>,
    /// Leases given back: blob, epoch, and what the registry said.
    pub failed: Vec<(Digest, u64, Failure)>,
    /// Complaints.
    pub accusations: Vec<Accusation>,
    /// Blobs for which more neighbours are wanted.
    pub lonely: Vec<Digest>,
}

/// A [`Holding`](wire::control::Holding) before its midstate is filled in from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingNow {
    /// Which blob.
    pub blob: Blob,
    /// Verified pieces.
    pub pieces: u32,
    /// Whether the rest is wanted.
    pub wants: bool,
    /// Media type, if known.
    pub media_type: Option<String>,
    /// How far the reading under an origin lease has got, if this node holds it.
    pub reading: Option<ReadingNow>,
}

/// A lease's state as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingNow {
    /// Its epoch.
    pub epoch: u64,
    /// The published boundary, whose midstate the store knows.
    pub boundary: u32,
    /// Where it reads.
    pub source: Source,
    /// Whether the registry serves it to anybody.
    pub access: Access,
}
