//! Of which registry a request is: design section 8, in exactly this order.
//!
//! 1. `?ns=HOST[:PORT]` (containerd).
//! 2. The first component of the path, when it is a host (CRI-O, podman, skopeo, any client that can't be given a mirror):
//!    an alias, `localhost`, one that ends in `__PORT`, or one with a dot that the configuration names (or, with no
//!    default registry, any with a dot).
//! 3. The default registry.

use wire::control::Repository;

use crate::config::Upstreams;
use crate::name::{self, InvalidHost};

/// Docker Hub keeps its official images, which users name by one component, under this one.
const HUB: &str = "docker.io";
const HUB_OFFICIAL: &str = "library";

/// Why a request is of no registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the query's `ns` is wrong: {0}")]
    Namespace(InvalidHost),
    #[error(
        "this names no registry: add `?ns=HOST`, begin the repository with its host (`HOST__PORT` with a port), \
         or set mirror.default_registry"
    )]
    NoRegistry,
    #[error("`{0}` is not in this mirror's mirror.allow")]
    NotAllowed(String),
    #[error("`{0}` is not a repository's name")]
    Name(String),
}

impl Upstreams {
    /// The repository that a request means.
    pub(crate) fn select(&self, ns: Option<&str>, name: &str) -> Result<Repository, UpstreamError> {
        let (registry, name) = match ns {
            Some(ns) => (name::parse_host(ns).map_err(UpstreamError::Namespace)?, name),
            None => self.by_name(name)?,
        };
        if !self.allow.is_empty() && !self.allow.contains(&registry) {
            return Err(UpstreamError::NotAllowed(registry));
        }
        let name = if registry == HUB && !name.contains('/') {
            format!("{HUB_OFFICIAL}/{name}")
        } else {
            name.to_owned()
        };
        if !name::is_repository(&name) {
            return Err(UpstreamError::Name(name));
        }
        Ok(Repository { registry, name })
    }

