//! What an operator sets, in layers: flags over environment over file over defaults.
//!
//! Every option is declared once, in `sections`, with its type, default, documentation and the field of a part's
//! configuration that it sets. Everything else is derived from there: the keys of the file, the names of environment
//! variables, `config default`, `docs/configuration.md`, and what a misspelt key is told.

mod error;
mod keys;
mod layers;
mod node;
mod print;
mod scheduler;
mod section;
mod sections;
pub(crate) mod size;
pub(crate) mod time;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::control::Role;

pub use error::{ConfigError, Place};
pub(crate) use layers::{Flag, environment, load};
pub(crate) use node::{NodeSettings, PeerFile, SeedFile};
pub(crate) use print::{default_toml, documentation};
pub(crate) use scheduler::{SchedulerFile, SchedulerSettings};
pub(crate) use sections::{Format, Log, Process};

use section::SectionInfo;

/// Reads `text` as the configuration of a role, as its process and `packswarm config check` do, and gives back all options
/// as they then are, written as TOML. `path` is where it stands, for errors.
///
/// # Errors
/// If it is no TOML, a key is unknown, a value is not what its option takes, or options contradict each other.
pub fn check(role: Role, path: &Path, text: &str) -> Result<String, ConfigError> {
    fn of<R: RoleFile>(path: &Path, text: &str) -> Result<String, ConfigError> {
        let read: R = layers::read(path, text)?;
        let written = toml::to_string(&read).expect("what was read can be written");
        read.settings().map(|_| written)
    }
    match role {
        Role::Scheduler => of::<SchedulerFile>(path, text),
        Role::Seed => of::<SeedFile>(path, text),
        Role::Peer => of::<PeerFile>(path, text),
    }
}

/// The options of one role.
pub(crate) trait RoleFile: Serialize + DeserializeOwned {
    /// The role's name.
    const ROLE: &'static str;
    /// Its tables, in the order in which they are written.
    const SECTIONS: &'static [SectionInfo];
    /// What the options mean to the parts that run.
    type Settings: std::fmt::Debug;

    /// The options when nobody sets any.
    fn defaults() -> Self;

    /// What they mean to the parts that run.
    ///
    /// # Errors
    /// If options do not fit together.
    fn settings(self) -> Result<Self::Settings, ConfigError>;
}
