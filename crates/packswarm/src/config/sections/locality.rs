//! Where a node stands.

use std::path::{Path, PathBuf};

use crate::config::error::{ConfigError, Place};
use crate::config::section::section;

section! {
    /// Where the node stands: labels of your choice, compared for equality only. Neighbours are sought on the same host
    /// first, then in the same rack and zone. A few nodes of each zone have neighbours in others, and
    /// fetch from there what nobody in the zone has.
    Locality;
    /// The zone or data centre. Unset: unknown, as if in none.
    zone: Option<String> = None, "eu-1a";
    /// The rack or network block. Unset: unknown.
    rack: Option<String> = None, "r12";
    /// The machine. Unset: the system's host name.
    host: Option<String> = None, "node-17";
    /// A file with a line `KEY="VALUE"` for each of these that is not set here, as Kubernetes' downward API writes labels:
    /// the keys are `zone`, `rack`, `host`, or `topology.kubernetes.io/` before one of them; others are ignored. Unset: none.
    file: Option<PathBuf> = None, "/etc/podinfo/labels";
}

/// What Kubernetes' well-known labels begin with.
const TOPOLOGY: &str = "topology.kubernetes.io/";

impl Locality {
    /// Where the node stands, with what is not set filled in from the file and the system.
    pub(crate) fn resolve(mut self) -> Result<wire::control::Locality, ConfigError> {
        if let Some(path) = self.file.take() {
            self.fill_in(&path)?;
        }
        Ok(wire::control::Locality {
            host: self.host.or_else(host_name),
            rack: self.rack,
            zone: self.zone,
        })
    }

    fn fill_in(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        for (key, value) in labels(path, &text)? {
            let label = match key.strip_prefix(TOPOLOGY).unwrap_or(key) {
                "zone" => &mut self.zone,
                "rack" => &mut self.rack,
                "host" => &mut self.host,
                _ => continue,
            };
            label.get_or_insert(value);
        }
        Ok(())
    }
}

/// The lines `KEY="VALUE"` or `KEY=VALUE` of a file.
fn labels<'t>(path: &Path, text: &'t str) -> Result<Vec<(&'t str, String)>, ConfigError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let label = |line: &'t str| {
        let (key, value) = line.split_once('=').ok_or_else(|| ConfigError::Value {
            place: Place::File(path.to_owned()),
            key: "locality.file".to_owned(),
            reason: format!("`{line}` is not KEY=\"VALUE\""),
        })?;
        Ok((key.trim(), value.trim().trim_matches('"').to_owned()))
    };
    lines.map(label).collect()
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, set: Locality) -> Result<wire::control::Locality, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("labels");
        std::fs::write(&file, text).unwrap();
        let file = Some(file);
        Locality { file, ..set }.resolve()
    }

    #[test]
    fn a_file_fills_in_what_is_not_set() {
        let labels = "app=\"packswarm\"\ntopology.kubernetes.io/zone=\"eu-1a\"\n\nrack = r12\nhost=\"other\"\n";
        let host = Some("mine".to_owned());
        let locality = read(
            labels,
            Locality {
                host,
                ..Locality::default()
            },
        )
        .unwrap();
        let wire::control::Locality { zone, rack, host } = locality;
        assert_eq!(
            (zone.as_deref(), rack.as_deref(), host.as_deref()),
            (Some("eu-1a"), Some("r12"), Some("mine"))
        );
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_named() {
        let error = read("zone", Locality::default()).unwrap_err().to_string();
        assert!(error.contains("labels") && error.contains("`zone` is not"), "{error}");
        let missing = Locality {
            file: Some("/nowhere/labels".into()),
            ..Locality::default()
        };
        let error = missing.resolve().unwrap_err().to_string();
        assert!(error.contains("/nowhere/labels"), "{error}");
    }
}
