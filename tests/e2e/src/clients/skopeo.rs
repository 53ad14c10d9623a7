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
    let name = format!("registries-{}.conf", mirror.port());
    let config = lab.file(name, &text);
    let mut command = Command::new("skopeo");
    command.arg("--registries-conf").arg(config).arg("--insecure-policy");
    command.env("REGISTRY_AUTH_FILE", lab.file("no-auth.json", "{}"));
    command
        .arg("copy")
        .arg("--preserve-digests")
        .arg(format!("docker://{reference}"));
    command.arg(format!("dir:{}", to.display()));
    command
}
