//! Any other system, behind a script. `benches/pull-times/README.md` says what a script is given and what it has to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{System, SystemError, printed};
use crate::site::Site;

/// A system that a script knows how to handle.
#[derive(Debug)]
pub struct Adapter {
    script: PathBuf,
    name: String,
}

impl Adapter {
    /// The script's, named after it.
    pub fn new(script: &Path) -> Self {
        // Commands run in other directories than this one.
        let script = std::path::absolute(script).unwrap_or_else(|_| script.to_owned());
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { script, name }
    }

    fn verb(&self, site: &Site<'_>, verb: &str) -> Command {
        let mut command = Command::new(&self.script);
        command.arg(verb).envs(environment(site));
        command
    }
}

impl System for Adapter {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> Result<String, SystemError> {
        printed(Command::new(&self.script).arg("version"))
    }

    fn up(&mut self, site: &Site<'_>) -> Result<(), SystemError> {
        let work = site.lab.dir("adapter");
        let log = site.lab.log("adapter");
        // What it leaves running keeps the output open, so that it is no pipe.
        let open = || std::fs::File::options().create(true).append(true).open(&log);
        let mut command = self.verb(site, "up");
        let shown = format!("{} up", self.script.display());
        let start = |source| SystemError::Start {
            command: shown.clone(),
            source,
        };
        let (out, err) = (open().map_err(start)?, open().map_err(start)?);
        let status = command
            .current_dir(work)
            .stdout(out)
            .stderr(err)
            .status()
            .map_err(start)?;
        if status.success() {
            return Ok(());
        }
        Err(SystemError::Failed {
            command: shown,
            status,
            said: std::fs::read_to_string(&log).unwrap_or_default(),
        })
    }

    fn pull(&self, site: &Site<'_>, node: usize) -> Command {
        let mut command = self.verb(site, "pull");
        command.arg(node.to_string()).env("PULL_TIMES_OUT", site.pulled(node));
        command.current_dir(site.lab.dir("adapter"));
        site.nodes[node].inside(&command)
    }

    fn down(&mut self, site: &Site<'_>) {
        if let Err(error) = printed(self.verb(site, "down").current_dir(site.lab.dir("adapter"))) {
            // Its namespaces take most of it along anyway.
            eprintln!("pull-times: {error}");
        }
    }
}

/// What each call is told.
fn environment(site: &Site<'_>) -> Vec<(&'static str, String)> {
    let list = |hosts: &[e2e::Host], of: fn(&e2e::Host) -> String| hosts.iter().map(of).collect::<Vec<_>>().join(" ");
    let namespace = |host: &e2e::Host| host.namespace().to_owned();
    let address = |host: &e2e::Host| host.address().to_string();
    vec![
        ("PULL_TIMES_REGISTRY", site.registry.address().to_string()),
        ("PULL_TIMES_REFERENCE", site.reference()),
        ("PULL_TIMES_SCHEDULER_NAMESPACE", namespace(&site.scheduler)),
        ("PULL_TIMES_SCHEDULER_ADDRESS", address(&site.scheduler)),
        ("PULL_TIMES_SEED_NAMESPACES", list(&site.seeds, namespace)),
        ("PULL_TIMES_SEED_ADDRESSES", list(&site.seeds, address)),
        ("PULL_TIMES_NODE_NAMESPACES", list(&site.nodes, namespace)),
        ("PULL_TIMES_NODE_ADDRESSES", list(&site.nodes, address)),
        ("PULL_TIMES_DIR", site.lab.path("adapter").display().to_string()),
    ]
}
