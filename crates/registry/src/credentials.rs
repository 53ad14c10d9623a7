//! This node's credentials: Docker's `config.json`, podman's `auth.json`, the credential helpers that these name, or a file
//! with `user:password`.
//!
//! Files are read when a registry has refused an anonymous request, and what was read lives until the request is made.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use wire::control::Repository;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::config::Credentials;
use crate::error::RegistryError;
pub use crate::helper::Helper;

/// The most bytes of a credentials file: Docker's holds a few hundred per registry.
const MAX_FILE: u64 = 1 << 20;

/// The key under which Docker keeps what is for Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a registry or its token endpoint accepts instead of anonymity.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub enum Credential {
    /// User and password.
    Basic {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// An OAuth2 refresh token (`identitytoken`), good for the token endpoint only.
    Identity(String),
}

impl Credential {
    /// The value of `Authorization: Basic`.
    pub fn basic(&self) -> Option<Zeroizing<String>> {
        match self {
            Self::Basic { user, password } => {
                let pair = Zeroizing::new(format!("{user}:{password}"));
                Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
            }
            Self::Identity(_) => None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(redacted)",
            Self::Identity(_) => "Identity(redacted)",
        })
    }
}

/// The credential for `repository` in `place`, if it has one. `aliases` are other hosts under which the same registry
/// may be listed.
pub(crate) async fn find(
    place: Credentials,
    repository: &Repository,
    aliases: &[&str],
) -> Result<Option<Credential>, RegistryError> {
    let wanted: Vec<String> = std::iter::once(repository.registry.as_str())
        .chain(aliases.iter().copied())
        .map(|host| format!("{host}/{}", repository.name))
        .collect();
    let path = place.path().to_path_buf();
    look(place, wanted).await.map_err(|reason| RegistryError::Credentials {
        registry: repository.registry.clone(),
        path,
        reason,
    })
}

async fn look(place: Credentials, wanted: Vec<String>) -> Result<Option<Credential>, String> {
    let read = tokio::task::spawn_blocking(move || place.load()?.find(&wanted));
    let found = read.await.map_err(|_| "the reading task was stopped".to_owned())??;
    match found {
        Some(Found::Here(credential)) => Ok(Some(credential)),
        Some(Found::Kept(helper)) => helper.get().await,
        None => Ok(None),
    }
}

impl Credentials {
    /// The file.
    pub(crate) const fn path(&self) -> &PathBuf {
        match self {
            Self::DockerConfig(path) | Self::File(path) => path,
        }
    }

    /// Whether the file is readable and well formed now; the reason when it is not.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<Loaded, String> {
        match self {
            Self::DockerConfig(path) => DockerConfig::parse(&read(path)?).map(Loaded::Docker),
            Self::File(path) => {
                private(path)?;
                pair(read(path)?.trim_end_matches(['\r', '\n'])).map(Loaded::One)
            }
        }
    }
}

/// What a file held.
enum Loaded {
    Docker(DockerConfig),
    One(Credential),
}

impl Loaded {
    fn find(self, wanted: &[String]) -> Result<Option<Found>, String> {
        match self {
            Self::One(credential) => Ok(Some(Found::Here(credential))),
            Self::Docker(config) => config.find(wanted),
        }
    }
}

/// Where a registry's credential is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// In the file.
    Here(Credential),
    /// With a program that the file names.
    Kept(Helper),
}

/// Docker's `config.json`, as far as it concerns us.
#[derive(Deserialize)]
pub struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

/// One registry's entry; empty when the secret is in a credential helper.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity: Option<String>,
}

