//! CRI-O, podman, skopeo: all read `registries.conf` with its drop-ins, so one drop-in serves them all.
//!
//! They choose between mirror and registry once, at the manifest; whoever got a manifest from our mirror gets every blob.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files;
use super::{Registry, Request};
use crate::failure::Failure;

const DROP_IN: &str = "/etc/containers/registries.conf.d/050-packswarm.conf";
const OURS: &str =
    "# Made by `packswarm mirror install`; `packswarm mirror remove` removes it. CRI-O, podman and skopeo read it.\n";

#[derive(Debug, Default, Serialize, Deserialize)]
struct RegistriesConf {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    prefix: String,
    location: String,
    #[serde(default)]
    insecure: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mirror {
    location: String,
    insecure: bool,
}

pub(super) fn install(request: &Request) -> Result<Vec<String>, Failure> {
    let mut entries = entries(&request.root)?;
    for registry in &request.registries {
        entries.insert(registry.host.clone(), Entry::new(registry, request));
    }
    let written = write(&request.root, entries)?;
    let path = files::below(&request.root, DROP_IN);
    let done = if written { "wrote" } else { "unchanged:" };
    let of = |registry: &Registry| {
        format!(
            "{done} {}: {} through {}",
            path.display(),
            registry.host,
            request.mirror()
        )
    };
    let mut lines: Vec<String> = request.registries.iter().map(of).collect();
    lines.push("note: podman and skopeo read it at once; CRI-O on `systemctl reload crio`".to_owned());
    Ok(lines)
}

pub(super) fn remove(request: &Request) -> Result<Vec<String>, Failure> {
    let mut entries = entries(&request.root)?;
    let before = entries.len();
    entries.retain(|host, _| !request.concerns(host));
    if entries.len() == before {
        return Ok(vec![
            "nothing to remove: registries.conf.d has no packswarm mirror for that".to_owned(),
        ]);
    }
    let path = files::below(&request.root, DROP_IN);
    if entries.is_empty() {
        files::remove(&path)?;
        return Ok(vec![format!("removed {}", path.display())]);
    }
    write(&request.root, entries)?;
    Ok(vec![format!("wrote {}", path.display())])
}

pub(super) fn show(root: &Path) -> Result<Vec<String>, Failure> {
    let entries = entries(root)?;
    let of = |(host, entry): (&String, &Entry)| {
        let mirror = entry.mirror.first().map_or("?", |mirror| mirror.location.as_str());
        format!("{host} through {mirror} ({})", files::below(root, DROP_IN).display())
    };
    let lines: Vec<String> = entries.iter().map(of).collect();
    Ok(if lines.is_empty() {
        vec!["registries.conf.d has no packswarm mirror".to_owned()]
    } else {
        lines
    })
}

impl Entry {
    /// These clients replace the prefix by the mirror's location; a port's colon cannot stand in a path.
    fn new(registry: &Registry, request: &Request) -> Self {
        let host = &registry.host;
        let authority = request
            .mirror()
            .split_once("://")
            .map_or(request.mirror(), |(_, authority)| authority);
        Self {
            prefix: host.clone(),
            location: host.clone(),
            insecure: registry.plain,
            mirror: vec![Mirror {
                location: format!("{authority}/{}", host.replace(':', "__")),
                insecure: request.mirror.scheme() == "http",
            }],
        }
    }
}

fn entries(root: &Path) -> Result<BTreeMap<String, Entry>, Failure> {
    let path = files::below(root, DROP_IN);
    let Some(text) = files::read(&path)? else {
        return Ok(BTreeMap::new());
    };
    let parsed: RegistriesConf = toml::from_str(&text).map_err(|error| {
        format!(
            "{} was changed by somebody: {}; repair or remove it",
            path.display(),
            error.message()
        )
    })?;
    Ok(parsed
        .registry
        .into_iter()
        .map(|entry| (entry.prefix.clone(), entry))
        .collect())
}

fn write(root: &Path, entries: BTreeMap<String, Entry>) -> Result<bool, Failure> {
    let conf = RegistriesConf {
        registry: entries.into_values().collect(),
    };
    let text = toml::to_string(&conf).expect("names are TOML");
    Ok(files::write(&files::below(root, DROP_IN), &format!("{OURS}\n{text}"))?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    #[test]
    fn adds_registries_to_one_file_and_takes_them_back() {
        let root = tempfile::tempdir().unwrap();
        install(&request(root.path(), &["quay.io"])).unwrap();
        let lines = install(&request(root.path(), &["127.0.0.1:5000"])).unwrap();
        assert!(lines[0].starts_with("wrote"), "{lines:?}");
        let path = root.path().join(&DROP_IN[1..]);
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed: RegistriesConf = toml::from_str(&text).unwrap();
        let [loopback, quay] = &parsed.registry[..] else {
            panic!("{text}")
        };
        assert_eq!(loopback.mirror[0].location, "127.0.0.1:7655/127.0.0.1__5000");
        assert!(loopback.insecure && loopback.mirror[0].insecure);
        assert_eq!((quay.location.as_str(), quay.insecure), ("quay.io", false));
        assert_eq!(quay.mirror[0].location, "127.0.0.1:7655/quay.io");
        assert!(install(&request(root.path(), &["quay.io"])).unwrap()[0].starts_with("unchanged"));
        assert_eq!(show(root.path()).unwrap().len(), 2);
        remove(&request(root.path(), &["quay.io"])).unwrap();
        assert_eq!(show(root.path()).unwrap().len(), 1);
        remove(&request(root.path(), &[])).unwrap();
        assert!(!path.exists());
        assert!(remove(&request(root.path(), &[])).unwrap()[0].starts_with("nothing"));
    }
}
