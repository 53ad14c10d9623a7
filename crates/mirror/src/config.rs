//! What an operator decides about the mirror.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::name::{self, InvalidHost};

/// The mirror's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The registry of requests that name none (the Docker daemon's, conformance suites'). Default: none, they are
    /// answered 404.
    pub default_registry: Option<String>,
    /// The registry whose challenge `/v2/` passes on to clients. containers/image (podman, CRI-O, skopeo) learns there, and
    /// nowhere else, how to authenticate; it then wants a token of the registry for public content too. Default: none,
    /// `/v2/` is open.
    pub challenge: Option<String>,
    /// First path components that stand for a registry. Default: none.
    pub aliases: BTreeMap<String, String>,
    /// The only registries that are mirrored; empty means all. Default: all.
    pub allow: Vec<String>,
    /// Registries that the configuration names elsewhere (`[registry]`): known hosts in paths.
    pub registries: Vec<String>,
    /// Requests at a time from which on new pulls are refused with 503; blobs of pulls under way are served up to twice
    /// as many. Default 512, each a few KiB whatever it reads.
    pub max_requests: usize,
    /// How long a client waits at most for the first byte of an answer, before 504. Default 120 s; containerd gives up
    /// after 30.
    pub answer_timeout: Duration,
    /// How long a body may stand still for want of bytes before it is cut. Default 5 min, what CRI allows.
    pub stall_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_registry: None,
            challenge: None,
            aliases: BTreeMap::new(),
            allow: Vec::new(),
            registries: Vec::new(),
            max_requests: 512,
            answer_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(300),
        }
    }
}

/// Why the mirror cannot work as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An option wants a registry and has something else.
    #[error("mirror option `{option}`: {source}")]
    Host {
        /// Which option.
        option: &'static str,
        /// What it has.
        source: InvalidHost,
    },
    /// An alias that no path can contain.
    #[error(
        "mirror.aliases: `{0}` cannot be part of a repository's name; use lower-case letters and digits, \
         with `.`, `_`, `__` or `-` between them"
    )]
    Alias(String),
    /// A registry that every request would be refused for.
    #[error("mirror option `{option}` names `{registry}`, which is not in mirror.allow; add it there")]
    NotAllowed {
        /// Which option.
        option: &'static str,
        /// Which registry.
        registry: String,
    },
    /// No request could ever be served.
    #[error("mirror.max_requests is 0; it must be at least 1")]
    NoRequests,
}

/// The part of [`Config`] that says which registry a request means, checked and with hosts under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstreams {
    pub(crate) default_registry: Option<String>,
    pub(crate) challenge: Option<String>,
    pub(crate) aliases: BTreeMap<String, String>,
    pub(crate) allow: BTreeSet<String>,
    /// Those in `allow`, and those named elsewhere.
    pub(crate) known: BTreeSet<String>,
}

impl Upstreams {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let host =
            |option, text: &String| name::parse_host(text).map_err(|source| ConfigError::Host { option, source });
        let hosts = |option, texts: &[String]| {
            texts
                .iter()
                .map(|text| host(option, text))
                .collect::<Result<BTreeSet<_>, _>>()
        };
        let allow = hosts("allow", &config.allow)?;
        let allowed = |option, registry: String| {
            if allow.is_empty() || allow.contains(&registry) {
                Ok(registry)
            } else {
                Err(ConfigError::NotAllowed { option, registry })
            }
        };
        let one = |option, text: &Option<String>| {
            let registry = text.as_ref().map(|text| allowed(option, host(option, text)?));
            registry.transpose()
        };
        let default_registry = one("default_registry", &config.default_registry)?;
        let challenge = one("challenge", &config.challenge)?;
        let mut aliases = BTreeMap::new();
        for (alias, text) in &config.aliases {
            if !name::is_component(alias) {
                return Err(ConfigError::Alias(alias.clone()));
            }
            aliases.insert(alias.clone(), allowed("aliases", host("aliases", text)?)?);
        }
        let mut known = hosts("registry", &config.registries)?;
        known.extend(allow.iter().cloned());
        Ok(Self {
            default_registry,
            challenge,
            aliases,
            allow,
            known,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let bad = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            Upstreams::new(&config).unwrap_err()
        };
        let host = |option| ConfigError::Host {
            option,
            source: InvalidHost("http://a".to_owned()),
        };
        assert_eq!(
            bad(|c| c.default_registry = Some("http://a".to_owned())),
            host("default_registry")
        );
        assert_eq!(bad(|c| c.allow = vec!["http://a".to_owned()]), host("allow"));
        assert_eq!(bad(|c| c.registries = vec!["http://a".to_owned()]), host("registry"));
        assert_eq!(
            bad(|c| drop(c.aliases.insert("a".to_owned(), "http://a".to_owned()))),
            host("aliases")
        );
        assert_eq!(
            bad(|c| drop(c.aliases.insert("A/b".to_owned(), "quay.io".to_owned()))),
            ConfigError::Alias("A/b".to_owned())
        );
        let not_allowed = bad(|c| {
            c.allow = vec!["quay.io".to_owned()];
            c.default_registry = Some("docker.io".to_owned());
        });
        assert_eq!(
            not_allowed,
            ConfigError::NotAllowed {
                option: "default_registry",
                registry: "docker.io".to_owned()
            }
        );
    }
}
