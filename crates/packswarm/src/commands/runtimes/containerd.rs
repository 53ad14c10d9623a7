//! containerd: a `hosts.toml` per registry below `/etc/containerd/certs.d`.
//!
//! containerd asks the hosts of that file from top to bottom, each request anew, and then the registry itself.

use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use super::{Registry, Request};
use crate::failure::Failure;

const HOSTS: &str = "/etc/containerd/certs.d";
const CONFIG: &str = "/etc/containerd/config.toml";
const BEGIN: &str = "# packswarm mirror: begin";
const END: &str = "# packswarm mirror: end";
/// In a file that was not there before.
const OURS: &str = "# Made by `packswarm mirror install`; `packswarm mirror remove` removes it.";

pub(super) fn install(request: &Request) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for registry in &request.registries {
        let path = hosts_toml(&request.root, &registry.host);
        let text = match files::read(&path)? {
            Some(text) => insert(&without_block(&text), request.mirror()),
            None => format!(
                "{OURS}\nserver = \"{}\"\n\n{}",
                server(registry),
                block(request.mirror())
            ),
        };
        let done = if files::write(&path, &text)? {
            "wrote"
        } else {
            "unchanged:"
        };
        lines.push(format!(
            "{done} {}: {} through {}",
            path.display(),
            registry.host,
            request.mirror()
        ));
    }
    if !files::read(&files::below(&request.root, CONFIG))?.is_some_and(|config| config.contains("config_path")) {
        lines.push(format!(
            "note: containerd reads these files if {CONFIG} says so: under [plugins.\"io.containerd.grpc.v1.cri\".registry] \
             (version 3: [plugins.\"io.containerd.cri.v1.images\".registry]) set config_path = \"{HOSTS}\", and restart it \
             once. Later changes need no restart"
        ));
    }
    Ok(lines)
}

pub(super) fn remove(request: &Request) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for (host, path, text) in installed(&request.root)? {
        if !request.concerns(&host) {
            continue;
        }
        if text.starts_with(OURS) {
            files::remove(&path)?;
            lines.push(format!("removed {}", path.display()));
        } else {
            files::write(&path, &without_block(&text))?;
            lines.push(format!("restored {}", path.display()));
        }
    }
    if lines.is_empty() {
        lines.push("nothing to remove: containerd has no packswarm mirror for that".to_owned());
    }
    Ok(lines)
}

pub(super) fn show(root: &Path) -> Result<Vec<String>, Failure> {
    let found = installed(root)?.into_iter().map(|(host, path, text)| {
        let mirror = text
            .split("[host.\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("?");
        format!("{host} through {mirror} ({})", path.display())
    });
    let lines: Vec<String> = found.collect();
    Ok(if lines.is_empty() {
        vec!["containerd has no packswarm mirror".to_owned()]
    } else {
        lines
    })
}

/// Every file with our marks in it: the registry, where, and the text.
fn installed(root: &Path) -> Result<Vec<(String, PathBuf, String)>, Failure> {
    let Ok(entries) = fs::read_dir(files::below(root, HOSTS)) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path().join("hosts.toml");
        if let Some(text) = files::read(&path)?.filter(|text| text.contains(BEGIN)) {
            found.push((host_of(&entry.file_name().to_string_lossy()), path, text));
        }
    }
    found.sort();
    Ok(found)
}

/// containerd takes `HOST_PORT_` for `HOST:PORT`, and prefers it.
fn hosts_toml(root: &Path, host: &str) -> PathBuf {
    let name = host
        .rsplit_once(':')
        .map_or_else(|| host.to_owned(), |(name, port)| format!("{name}_{port}_"));
    files::below(root, HOSTS).join(name).join("hosts.toml")
}

fn host_of(directory: &str) -> String {
    let port = directory.strip_suffix('_').and_then(|rest| rest.rsplit_once('_'));
    port.map_or_else(|| directory.to_owned(), |(host, port)| format!("{host}:{port}"))
}

fn server(registry: &Registry) -> String {
    match (registry.host.as_str(), registry.plain) {
        ("docker.io", _) => "https://registry-1.docker.io".to_owned(),
        (host, true) => format!("http://{host}"),
        (host, false) => format!("https://{host}"),
    }
}

fn block(mirror: &str) -> String {
    format!("{BEGIN}\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{END}\n")
}

/// Before the first host, for containerd asks from top to bottom.
fn insert(text: &str, mirror: &str) -> String {
    let at = text.lines().position(|line| line.trim_start().starts_with("[host"));
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (before, after) = lines.split_at(at.unwrap_or(lines.len()));
    let before = before.concat();
    let newline = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{before}{newline}{}{}", block(mirror), after.concat())
}

fn without_block(text: &str) -> String {
    let Some((before, rest)) = text.split_once(BEGIN) else {
        return text.to_owned();
    };
    let Some((_, after)) = rest.split_once(END) else {
        return text.to_owned();
    };
    format!("{before}{}", after.strip_prefix('\n').unwrap_or(after))
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    #[test]
    fn a_new_file_says_where_to_pull_and_goes_again() {
        let root = tempfile::tempdir().unwrap();
        let request = request(root.path(), &["r.example", "127.0.0.1:5000", "docker.io"]);
        let lines = install(&request).unwrap();
        assert!(lines[0].starts_with("wrote"), "{lines:?}");
        assert!(lines[3].contains("config_path"), "{lines:?}");
        let path = root.path().join("etc/containerd/certs.d/127.0.0.1_5000_/hosts.toml");
        let text = fs::read_to_string(&path).unwrap();
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(parsed["server"].as_str(), Some("http://127.0.0.1:5000"));
        let mirror = &parsed["host"]["http://127.0.0.1:7655"];
        assert_eq!(mirror["capabilities"].as_array().unwrap().len(), 2);
        assert!(install(&request).unwrap()[0].starts_with("unchanged"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(show(root.path()).unwrap().len(), 3);
        assert!(show(root.path()).unwrap()[0].starts_with("127.0.0.1:5000 through http://127.0.0.1:7655"));
        remove(&super::super::tests::request(root.path(), &["r.example"])).unwrap();
        assert_eq!(show(root.path()).unwrap().len(), 2);
        remove(&super::super::tests::request(root.path(), &[])).unwrap();
        assert!(!path.exists());
        assert!(show(root.path()).unwrap()[0].contains("no packswarm mirror"));
    }

    #[test]
    fn somebody_elses_file_is_left_as_it_was() {
        for theirs in [
            "server = \"https://r.example\"\n\n[host.\"https://other.example\"]\n  capabilities = [\"pull\"]\n",
            "server = \"https://r.example\"",
            "",
        ] {
            let root = tempfile::tempdir().unwrap();
            let path = hosts_toml(root.path(), "r.example");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, theirs).unwrap();
            let request = request(root.path(), &["r.example"]);
            install(&request).unwrap();
            install(&request).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let ours = text.find("127.0.0.1:7655").unwrap();
            assert!(
                text.find("other.example").is_none_or(|other| ours < other),
                "ours comes first:\n{text}"
            );
            toml::from_str::<toml::Table>(&text).unwrap();
            remove(&request).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap().trim_end(), theirs.trim_end());
        }
    }
}
