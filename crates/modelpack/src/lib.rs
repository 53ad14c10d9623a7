//! ModelPack artifacts: reading their manifests, and unpacking them into a directory.
//!
//! There is no network here: whoever calls [`unpack`] hands in a [`Fetch`] that opens blobs, from the node's mirror, a
//! registry or a test. Three promises hold whatever the artifact says and whenever the process dies:
//! - **nothing unproven** appears under its final name: files grow in `DEST/.packswarm/` and are renamed once the blob's
//!   digest (and, for packed layers, the config's diffId) has been verified;
//! - **nothing outside** the destination is touched: a path becomes a [`TreePath`] or is refused, every directory on the
//!   way is opened without following links, and archives are unpacked into numbered files before any of their names is used;
//! - **nothing is asked for twice**: half-fetched raw layers continue where they stopped, finished files are recognised.
//!
//! The layout of `DEST/.packswarm/`, all of it private to this crate and safe to delete between pulls:
//! `lock` (one pull at a time), `journal` (what was finished, one JSON line per layer), `partial/HEX` (raw layers on their
//! way) and `stage/N` (files that are complete but not in place yet).

pub mod config;
pub mod fetch;
pub mod include;
pub mod manifest;
pub mod mtime;
pub mod path;
mod unpack;

pub use config::{Config, ConfigError};
pub use fetch::{Fetch, FetchError};
pub use include::{Include, IncludeError};
pub use manifest::{Artifact, FileMetadata, Layer, LayerKind, ManifestError, Packing};
pub use mtime::Mtime;
pub use path::{PathError, TreePath};
pub use unpack::{Event, How, Limits, Options, Patience, Refusal, Summary, UnpackError, unpack};
