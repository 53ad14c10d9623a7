//! References to artifacts, as people write them: `HOST[:PORT]/NAME[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use piece::Digest;
use wire::control::Repository;

/// Where a name without a host is, as Docker has it.
const HUB: &str = "docker.io";

/// A name of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Where.
    pub(crate) repository: Repository,
    /// Which: a digest counts, whatever tag is beside it.
    pub(crate) version: Version,
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// Whatever the tag names now.
    Tag(String),
    /// Exactly this.
    Digest(Digest),
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a reference: {reason}; write HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:...")]
pub(crate) struct NoReference {
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
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("what follows the last : is no tag"));
        }
        let (registry, name) = match path.split_once('/') {
            Some((host, name)) if host == "localhost" || host.contains(['.', ':']) => (host, name.to_owned()),
            Some(_) => (HUB, path.to_owned()),
            None => (HUB, format!("library/{path}")),
        };
        if !is_host(registry) {
            return Err(wrong("it has no valid host"));
        }
        if !name.split('/').all(is_component) {
            return Err(wrong(
                "a repository's name is lower-case letters and digits, with . _ - within, and / between",
            ));
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let registry = registry.to_ascii_lowercase();
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

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// `HOST` or `HOST:PORT`.
pub(crate) fn is_host(host: &str) -> bool {
    let (name, port) = host
        .rsplit_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let labels = name.split('.').all(|label| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !label.starts_with('-')
    });
    labels && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(word) && component.ends_with(word) && component.chars().all(|c| word(c) || "._-".contains(c))
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
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
