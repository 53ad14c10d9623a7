//! The programs that pull: ours and those of others, each through one node's mirror.

pub mod containerd;
pub mod curl;
pub mod pull;
pub mod skopeo;

pub use containerd::Containerd;
pub use curl::curl;
pub use pull::{pull, pull_through};
pub use skopeo::{skopeo, skopeo_with};
