//! `packswarm config`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::print;
use crate::config::{PeerFile, RoleFile, SchedulerFile, SeedFile, default_toml, documentation, load};
use crate::failure::Failure;

/// `packswarm config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a role's configuration: every option with its meaning and default.
    Default {
        /// Of which role.
        role: Role,
    },
    /// Read a configuration and say what is wrong with it.
    Check {
        /// The configuration.
        file: PathBuf,
        /// Of which role; else the one that the file's name begins with.
        #[arg(long)]
        role: Option<Role>,
    },
    /// Print docs/configuration.md.
    #[command(hide = true)]
    Docs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Scheduler,
    Seed,
    Peer,
}

/// Prints or checks.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Default { role: Role::Scheduler } => print(&default_toml::<SchedulerFile>()),
        Command::Default { role: Role::Seed } => print(&default_toml::<SeedFile>()),
        Command::Default { role: Role::Peer } => print(&default_toml::<PeerFile>()),
        Command::Check { file, role } => {
            let role = role.map_or_else(|| role_of(file), Ok)?;
            match role {
                Role::Scheduler => drop(check::<SchedulerFile>(file)?),
                Role::Seed => registries(&check::<SeedFile>(file)?.config)?,
                Role::Peer => registries(&check::<PeerFile>(file)?.config)?,
            }
            let name = role
                .to_possible_value()
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default();
            print(&format!("{} is a valid configuration of a {name}\n", file.display()))
        }
        Command::Docs => print(&documentation()),
    }
}

fn check<R: RoleFile>(file: &Path) -> Result<R::Settings, Failure> {
    Ok(load::<R>(Some(file), &[], Vec::new())?.settings()?)
}

/// What the registry client would refuse at start: hosts that are none, files that cannot be read.
fn registries(config: &peer::Config) -> Result<(), Failure> {
    registry::Client::new(config.registry.clone())
        .map(drop)
        .map_err(Failure::from)
}

fn role_of(file: &Path) -> Result<Role, Failure> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let found = Role::value_variants().iter().find(|role| {
        role.to_possible_value()
            .is_some_and(|value| name.contains(value.get_name()))
    });
    let unclear = || {
        format!(
            "the name of {} does not say of which role it is: add --role ROLE",
            file.display()
        )
    };
    found.copied().ok_or_else(|| unclear().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, text: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        run(&Args {
            command: Command::Check { file, role: None },
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_name_tells_the_role() {
        assert_eq!(role_of(Path::new("/etc/packswarm/seed.toml")).unwrap(), Role::Seed);
        assert_eq!(role_of(Path::new("my-scheduler.toml")).unwrap(), Role::Scheduler);
        assert!(
            role_of(Path::new("config.toml"))
                .unwrap_err()
                .to_string()
                .contains("--role")
        );
    }

    #[test]
    fn finds_what_would_fail_at_the_start() {
        assert_eq!(checked("peer.toml", "[mirror]\nlisten = \"127.0.0.1:1\""), Ok(()));
        assert!(
            checked("seed.toml", "[mirror]")
                .unwrap_err()
                .contains("no option `mirror` for a seed")
        );
        assert!(
            checked("peer.toml", "[registry]\ninsecure = [\"http://r\"]")
                .unwrap_err()
                .contains("http://r")
        );
        let missing = "[registry.\"r.example\"]\nca_file = \"/nonexistent/ca.pem\"";
        assert!(
            checked("peer.toml", missing)
                .unwrap_err()
                .contains("/nonexistent/ca.pem")
        );
    }
}
