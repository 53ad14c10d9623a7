//! Docker: `registry-mirrors` in `/etc/docker/daemon.json`, for Docker Hub only; it has no mirrors for other registries.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Request;
use super::files;
use crate::failure::Failure;

const DAEMON: &str = "/etc/docker/daemon.json";
/// The file as it was before the first change.
const BEFORE: &str = "/etc/docker/daemon.json.before-packswarm";
const KEY: &str = "registry-mirrors";
const HUB: &str = "docker.io";

pub(super) fn install(request: &Request) -> Result<Vec<String>, Failure> {
    if let Some(other) = request.registries.iter().find(|registry| registry.host != HUB) {
        return Err(format!(
            "Docker mirrors {HUB} only, not {}; pull by the mirror's own name instead: {}/{}/NAME:TAG",
            other.host,
            request.mirror().trim_start_matches("http://"),
            other.host.replace(':', "__")
        )
        .into());
    }
    let path = files::below(&request.root, DAEMON);
    let before = files::read(&path)?;
    let mut daemon = parse(&path, before.as_deref())?;
    let mirror = request.mirror();
    let mirrors = mirrors(&path, &mut daemon)?;
    let mut lines = if mirrors.iter().any(|known| known == mirror) {
        vec![format!("unchanged: {}: {HUB} through {mirror}", path.display())]
    } else {
        mirrors.insert(0, json!(mirror));
        if let Some(before) = &before {
            files::write(&files::below(&request.root, BEFORE), before)?;
        }
        files::write(&path, &text(&daemon))?;
        vec![format!("wrote {}: {HUB} through {mirror}", path.display())]
    };
    lines.push(format!(
        "note: Docker does not say which registry it means: the peer needs [mirror] default_registry = \"{HUB}\". \
         `systemctl reload docker` makes Docker read its file"
    ));
    Ok(lines)
}

pub(super) fn remove(request: &Request) -> Result<Vec<String>, Failure> {
    let path = files::below(&request.root, DAEMON);
    let now = files::read(&path)?;
    let mut daemon = parse(&path, now.as_deref())?;
    let mirrors = mirrors(&path, &mut daemon)?;
    let count = mirrors.len();
    mirrors.retain(|known| known != request.mirror());
    if mirrors.len() == count || !request.concerns(HUB) {
        return Ok(vec!["nothing to remove: Docker has no packswarm mirror".to_owned()]);
    }
    if mirrors.is_empty() {
        daemon.remove(KEY);
    }
    let backup = files::below(&request.root, BEFORE);
    let before = files::read(&backup)?;
    // The very text where nobody else changed it meanwhile: ours is written in another order.
    let same = |before: &&String| parse(&path, Some(before)).is_ok_and(|before| before == daemon);
    let line = match before.as_ref().filter(same) {
        Some(before) => {
            files::write(&path, before)?;
            format!("restored {}", path.display())
        }
        None if daemon.is_empty() => {
            files::remove(&path)?;
            format!("removed {}", path.display())
        }
        None => {
            files::write(&path, &text(&daemon))?;
            format!("wrote {}", path.display())
        }
    };
    if before.is_some() {
        files::remove(&backup)?;
    }
    Ok(vec![line])
}

pub(super) fn show(root: &Path) -> Result<Vec<String>, Failure> {
    let path = files::below(root, DAEMON);
    let mut daemon = parse(&path, files::read(&path)?.as_deref())?;
    let of = |mirror: &Value| format!("{HUB} through {} ({})", mirror.as_str().unwrap_or("?"), path.display());
    let lines: Vec<String> = mirrors(&path, &mut daemon)?.iter().map(of).collect();
    Ok(if lines.is_empty() {
        vec!["Docker has no mirror".to_owned()]
    } else {
        lines
    })
}

fn parse(path: &Path, text: Option<&str>) -> Result<Map<String, Value>, Failure> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{}");
    serde_json::from_str(text)
        .map_err(|error| format!("{} is no JSON object: {error}; repair it first", path.display()).into())
}

fn mirrors<'d>(path: &Path, daemon: &'d mut Map<String, Value>) -> Result<&'d mut Vec<Value>, Failure> {
    let entry = daemon.entry(KEY).or_insert_with(|| json!([]));
    let wrong = || format!("{}: `{KEY}` is no list; repair it first", path.display());
    entry.as_array_mut().ok_or_else(|| wrong().into())
}

fn text(daemon: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(daemon).expect("JSON can be written") + "\n"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::request;
    use super::*;

    #[test]
    fn a_file_that_was_there_is_restored_to_the_letter() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(&DAEMON[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let theirs = "{ \"log-driver\": \"journald\",\n  \"registry-mirrors\": [\"https://m.example\"] }";
        fs::write(&path, theirs).unwrap();
        let request = request(root.path(), &["docker.io"]);
        assert!(install(&request).unwrap()[0].starts_with("wrote"));
        assert!(install(&request).unwrap()[0].starts_with("unchanged"));
        let now: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(now[KEY], json!(["http://127.0.0.1:7655", "https://m.example"]));
        assert_eq!(now["log-driver"], "journald");
        assert_eq!(show(root.path()).unwrap().len(), 2);
        assert!(remove(&request).unwrap()[0].starts_with("restored"));
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_goes_again() {
        let root = tempfile::tempdir().unwrap();
        let request = request(root.path(), &["docker.io"]);
        install(&request).unwrap();
        assert!(remove(&request).unwrap()[0].starts_with("removed"));
        assert!(!root.path().join(&DAEMON[1..]).exists());
        assert!(remove(&request).unwrap()[0].starts_with("nothing"));
    }

    #[test]
    fn what_others_changed_meanwhile_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(&DAEMON[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{}").unwrap();
        let request = request(root.path(), &["docker.io"]);
        install(&request).unwrap();
        let changed = fs::read_to_string(&path).unwrap().replace('{', "{ \"debug\": true,");
        fs::write(&path, changed).unwrap();
        remove(&request).unwrap();
        let now: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(now, json!({ "debug": true }));
    }

    #[test]
    fn other_registries_are_refused_with_advice() {
        let root = tempfile::tempdir().unwrap();
        let error = install(&request(root.path(), &["r.example:5000"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("127.0.0.1:7655/r.example__5000/NAME:TAG"), "{error}");
    }
}
