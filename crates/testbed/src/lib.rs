//! A registry in memory: serves generated ModelPack artifacts and keeps an access log; for the demo and for tests.
//!
//! [`Artifact`]s are made from a directory, from layers, or from nothing but a seed: a generated artifact of 6 GiB is
//! computed while it is served and takes no memory. A [`Registry`] serves them over plain HTTP/1.1, as slowly and as
//! faultily as it is told to, and its [`Entry`] log says who was sent how much of what.

mod artifact;
mod content;
mod fault;
mod generate;
mod log;
mod registry;
mod serve;
mod shape;

pub use artifact::{Artifact, ArtifactError, File};
pub use content::Content;
pub use fault::{Fault, Seen};
pub use log::Entry;
pub use registry::{Options, Registry};
