//! From a registry's name to where and how it is reached.

use std::collections::HashMap;
use std::net::IpAddr;

use http::HeaderValue;
use url::{Host, Url};
use wire::control::{Kind, Repository, Source};

use crate::config::{Config, ConfigError, Credentials, RegistryConfig};
use crate::credentials::{self, Credential};
use crate::error::RegistryError;
use crate::tls;

/// Docker Hub's name in references, and the host that serves it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// Connections kept per host for later: more than one reader's window of ranges.
const MAX_IDLE: usize = 32;
/// The longest repository name: what CNCF Distribution accepts.
const MAX_NAME: usize = 255;
/// The longest tag (OCI distribution spec).
const MAX_TAG: usize = 128;

/// The registries that a client can reach.
pub(crate) struct Endpoints {
    config: Config,
    /// For every registry that has nothing of its own.
    http: reqwest::Client,
    /// For those with a CA or a client certificate, by registry name.
    particular: HashMap<String, Particular>,
}

/// How one registry is reached in TLS.
struct Particular {
    http: reqwest::Client,
    /// The same with this node's certificate, if it has one for the registry.
    certified: Option<reqwest::Client>,
}

/// One repository, as it is reached.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Of which registry, as references and metrics name it, and which repository there.
    pub(crate) repository: Repository,
    /// `SCHEME://HOST[:PORT]/`.
    pub(crate) base: Url,
    /// Trusts what the operator trusts for this registry.
    pub(crate) http: reqwest::Client,
    /// The same, and shows this node's certificate, if there is one for the registry. That is for the node's own requests: what
    /// it opens is for nobody else.
    pub(crate) certified: Option<reqwest::Client>,
}

impl Endpoints {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        for entry in config.insecure.iter().chain(config.registries.keys()) {
            base(entry, false).ok_or_else(|| ConfigError::Host(entry.clone()))?;
        }
        let named = config
            .registries
            .values()
            .filter_map(|registry| registry.credentials.as_ref());
        let docker = config.docker_config.clone().map(Credentials::DockerConfig);
        for place in named.chain(&docker) {
            place.check().map_err(|reason| ConfigError::Credentials {
                path: place.path().clone(),
                reason,
            })?;
        }
        let system = tls::system_roots();
        let mut particular = HashMap::new();
        for (name, registry) in &config.registries {
            if let Some(endpoint) = &registry.endpoint {
                base(endpoint, false).ok_or_else(|| ConfigError::Host(endpoint.clone()))?;
            }
            if registry.wants_tls() {
                let certified = tls::certified(&system, name, registry)?;
                let certified = certified.map(|tls| http_client(&config, tls)).transpose()?;
                let http = http_client(&config, tls::particular(&system, name, registry)?)?;
                particular.insert(name.clone(), Particular { http, certified });
            }
        }
        Ok(Self {
            http: http_client(&config, tls::general(system)?)?,
            particular,
            config,
        })
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// How `repository` is reached.
    pub(crate) fn of(&self, repository: &Repository) -> Result<Endpoint, RegistryError> {
        let invalid = |what, value: &str, reason| RegistryError::Invalid {
            what,
            value: value.to_owned(),
            reason,
        };
        if !is_name(&repository.name) {
            return Err(invalid(
                "repository",
                &repository.name,
                "components are letters, digits, and . _ - within",
            ));
        }
        let name = &repository.registry;
        let host = self.host(name);
        let base =
            base(host, self.is_plain(name, host)).ok_or_else(|| invalid("registry", name, "write HOST[:PORT]"))?;
        let (http, certified) = match self.particular.get(name) {
            Some(particular) => (&particular.http, particular.certified.clone()),
            None => (&self.http, None),
        };
        Ok(Endpoint {
            repository: repository.clone(),
            base,
            http: http.clone(),
            certified,
        })
    }

    /// This node's credential for `repository`, if the operator gave one.
    pub(crate) async fn credential(&self, repository: &Repository) -> Result<Option<Credential>, RegistryError> {
        let own = self
            .config
            .registries
            .get(&repository.registry)
            .and_then(|registry| registry.credentials.clone());
        let Some(place) = own.or_else(|| self.config.docker_config.clone().map(Credentials::DockerConfig)) else {
            return Ok(None);
        };
        let host = self.host(&repository.registry);
        let hub = ["index.docker.io", host];
        let aliases: &[&str] = if host == DOCKER_HUB.1 { &hub } else { &hub[1..] };
        credentials::find(place, repository, aliases).await
    }

    fn host<'a>(&'a self, name: &'a str) -> &'a str {
        let configured = self
            .config
            .registries
            .get(name)
            .and_then(|registry| registry.endpoint.as_deref());
        configured.unwrap_or(if name == DOCKER_HUB.0 || name == "index.docker.io" {
            DOCKER_HUB.1
        } else {
            name
        })
    }

    fn is_plain(&self, name: &str, host: &str) -> bool {
        let listed = |name: &str| {
            self.config
                .insecure
                .iter()
                .any(|entry| entry == name || entry == without_port(name))
        };
        let configured = self.config.registries.get(name);
        // Whoever names certificates wants TLS, on loopback too.
        let encrypted = configured.is_some_and(RegistryConfig::wants_tls);
        let loopback = || !encrypted && base(host, true).is_some_and(|base| is_loopback(&base));
        configured.is_some_and(|registry| registry.plain_http) || listed(name) || listed(host) || loopback()
    }
}

