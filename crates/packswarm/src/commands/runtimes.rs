//! `packswarm mirror`: telling container runtimes of this node's mirror, and taking it back.
//!
//! Nothing that was there before is lost: a file of somebody else is edited between marks or merged, and `remove` leaves
//! it as it was.

mod containerd;
mod containers;
mod docker;
mod files;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::print;
use crate::failure::Failure;
use crate::http::base;

/// Where a peer's mirror listens unless told otherwise.
pub(super) const MIRROR: &str = "http://127.0.0.1:7655";

/// `packswarm mirror`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Have a runtime pull from these registries through the mirror, and from the registry itself when the mirror cannot.
    Install(What),
    /// Take it back. Without --registry: for all of them.
    Remove(What),
    /// Show what is configured.
    Show(Where),
}

#[derive(Debug, clap::Args)]
struct What {
    #[command(flatten)]
    at: Where,
    /// Registries; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", num_args = 1..)]
    registry: Vec<String>,
    /// Those of them that speak plain HTTP; loopback ones do anyway.
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// The mirror.
    #[arg(long, value_name = "URL", default_value = MIRROR)]
    mirror: String,
}

#[derive(Debug, clap::Args)]
struct Where {
    /// The container runtime.
    #[arg(long)]
    runtime: Runtime,
    /// The root of the system whose configuration is meant.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Runtime {
    Containerd,
    Crio,
    Podman,
    Docker,
}

/// What is to be configured.
#[derive(Debug)]
struct Request {
    root: PathBuf,
    registries: Vec<Registry>,
    mirror: reqwest::Url,
}

/// A registry that is to be mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Registry {
    /// `HOST[:PORT]`.
    host: String,
    /// Whether it speaks plain HTTP.
    plain: bool,
}

/// Changes configurations, and says what was done.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let lines = match &args.command {
        Command::Install(what) => {
            let request = what.request()?;
            if request.registries.is_empty() {
                return Err("name the registries to mirror: --registry HOST...".into());
            }
            match what.at.runtime {
                Runtime::Containerd => containerd::install(&request)?,
                Runtime::Crio | Runtime::Podman => containers::install(&request)?,
                Runtime::Docker => docker::install(&request)?,
            }
        }
        Command::Remove(what) => {
            let request = what.request()?;
            match what.at.runtime {
                Runtime::Containerd => containerd::remove(&request)?,
                Runtime::Crio | Runtime::Podman => containers::remove(&request)?,
                Runtime::Docker => docker::remove(&request)?,
            }
        }
        Command::Show(at) => match at.runtime {
            Runtime::Containerd => containerd::show(&at.root)?,
            Runtime::Crio | Runtime::Podman => containers::show(&at.root)?,
            Runtime::Docker => docker::show(&at.root)?,
        },
    };
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

impl What {
    fn request(&self) -> Result<Request, Failure> {
        let registries = self.registry.iter().map(|host| {
            if mirror::parse_host(host).is_err() {
                return Err(format!("`{host}` is no registry: write HOST or HOST:PORT"));
            }
            let listed = self.insecure_registry.iter().any(|insecure| insecure == host);
            Ok(Registry {
                host: host.to_ascii_lowercase(),
                plain: listed || is_loopback(host),
            })
        });
        Ok(Request {
            root: self.at.root.clone(),
            registries: registries.collect::<Result<_, _>>()?,
            mirror: base(&self.mirror)?,
        })
    }
}

impl Request {
    /// The mirror without a slash at its end.
    fn mirror(&self) -> &str {
        self.mirror.as_str().trim_end_matches('/')
    }

    /// Whether it is to be taken back for this registry.
    fn concerns(&self, host: &str) -> bool {
        self.registries.is_empty() || self.registries.iter().any(|registry| registry.host == host)
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request for these registries below `root`, with the default mirror.
    pub(super) fn request(root: &std::path::Path, hosts: &[&str]) -> Request {
        let what = What {
            at: Where {
                runtime: Runtime::Containerd,
                root: root.to_owned(),
            },
            registry: hosts.iter().map(ToString::to_string).collect(),
            insecure_registry: Vec::new(),
            mirror: MIRROR.to_owned(),
        };
        what.request().unwrap()
    }

    #[test]
    fn loopback_registries_are_plain() {
        let request = request("/".as_ref(), &["localhost:5000", "r.example", "127.0.0.1:5000"]);
        assert_eq!(
            request
                .registries
                .iter()
                .map(|registry| registry.plain)
                .collect::<Vec<_>>(),
            [true, false, true]
        );
    }
}
