//! `packswarm pull`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::Lab;
use crate::lab::binary;

/// `packswarm pull REFERENCE -o TO`, with nobody's Docker credentials. Where it pulls from is still to be said.
pub fn pull(lab: &Lab, reference: &str, to: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("pull").arg(reference).arg("-o").arg(to);
    command.env("DOCKER_CONFIG", lab.dir("docker-config"));
    command
}

/// The same through a mirror.
pub fn pull_through(lab: &Lab, mirror: SocketAddr, reference: &str, to: &Path) -> Command {
    let mut command = pull(lab, reference, to);
    command.arg("--mirror").arg(format!("http://{mirror}"));
    command
}
