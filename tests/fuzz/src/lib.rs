//! Every decoder of packswarm that reads a socket, or a file that somebody else wrote, as a function over bytes.
//!
//! Each [`Decoder::check`] asserts more than that nothing panics: what was decoded encodes and decodes to the same again,
//! lies within its bounds, and did nothing outside the place it was given. cargo-fuzz calls these functions from
//! `fuzz/fuzz_targets`; `tests/bounded.rs` calls them in the ordinary test command, over the corpus and over [`cases`] made
//! from it, and measures what they allocate.

pub mod cases;
pub mod corpus;

pub mod archive;
mod cluster_key;
mod config;
mod control;
mod exchange;
mod frames;
mod manifest;
mod mirror;
mod reference;
mod registry;
pub mod side_file;
pub mod signed_run;

/// One decoder of foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Its name: of its fuzz target and of its corpus' folder.
    pub name: &'static str,
    /// Feeds it bytes.
    ///
    /// # Panics
    /// If a promise is broken.
    pub check: fn(&[u8]),
    /// Words of its grammar, to be put into cases.
    pub words: &'static [&'static str],
    /// The longest case that is tried.
    pub max_len: usize,
    /// The most bytes that it may have allocated at once for such a case.
    pub memory: usize,
}

/// All of them.
pub const DECODERS: &[Decoder] = &[
    exchange::DECODER,
    control::DECODER,
    frames::DECODER,
    signed_run::DECODER,
    side_file::DECODER,
    manifest::DECODER,
    archive::DECODER,
    mirror::DECODER,
    reference::DECODER,
    registry::CHALLENGE,
    registry::CREDENTIALS,
    registry::TOKEN,
    registry::ANSWER,
    config::DECODER,
    cluster_key::DECODER,
];

/// Feeds `bytes` to the decoder of this name: the body of every fuzz target.
///
/// # Panics
/// If there is none of this name, or a promise is broken.
pub fn check(name: &str, bytes: &[u8]) {
    let decoder = DECODERS.iter().find(|decoder| decoder.name == name);
    (decoder.expect("every fuzz target has a decoder").check)(bytes);
}
