//! No system: each node reads the registry itself.

use std::path::PathBuf;
use std::process::Command;

use e2e::clients::curl::{curl, join};

use super::{System, SystemError, printed};
use crate::site::Site;

/// Bytes that are asked for at a time, by some connections at once: as simple parallel downloaders do.
const RANGE: u64 = 16 << 20;

/// `curl` with parallel ranges.
#[derive(Debug)]
pub struct Straight;

impl System for Straight {
    fn name(&self) -> &'static str {
        "straight"
    }

    fn version(&self) -> Result<String, SystemError> {
        let told = printed(Command::new("curl").arg("--version"))?;
        Ok(told.split(' ').take(2).collect::<Vec<_>>().join(" "))
    }

    fn up(&mut self, _: &Site<'_>) -> Result<(), SystemError> {
        Ok(())
    }

    fn pull(&self, site: &Site<'_>, node: usize) -> Command {
        let registry = site.registry.address();
        let command = curl(&site.lab, registry, registry, site.model, RANGE, &site.pulled(node));
        site.nodes[node].inside(&command)
    }

    fn arrived(&self, site: &Site<'_>, node: usize) -> PathBuf {
        let to = site.pulled(node);
        for blob in site.model.blobs() {
            join(&to, blob);
        }
        to
    }

    fn down(&mut self, _: &Site<'_>) {}
}