impl DockerConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Where it is not as it should be; never what stands there.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Of serde's message only the place is kept: it may quote the value that it choked on.
        serde_json::from_str(text)
            .map_err(|e| format!("not a Docker config.json (line {}, column {})", e.line(), e.column()))
    }

    /// The entry whose key is the longest prefix of one of the names: `HOST`, or podman's `HOST/NAMESPACE`. Without one that
    /// holds a secret, the helper that the file names for the registry (`credHelpers`), or for all (`credsStore`).
    ///
    /// # Errors
    /// If that entry holds no credential that makes sense, or the helper's name is none; a secret is not in the text.
    pub fn find(&self, wanted: &[String]) -> Result<Option<Found>, String> {
        let listed = best(self.auths.iter(), wanted);
        let credential = listed.map(|(key, entry)| {
            let key = place(key);
            entry.credential().map_err(|e| format!("the entry for {key}: {e}"))
        });
        if let Some(credential) = credential.transpose()?.flatten() {
            return Ok(Some(Found::Here(credential)));
        }
        if let Some((server, name)) = best(self.helpers.iter(), wanted) {
            return Helper::new(name, server).map(|helper| Some(Found::Kept(helper)));
        }
        let Some(name) = self.store.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        // Whoever logged in through the store left an empty entry with the key that the store knows.
        let listed = listed.map(|(key, _)| key.as_str());
        let host = || wanted.first().and_then(|name| name.split('/').next());
        let server = listed.or_else(|| is_hub(wanted).then_some(DOCKER_HUB)).or_else(host);
        let helper = server.map(|server| Helper::new(name, server).map(Found::Kept));
        helper.transpose()
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        if let Some(token) = self.identity.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| "`auth` is not base64")?);
            let text = std::str::from_utf8(&bytes).map_err(|_| "`auth` is not UTF-8 inside its base64")?;
            // Docker pads old entries with NULs.
            return pair(text.trim_end_matches('\0')).map(Some);
        }
        let given = self
            .username
            .as_ref()
            .zip(self.password.as_ref())
            .filter(|(user, _)| !user.is_empty());
        if given.is_some_and(|(user, _)| user.contains(':')) {
            // RFC 7617, section 2: Basic would make another user of it.
            return Err("`username` has a colon, which no registry could tell from the password".to_owned());
        }
        Ok(given.map(|(user, password)| Credential::Basic {
            user: user.clone(),
            password: password.clone(),
        }))
    }
}

/// A key of `auths` as `HOST[:PORT][/NAMESPACE]`: Docker Hub's is the URL `https://index.docker.io/v1/`.
fn place(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key)
}

/// The entry with the most particular key that covers one of the names.
fn best<'a, T>(entries: impl Iterator<Item = (&'a String, &'a T)>, wanted: &[String]) -> Option<(&'a String, &'a T)> {
    entries
        .filter(|(key, _)| covers(place(key), wanted))
        .max_by_key(|(key, _)| place(key).len())
}

fn is_hub(wanted: &[String]) -> bool {
    covers(place(DOCKER_HUB), wanted)
}

fn covers(place: &str, wanted: &[String]) -> bool {
    wanted.iter().any(|name| {
        name.strip_prefix(place)
            .is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
    })
}