    fn by_name<'n>(&self, name: &'n str) -> Result<(String, &'n str), UpstreamError> {
        if let Some((first, rest)) = name.split_once('/')
            && let Some(registry) = self.as_host(first)
        {
            return Ok((registry, rest));
        }
        let default = self.default_registry.clone().ok_or(UpstreamError::NoRegistry)?;
        Ok((default, name))
    }

    /// The registry that a path's first component stands for, if it is a host.
    fn as_host(&self, component: &str) -> Option<String> {
        if let Some(registry) = self.aliases.get(component) {
            return Some(registry.clone());
        }
        if let Some((host, port)) = component.rsplit_once("__")
            && name::parse_port(port).is_some()
        {
            return name::parse_host(&format!("{host}:{port}")).ok();
        }
        let host = name::parse_host(component).ok()?;
        let is_host = host == "localhost"
            || host.contains('.') && (self.default_registry.is_none() || self.known.contains(&host));
        is_host.then_some(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn upstreams(change: impl FnOnce(&mut Config)) -> Upstreams {
        let mut config = Config::default();
        change(&mut config);
        Upstreams::new(&config).unwrap()
    }

    fn selected(upstreams: &Upstreams, ns: Option<&str>, name: &str) -> String {
        let repository = upstreams.select(ns, name).unwrap();
        format!("{} {}", repository.registry, repository.name)
    }

    fn with_everything() -> Upstreams {
        upstreams(|config| {
            config.default_registry = Some("harbor.example.com:8443".to_owned());
            config.aliases.insert("hub".to_owned(), "docker.io".to_owned());
            config
                .aliases
                .insert("quay.io".to_owned(), "quay.example.com".to_owned());
            config.registries = vec!["ghcr.io".to_owned(), "quay.io".to_owned()];
        })
    }

    #[test]
    fn ns_comes_first() {
        let all = with_everything();
        assert_eq!(
            selected(&all, Some("docker.io"), "ghcr.io/org/model"),
            "docker.io ghcr.io/org/model"
        );
        assert_eq!(
            selected(&all, Some("localhost:5000"), "hub/model"),
            "localhost:5000 hub/model"
        );
        assert_eq!(selected(&all, Some("[::1]:5000"), "model"), "[::1]:5000 model");
        assert_eq!(selected(&all, Some("Quay.IO"), "org/model"), "quay.io org/model");
        assert_eq!(selected(&all, Some("hub"), "org/model"), "hub org/model");
    }

    #[test]
    fn then_a_host_in_the_path() {
        let all = with_everything();
        for (name, expected) in [
            ("hub/org/model", "docker.io org/model"),
            ("quay.io/org/model", "quay.example.com org/model"),
            ("ghcr.io/org/model", "ghcr.io org/model"),
            ("GHCR.io/org/model", "ghcr.io org/model"),
            ("localhost/org/model", "localhost org/model"),
            ("localhost__5000/org/model", "localhost:5000 org/model"),
            ("127.0.0.1__5000/org/model", "127.0.0.1:5000 org/model"),
            ("registry__80/model", "registry:80 model"),
        ] {
            assert_eq!(selected(&all, None, name), expected);
        }
    }

    #[test]
    fn then_the_default_registry() {
        let all = with_everything();
        for name in [
            "model",
            "org/model",
            "unknown.example.com/org/model",
            "hub",
            "localhost",
            "a__b/model",
        ] {
            assert_eq!(selected(&all, None, name), format!("harbor.example.com:8443 {name}"));
        }
        for port in ["a__0/model", "a__65536/model"] {
            assert_eq!(selected(&all, None, port), format!("harbor.example.com:8443 {port}"));
        }
    }

    #[test]
    fn without_a_default_every_dot_makes_a_host() {
        let none = upstreams(|_| {});
        assert_eq!(selected(&none, None, "quay.io/org/model"), "quay.io org/model");
        for name in ["model", "org/model", "quay.io", "localhost"] {
            assert_eq!(none.select(None, name), Err(UpstreamError::NoRegistry), "{name}");
        }
    }

    #[test]
    fn allow_makes_hosts_known_and_refuses_others() {
        let some = upstreams(|config| {
            config.default_registry = Some("docker.io".to_owned());
            config.allow = vec![
                "docker.io".to_owned(),
                "quay.io".to_owned(),
                "localhost:5000".to_owned(),
            ];
            config.registries = vec!["ghcr.io".to_owned()];
        });
        assert_eq!(selected(&some, None, "quay.io/org/model"), "quay.io org/model");
        assert_eq!(selected(&some, None, "localhost__5000/model"), "localhost:5000 model");
        assert_eq!(
            selected(&some, None, "else.example.com/model"),
            "docker.io else.example.com/model"
        );
        for (ns, name, registry) in [
            (None, "ghcr.io/org/model", "ghcr.io"),
            (None, "localhost/model", "localhost"),
            (Some("localhost:5001"), "model", "localhost:5001"),
            (Some("quay.io:443"), "model", "quay.io:443"),
        ] {
            assert_eq!(
                some.select(ns, name),
                Err(UpstreamError::NotAllowed(registry.to_owned()))
            );
        }
    }

    #[test]
    fn official_images_of_docker_hub() {
        let hub = upstreams(|config| config.default_registry = Some("index.docker.io".to_owned()));
        assert_eq!(selected(&hub, None, "alpine"), "docker.io library/alpine");
        assert_eq!(selected(&hub, None, "org/model"), "docker.io org/model");
        assert_eq!(selected(&hub, Some("docker.io"), "alpine"), "docker.io library/alpine");
        assert_eq!(selected(&hub, Some("quay.io"), "alpine"), "quay.io alpine");
        assert_eq!(
            selected(&upstreams(|_| {}), None, "docker.io/alpine"),
            "docker.io library/alpine"
        );
    }

    #[test]
    fn names_are_checked_behind_the_host() {
        let none = upstreams(|_| {});
        for (ns, name) in [
            (Some("quay.io"), "Org/model"),
            (Some("quay.io"), "a//b"),
            (None, "quay.io/a/../b"),
        ] {
            assert!(matches!(none.select(ns, name), Err(UpstreamError::Name(_))), "{name}");
        }
        for ns in ["", "http://quay.io", "quay.io/x", "a:0", "user@quay.io"] {
            assert!(
                matches!(none.select(Some(ns), "model"), Err(UpstreamError::Namespace(_))),
                "{ns}"
            );
        }
    }
}
