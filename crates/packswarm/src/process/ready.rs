//! The file that says that a process is ready, for whoever started it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What the file says. Part of the contract.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    pub(crate) role: &'static str,
    pub(crate) peer_id: String,
    pub(crate) control: SocketAddr,
    pub(crate) data: Option<SocketAddr>,
    pub(crate) mirror: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

/// Where it goes, if anywhere.
#[derive(Debug)]
pub(crate) struct ReadyFile(Option<PathBuf>);

/// The file could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the ready file {}: {source}", path.display())]
pub(crate) struct ReadyError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl ReadyFile {
    /// Removes what an earlier process left there.
    pub(crate) fn clear(path: Option<&Path>) -> Result<Self, ReadyError> {
        if let Some(path) = path
            && let Err(source) = fs::remove_file(path)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(ReadyError {
                doing: "remove",
                path: path.to_owned(),
                source,
            });
        }
        Ok(Self(path.map(Path::to_owned)))
    }

    /// Puts it in place, whole.
    pub(crate) fn write(&self, ready: &Ready) -> Result<(), ReadyError> {
        let Some(path) = &self.0 else { return Ok(()) };
        let mut draft = path.clone().into_os_string();
        draft.push(format!(".{}", std::process::id()));
        let text = serde_json::to_string(ready).expect("addresses and names are JSON") + "\n";
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
        written.map_err(|source| {
            // Best effort: a draft is nobody's ready file.
            let _ = fs::remove_file(&draft);
            ReadyError {
                doing: "write",
                path: path.clone(),
                source,
            }
        })
    }

    /// Takes it away; the process is going.
    pub(crate) fn remove(&self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the ready file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_flat_json_put_in_place_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        fs::write(&path, "old").unwrap();
        let file = ReadyFile::clear(Some(&path)).unwrap();
        assert!(!path.exists(), "an earlier process's is gone");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ready = Ready {
            role: "peer",
            peer_id: "12D3KooW".into(),
            control: at(1),
            data: Some("[::1]:2".parse().unwrap()),
            mirror: None,
            admin: at(4),
        };
        file.write(&ready).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"role\":\"peer\",\"peer_id\":\"12D3KooW\",\"control\":\"127.0.0.1:1\",\"data\":\"[::1]:2\",\
             \"mirror\":null,\"admin\":\"127.0.0.1:4\"}\n"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays");
        file.remove();
        assert!(!path.exists());
    }

    #[test]
    fn errors_name_the_file() {
        let file = ReadyFile(Some("/nonexistent/ready.json".into()));
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let ready = Ready {
            role: "peer",
            peer_id: String::new(),
            control: at,
            data: None,
            mirror: None,
            admin: at,
        };
        let error = file.write(&ready).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write the ready file /nonexistent/ready.json"),
            "{error}"
        );
    }
}