fn pair(text: &str) -> Result<Credential, String> {
    let (user, password) = text.split_once(':').ok_or("not of the form user:password")?;
    if user.is_empty() || text.contains(['\n', '\r']) {
        return Err("not one line of the form user:password".to_owned());
    }
    Ok(Credential::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    // Reserved at once: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(64 << 10));
    let read = file
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    if read as u64 > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// Refuses a file with a secret that others can use.
pub(crate) fn private(path: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(path).map_err(|e| e.to_string())?.permissions().mode();
    // Its group may read it: so systemd (`LoadCredential=`) and Kubernetes (`fsGroup`) hand secrets to a service.
    if mode & 0o037 != 0 {
        return Err(format!(
            "others than its owner and the readers of its group can use it (mode {:04o}): chmod 600 it",
            mode & 0o7777
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic {
            user: user.into(),
            password: password.into(),
        }
    }

    fn find(config: &str, wanted: &[&str]) -> Result<Option<Found>, String> {
        let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        DockerConfig::parse(config)?.find(&wanted)
    }

    fn look(config: &str, wanted: &[&str]) -> Result<Option<Credential>, String> {
        Ok(match find(config, wanted)? {
            Some(Found::Here(credential)) => Some(credential),
            Some(Found::Kept(_)) | None => None,
        })
    }

    #[test]
    fn helpers_keep_what_the_file_does_not_hold() {
        let config = r#"{ "auths": {
            "https://index.docker.io/v1/": {}, "here.example": { "auth": "dTpw" }, "team.example:5000": {}
        }, "credHelpers": { "ecr.example": "ecr-login", "here.example": "unused" }, "credsStore": "desktop" }"#;
        let kept = |name: &str, server: &str| Ok(Some(Found::Kept(Helper::new(name, server).unwrap())));
        let hub = ["docker.io/library/x", "index.docker.io/library/x"];
        assert_eq!(find(config, &hub), kept("desktop", "https://index.docker.io/v1/"));
        assert_eq!(find(config, &["ecr.example/m"]), kept("ecr-login", "ecr.example"));
        assert_eq!(
            find(config, &["team.example:5000/m"]),
            kept("desktop", "team.example:5000")
        );
        assert_eq!(find(config, &["new.example/m"]), kept("desktop", "new.example"));
        assert_eq!(
            look(config, &["here.example/m"]),
            Ok(Some(basic("u", "p"))),
            "the file comes first"
        );
        assert_eq!(find(r#"{"credsStore":""}"#, &["new.example/m"]), Ok(None));
        assert!(find(r#"{"credsStore":"../evil"}"#, &["new.example/m"]).is_err());
        let unlisted = r#"{"credsStore":"desktop"}"#;
        assert_eq!(find(unlisted, &hub), kept("desktop", "https://index.docker.io/v1/"));
    }

    #[test]
    fn docker_config_forms() {
        let config = r#"{ "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnB3Om1vcmU=" },
            "registry.example:5000": { "username": "u", "password": "p" },
            "quay.io": { "auth": "b3RoZXI6cA==" },
            "quay.io/org": { "auth": "b3JnOnA=" },
            "azure.example": { "auth": "MDAwMDo=", "identitytoken": "refresh" },
            "empty.example": {}
        }, "credsStore": "desktop" }"#;
        let hub = [
            "docker.io/library/x",
            "registry-1.docker.io/library/x",
            "index.docker.io/library/x",
        ];
        assert_eq!(look(config, &hub), Ok(Some(basic("hub", "pw:more"))));
        assert_eq!(look(config, &["registry.example:5000/m"]), Ok(Some(basic("u", "p"))));
        assert_eq!(look(config, &["registry.example/m"]), Ok(None));
        assert_eq!(look(config, &["quay.io/org/model"]), Ok(Some(basic("org", "p"))));
        assert_eq!(
            look(config, &["quay.io/organisation/model"]),
            Ok(Some(basic("other", "p")))
        );
        assert_eq!(
            look(config, &["azure.example/m"]),
            Ok(Some(Credential::Identity("refresh".into())))
        );
        assert_eq!(look(config, &["empty.example/m"]), Ok(None));
        let colon = r#"{ "auths": { "h": { "username": "a:b", "password": "p" } } }"#;
        assert!(look(colon, &["h/m"]).unwrap_err().contains("has a colon"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let secret = "c2VjcmV0"; // "secret": no colon inside
        let errors = [
            look(&format!(r#"{{"auths":{{"h":{{"auth":"{secret}"}}}}}}"#), &["h/m"]).unwrap_err(),
            look(r#"{"auths":{"h":{"auth":"secret!"}}}"#, &["h/m"]).unwrap_err(),
            look(r#"{"auths":{"h":{"auth":["secret"]}}}"#, &["h/m"]).unwrap_err(),
        ];
        for error in errors {
            assert!(!error.contains("secret") && !error.contains(secret), "{error}");
        }
        assert_eq!(format!("{:?}", basic("u", "secret")), "Basic(redacted)");
    }

    #[test]
    fn password_files_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "user:pass:word\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let place = Credentials::File(path.clone());
        assert!(place.check().unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            place.load().unwrap().find(&[]),
            Ok(Some(Found::Here(basic("user", "pass:word"))))
        );
        std::fs::write(&path, "no colon").unwrap();
        assert!(place.check().unwrap_err().contains("user:password"));
    }

    #[test]
    fn a_credentials_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let config = |length| format!("{}{}", "{}", " ".repeat(length - 2));
        for place in [Credentials::DockerConfig(path.clone()), Credentials::File(path.clone())] {
            std::fs::write(&path, config(MAX_FILE as usize + 1)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(place.check().unwrap_err(), "larger than 1048576 bytes");
        }
        std::fs::write(&path, config(MAX_FILE as usize)).unwrap();
        assert_eq!(Credentials::DockerConfig(path).check(), Ok(()));
    }
}
