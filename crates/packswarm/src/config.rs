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

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use error::ConfigError;
pub(crate) use layers::{Flag, environment, load};
pub(crate) use node::{NodeSettings, PeerFile, SeedFile};
pub(crate) use print::{default_toml, documentation};
pub(crate) use scheduler::{SchedulerFile, SchedulerSettings};
pub(crate) use sections::{Format, Log, Process};

use section::SectionInfo;

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
