//! The OCI distribution API that clients on this node pull from.
//!
//! A request travels: [`answer`](router) (is there room? which endpoint?) → `path` (what is asked, by grammar alone) →
//! `upstream` (of which registry) → [`Content`] (the node: where is it?) → `body` (the bytes, as the socket takes them).
//! What runtimes do with our answers is why some of them are as they are:
//! - containerd falls back to the registry request by request, on any error but 408 and 429, which it repeats here. So
//!   overload is 503.
//! - containers/image (CRI-O, podman, skopeo) chooses a mirror once, at the manifest. So whoever got a manifest from us
//!   must get every blob of it: manifests are refused at half of the load at which blobs are.
//! - A body that cannot be finished is cut with its connection, never ended short: clients resume or fail, as they would
//!   with a registry.

mod answer;
mod body;
mod conditions;
mod config;
mod content;
mod credential;
mod link;
mod manifest;
mod name;
mod path;
mod refusal;
mod response;
mod upstream;

pub use answer::router;
pub use config::{Config, ConfigError};
pub use content::{BlobContent, Content, Cut, Document, Meter, Opened, Probed, RequestKind, Resolved};
pub use httpd::{Limits, serve};
pub use name::{InvalidHost, is_repository, is_tag, parse_host};
