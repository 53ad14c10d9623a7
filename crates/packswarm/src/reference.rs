//! References to artifacts, as people write them: `HOST[:PORT]/NAME[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use piece::Digest;
use wire::control::Repository;

/// Where a name without a host is, as Docker has it.
const HUB: &str = "docker.io";
/// Where Docker Hub keeps what is named by one component.
const HUB_OFFICIAL: &str = "library/";

/// A name of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// Which: a digest counts, whatever tag is beside it.
    pub version: Version,
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Whatever the tag names now.
    Tag(String),
    /// Exactly this.
    Digest(Digest),
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a reference: {reason}; write HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:...")]
pub struct NoReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// The manifest as the distribution API names it.
    pub(crate) fn version(&self) -> String {
        self.version.to_string()
    }

    /// The digest, where the reference says one.
    pub(crate) const fn digest(&self) -> Option<Digest> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(*digest),
        }
    }
}

impl FromStr for Reference {
    type Err = NoReference;

    fn from_str(text: &str) -> Result<Self, NoReference> {
        let wrong = |reason| NoReference {
            text: text.to_owned(),
            reason,
        };
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| wrong("what follows @ is no SHA-256 digest"))?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        let (path, tag) = match named.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            Some(_) | None => (named, None),
        };
        if tag.is_some_and(|tag| !mirror::is_tag(tag)) {
            return Err(wrong("what follows the last : is no tag"));
        }
        let (registry, name) = match path.split_once('/') {
            Some((host, name)) if host == "localhost" || host.contains(['.', ':']) => (host, name),
            Some(_) | None => (HUB, path),
        };
        // What a mirror and a registry take, so that nothing is a reference here and no name there.
        let registry = mirror::parse_host(registry).map_err(|_| wrong("it has no valid host"))?;
        let official = registry == HUB && !name.contains('/');
        let name = format!("{}{name}", if official { HUB_OFFICIAL } else { "" });
        if !mirror::is_repository(&name) {
            return Err(wrong(
                "a repository's name is lower-case letters and digits, with . _ - within, and / between, in at most 255 bytes",
            ));
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self {
            repository: Repository { registry, name },
            version,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(
            f,
            "{}/{}{separator}{}",
            self.repository.registry, self.repository.name, self.version
        )
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let reference: Reference = text.parse().unwrap();
        (
            reference.repository.registry.clone(),
            reference.repository.name.clone(),
            reference.version(),
        )
    }

    #[test]
    fn reads_what_people_write() {
        let digest = Digest::EMPTY.to_string();
        for (text, registry, name, version) in [
            ("quay.io/org/model:v1", "quay.io", "org/model", "v1"),
            ("localhost:5000/m", "localhost:5000", "m", "latest"),
            ("127.0.0.1:5000/a/b/c:1.0", "127.0.0.1:5000", "a/b/c", "1.0"),
            ("org/model", "docker.io", "org/model", "latest"),
            ("model:v2", "docker.io", "library/model", "v2"),
            ("docker.io/model", "docker.io", "library/model", "latest"),
            ("index.docker.io/org/model", "docker.io", "org/model", "latest"),
            ("R.Example/m", "r.example", "m", "latest"),
            ("[::1]:5000/m:v1", "[::1]:5000", "m", "v1"),
            ("localhost/m:x", "localhost", "m", "x"),
            (&format!("r.example/m:v1@{digest}"), "r.example", "m", &digest),
            (&format!("r.example:1/m@{digest}"), "r.example:1", "m", &digest),
        ] {
            assert_eq!(
                parts(text),
                (registry.to_owned(), name.to_owned(), version.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["quay.io/org/model:v1", "r.example:5000/m:latest"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for wrong in [
            "",
            "r.example/",
            "r.example/M",
            "r.example/a//b",
            "r.example/a:",
            "r.example/a:-b",
            "r.example/a@sha256:0",
            "http://r.example/a",
            "r.example:0/a",
            "r.example:99999/a",
            "r.example/../a",
            "-r.example/a",
            "r.example/a..b",
            "r.example/a._b",
            &format!("r.example/{}", "a/".repeat(200) + "a"),
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
