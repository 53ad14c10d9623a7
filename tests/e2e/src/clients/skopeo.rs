//! `skopeo copy` with a mirror in its `registries.conf`: containers/image, as CRI-O and podman have it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::Lab;

/// Copies `reference` from `registry` to the directory `to`, through `mirror`.
pub fn skopeo(lab: &Lab, registry: SocketAddr, mirror: SocketAddr, reference: &str, to: &Path) -> Command {
    let alias = registry.to_string().replace(':', "__");
    let text = format!(
        "[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{mirror}/{alias}\"\ninsecure = true\n"
    );
    let config = lab.file(format!("registries-{}.conf", mirror.port()), &text);
    skopeo_with(lab, &config, reference, to)
}

/// The same with a `registries.conf`, or a drop-in file, that somebody else has written.
pub fn skopeo_with(lab: &Lab, config: &Path, reference: &str, to: &Path) -> Command {
    skopeo_as(config, reference, to, &lab.file("no-auth.json", "{}"))
}

/// The same with the credentials in this file.
pub fn skopeo_as(config: &Path, reference: &str, to: &Path, auth: &Path) -> Command {
    let mut command = Command::new("skopeo");
    command.env("REGISTRY_AUTH_FILE", auth);
    command.arg("--registries-conf").arg(config).arg("--insecure-policy");
    command
        .arg("copy")
        .arg("--preserve-digests")
        .arg(format!("docker://{reference}"));
    command.arg(format!("dir:{}", to.display()));
    command
}