impl Endpoint {
    /// `…/v2/NAME/REST`.
    pub(crate) fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.repository.name));
        url
    }

    /// Where a blob or manifest is served.
    pub(crate) fn content(&self, kind: Kind, reference: &str) -> Url {
        self.url(&match kind {
            Kind::Blob => format!("blobs/{reference}"),
            Kind::Manifest => format!("manifests/{reference}"),
        })
    }
}

/// How a source is reached, and where `reference` is there.
pub(crate) fn locate(
    endpoints: &Endpoints,
    source: &Source,
    reference: &str,
) -> Result<(Endpoint, Url), RegistryError> {
    let endpoint = endpoints.of(&source.repository)?;
    let is_digest = reference.parse::<piece::Digest>().is_ok();
    let is_tag = source.kind == Kind::Manifest && is_tag(reference);
    if !is_digest && !is_tag {
        let reason = "neither a sha256 digest nor, for a manifest, a tag";
        return Err(RegistryError::Invalid {
            what: "reference",
            value: reference.to_owned(),
            reason,
        });
    }
    let url = endpoint.content(source.kind, reference);
    Ok((endpoint, url))
}

/// Whether a URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// Whether a URL's host is a literal address that only this machine or its link gives a meaning to, such as a cloud's
/// metadata service.
pub(crate) fn is_local_address(url: &Url) -> bool {
    let link_local = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_link_local() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_unicast_link_local() || ip.is_unspecified(),
        Some(Host::Domain(_)) | None => false,
    };
    link_local || is_loopback(url)
}

/// The URL of `HOST[:PORT]`, if it is nothing more than that.
fn base(host: &str, plain: bool) -> Option<Url> {
    let url = Url::parse(&format!("{}://{host}/", if plain { "http" } else { "https" })).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let safe = !host.contains(['/', '@', '\\', ' ', '\t', '\n', '\r']) && !host.is_empty();
    (bare && safe).then_some(url)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && host.parse::<IpAddr>().is_err() => name,
        _ => host,
    }
}

/// The OCI grammar, with upper case let through: the registry may be more liberal than the spec.
fn is_name(name: &str) -> bool {
    let component = |part: &str| {
        part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    name.len() <= MAX_NAME && name.split('/').all(component)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// An HTTP client that follows no redirects and uses no proxy from the environment: we do the first ourselves, and the
/// second would send a cluster's own addresses through it.
fn http_client(config: &Config, tls: rustls::ClientConfig) -> Result<reqwest::Client, ConfigError> {
    let agent =
        HeaderValue::from_str(&config.user_agent).map_err(|_| ConfigError::UserAgent(config.user_agent.clone()))?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .http1_only()
        .user_agent(agent)
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(config.idle_timeout)
        .pool_max_idle_per_host(MAX_IDLE)
        .tcp_nodelay(true)
        .build()
        .map_err(|e| ConfigError::Http(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(insecure: &[&str]) -> Endpoints {
        let insecure = insecure.iter().map(|&host| host.to_owned()).collect();
        Endpoints::new(Config {
            insecure,
            ..Config::default()
        })
        .unwrap()
    }

    fn reached(endpoints: &Endpoints, registry: &str) -> String {
        let repository = Repository {
            registry: registry.into(),
            name: "org/model".into(),
        };
        endpoints
            .of(&repository)
            .unwrap()
            .content(Kind::Manifest, "v1")
            .to_string()
    }

    #[test]
    fn plain_http_is_for_loopback_and_who_is_listed() {
        let endpoints = endpoints(&["lab", "lan:5000"]);
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("quay.io", "https://quay.io"),
            ("localhost:5000", "http://localhost:5000"),
            ("127.8.9.1", "http://127.8.9.1"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("lab", "http://lab"),
            ("lab:81", "http://lab:81"),
            ("lan:5000", "http://lan:5000"),
            ("lan", "https://lan"),
        ] {
            assert_eq!(
                reached(&endpoints, registry),
                format!("{base}/v2/org/model/manifests/v1")
            );
        }
    }

    #[test]
    fn hostile_names_reach_nothing() {
        let endpoints = endpoints(&[]);
        for (registry, name) in [
            ("h", "../x"),
            ("h", "a//b"),
            ("h", "a/../b"),
            ("h", "a?b"),
            ("h", "a%2fb"),
            ("h", ""),
            ("h/x", "a"),
            ("u:p@h", "a"),
            ("h?x", "a"),
            ("h#x", "a"),
            ("", "a"),
        ] {
            let repository = Repository {
                registry: registry.into(),
                name: name.into(),
            };
            let error = endpoints.of(&repository).map(|endpoint| endpoint.base).unwrap_err();
            assert_eq!(error.status(), 400, "{registry} {name}");
        }
        let source = Source {
            repository: Repository {
                registry: "h".into(),
                name: "a".into(),
            },
            kind: Kind::Blob,
        };
        assert!(locate(&endpoints, &source, "latest").is_err());
        assert!(
            locate(
                &endpoints,
                &Source {
                    kind: Kind::Manifest,
                    ..source
                },
                "../v1"
            )
            .is_err()
        );
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        let host = Config {
            insecure: vec!["http://h".into()],
            ..Config::default()
        };
        assert!(matches!(Endpoints::new(host), Err(ConfigError::Host(_))));
        let agent = Config {
            user_agent: "a\nb".into(),
            ..Config::default()
        };
        assert!(matches!(Endpoints::new(agent), Err(ConfigError::UserAgent(_))));
        let docker = Config {
            docker_config: Some("/nonexistent".into()),
            ..Config::default()
        };
        assert!(matches!(Endpoints::new(docker), Err(ConfigError::Credentials { .. })));
    }
}
