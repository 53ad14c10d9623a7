//! Unpacking whole artifacts: every layer type, hostile archives, interrupted pulls.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "the line of a failed unwrap says all in a test"
)]

mod fixture;
mod hostile;
mod include;
mod kill;
mod layers;
mod limits;
mod local;
mod resume;
