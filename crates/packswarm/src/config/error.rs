//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}, line {line}: not TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that is none.
    #[error("{place}: there is no option `{key}` for a {role}; the nearest is `{nearest}`")]
    Unknown {
        /// Where it was given.
        place: Place,
        /// As it was given.
        key: String,
        /// For which role.
        role: &'static str,
        /// What may have been meant.
        nearest: String,
    },
    /// A table where an option belongs, or the other way round.
    #[error("{place}: `{key}` is a table: write `[{key}]` and its options below it")]
    NotATable {
        /// Where it was given.
        place: Place,
        /// As it was given.
        key: String,
    },
    /// A value that the option cannot have.
    #[error("{place}: option `{key}`: {reason}")]
    Value {
        /// Where it was given.
        place: Place,
        /// The option.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Options that contradict each other.
    #[error("the options do not fit together: {reason}")]
    Together {
        /// How.
        reason: String,
    },
}

/// Where an option was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File(PathBuf),
    /// By this environment variable.
    Environment(String),
    /// On the command line, by this flag.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Refuses options that stop everything when they are 0.
pub(super) fn positive(options: &[(&'static str, u64)]) -> Result<(), ConfigError> {
    match options.iter().find(|(_, value)| *value == 0) {
        Some((option, _)) => Err(ConfigError::Together {
            reason: format!("{option} is 0, and nothing would ever happen"),
        }),
        None => Ok(()),
    }
}
