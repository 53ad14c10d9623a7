//! Reads from upstream registries: authentication, redirects, ranges and retries.
//!
//! One [`Client`] serves a process. It reads what the OCI distribution spec lets anybody read (manifests, blobs, tags,
//! referrers) and never writes. What it promises:
//!
//! - **Each byte is asked for once.** A cut or stalled answer is resumed by a range from where it stood; the answer that
//!   opened a blob, and thereby told its size, is itself the first read; a redirect to object storage is resolved once.
//! - **Credentials are the last resort.** Every repository is tried anonymously first, so that [`wire::control::Access`]
//!   is known and not guessed; credentials go to the registry and its token endpoint only, never along a redirect to
//!   another host, and never into an error, a log line or a `Debug` output.
//! - **A client's credential is the client's** ([`Client::on_behalf`]): it is shown to the registry unchanged, instead of the
//!   operator's and never beside it, and is kept by whoever asks with it only.
//! - **Errors say whose fault they are** ([`RegistryError::fault`]) and what a client should see
//!   ([`RegistryError::to_failure`]).
//!
//! What registries and credential files say is read by the pure functions of [`answer`], [`challenge`], [`credentials`] and
//! [`token`], which are public so that tests can feed them what no registry of ours would send.
//!
//! HTTP/1.1 is spoken on purpose: parallel ranges want a connection, and so a congestion window, each.

pub mod answer;
mod auth;
mod blob;
mod body;
pub mod challenge;
mod client;
mod config;
pub mod credentials;
mod endpoint;
mod error;
mod helper;
mod meter;
mod request;
mod retry;
mod stream;
mod tls;
pub mod token;
mod turns;

pub use blob::BlobReader;
pub use client::{Client, Head, Manifest};
pub use config::{ClientCertificate, Config, ConfigError, Credentials, RegistryConfig};
pub use error::{Fault, Lie, RegistryError};
pub use meter::{Meter, RequestKind};
pub use stream::RangeStream;
