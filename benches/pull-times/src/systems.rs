//! The systems that are compared, and what each of them has to be able to do.

mod adapter;
mod straight;
mod swarm;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde_json::Value;

use crate::site::Site;

pub use adapter::Adapter;
pub use straight::Straight;
pub use swarm::{Client, Swarm};

/// A system that gets a model to nodes. It is brought up and taken down for each run.
pub trait System {
    /// What the table calls it.
    fn name(&self) -> &str;

    /// Which release of it this is.
    ///
    /// # Errors
    /// If it does not say.
    fn version(&self) -> Result<String, SystemError>;

    /// Starts whatever runs before the first pull, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    fn up(&mut self, site: &Site<'_>) -> Result<(), SystemError>;

    /// The command that pulls the model on a node, in that node's host. It ends when all bytes are there.
    fn pull(&self, site: &Site<'_>, node: usize) -> Command;

    /// The directory below which a node has each blob in a file, now that its pull has ended and no clock runs.
    fn arrived(&self, site: &Site<'_>, node: usize) -> PathBuf {
        site.pulled(node)
    }

    /// What it tells about itself after the pulls, for whoever wants to know why they took so long.
    fn details(&self) -> Value {
        Value::Null
    }

    /// Bytes of blobs that seeds have sent, if it counts them. Otherwise all that has left their links is taken.
    fn seed_bytes(&self) -> Option<u64> {
        None
    }

    /// Stops everything. It is called after failures too.
    fn down(&mut self, site: &Site<'_>);
}

/// Why a system could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// A program cannot be started.
    #[error("{command} cannot be started: {source}; is it installed, and executable?")]
    Start {
        /// What was to be started.
        command: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A program says that it has failed.
    #[error("{command} has failed ({status}): {said}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// A pull takes longer than anybody would wait.
    #[error("{command} has not ended after {seconds} s")]
    Endless {
        /// What was run.
        command: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Not the bytes that the registry has.
    #[error("{node} has no file with the content of {digest} below {}", below.display())]
    NotArrived {
        /// Where.
        node: String,
        /// Of the blob.
        digest: String,
        /// Where it was looked for.
        below: PathBuf,
    },
}

/// A system, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Every node reads the registry itself.
    Straight,
    /// packswarm, with `packswarm pull` on the nodes.
    Pull,
    /// packswarm, with containerd and `ctr` on the nodes.
    Ctr,
    /// Another system, by its adapter script.
    Adapter(PathBuf),
}

/// A name that is none of ours, and no path.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no system: write straight, pull, ctr, or the path of an adapter script")]
pub struct UnknownSystem(String);

impl FromStr for Choice {
    type Err = UnknownSystem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "straight" => Ok(Self::Straight),
            "pull" => Ok(Self::Pull),
            "ctr" => Ok(Self::Ctr),
            path if path.contains('/') => Ok(Self::Adapter(path.into())),
            other => Err(UnknownSystem(other.to_owned())),
        }
    }
}

impl Choice {
    /// The system.
    pub fn system(&self) -> Box<dyn System> {
        match self {
            Self::Straight => Box::new(Straight),
            Self::Pull => Box::new(Swarm::new(Client::Pull)),
            Self::Ctr => Box::new(Swarm::new(Client::Ctr)),
            Self::Adapter(path) => Box::new(Adapter::new(path)),
        }
    }

    /// Why it cannot be measured on this machine, if it cannot.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Ctr if !installed("containerd") || !installed("ctr") => {
                Some("containerd is not installed".to_owned())
            }
            Self::Adapter(path) if !path.exists() => Some(format!("{} does not exist", path.display())),
            Self::Straight | Self::Pull | Self::Ctr | Self::Adapter(_) => None,
        }
    }
}

/// What a short command prints, without line ends.
fn printed(command: &mut Command) -> Result<String, SystemError> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|source| SystemError::Start {
        command: shown.clone(),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(SystemError::Failed {
        command: shown,
        status: output.status,
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_systems() {
        assert_eq!("ctr".parse::<Choice>().unwrap(), Choice::Ctr);
        assert_eq!("./a".parse::<Choice>().unwrap(), Choice::Adapter("./a".into()));
        assert!(
            "dragonfly"
                .parse::<Choice>()
                .unwrap_err()
                .to_string()
                .contains("adapter script")
        );
    }

    #[test]
    fn what_is_not_there_is_said() {
        let missing = Choice::Adapter("/nowhere/adapter".into()).missing().unwrap();
        assert!(missing.contains("/nowhere/adapter"), "{missing}");
        assert_eq!(Choice::Straight.missing(), None);
        assert!(installed("sh") && !installed("no-such-program"));
    }
}
