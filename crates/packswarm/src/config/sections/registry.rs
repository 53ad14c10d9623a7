//! Upstream registries: how they are read, and what is particular to some of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use registry::{ClientCertificate, Credentials, RegistryConfig};
use serde::{Deserialize, Serialize};

use crate::config::section::{SectionInfo, section};
use crate::config::{size, time};

section! {
    /// Upstream registries. A table `[registry."HOST[:PORT]"]` says what is particular to one of them.
    Options in peer::Config;
    /// How long a tag's answer counts: so long a moved tag may go unnoticed.
    #[serde(with = "time")]
    tag_ttl => tag_ttl: Duration, "30s";
    /// `HOST` (any port) or `HOST:PORT` of registries that speak plain HTTP: whoever is on the way reads and alters it,
    /// though altered blobs are refused. Loopback registries do so anyway.
    insecure => registry.insecure: Vec<String>, "registry.example:5000";
    /// A Docker `config.json` with credentials for every registry that has none of its own. The credential helpers that it
    /// names are run. Unset: none.
    docker_config => registry.docker_config: Option<PathBuf>, "/etc/packswarm/docker.json";
    /// For a TCP and TLS handshake.
    #[serde(with = "time")]
    connect_timeout => registry.connect_timeout: Duration, "5s";
    /// From a request to its answer's headers. containerd grants 30 s.
    #[serde(with = "time")]
    answer_timeout => registry.answer_timeout: Duration, "10s";
    /// Between two chunks of a body; then the rest is asked for anew.
    #[serde(with = "time")]
    read_timeout => registry.read_timeout: Duration, "30s";
    /// After which an unused connection is closed.
    #[serde(with = "time")]
    idle_timeout => registry.idle_timeout: Duration, "30s";
    /// Attempts in a row after the first, none of which brought `progress`. With the default backoff, five give a registry
    /// some six seconds to come back.
    retries => registry.retries: u32, "8";
    /// Wait before the first new attempt; doubled for each further one, and randomised down to a half.
    #[serde(with = "time")]
    backoff => registry.backoff: Duration, "1s";
    /// The longest wait before an attempt. A registry that asks for more by `Retry-After` is not asked again.
    #[serde(with = "time")]
    max_wait => registry.max_wait: Duration, "1m";
    /// Bytes after which a resumed read has all its attempts again.
    #[serde(with = "size")]
    progress => registry.progress: u64, "4MiB";
    /// After which a repository that wanted credentials is tried anonymously again.
    #[serde(with = "time")]
    reprobe => registry.reprobe: Duration, "10m";
    /// The largest manifest accepted; it is held in memory.
    #[serde(with = "size")]
    max_manifest => registry.max_manifest: u64, "8MiB";
}

section! {
    /// One registry.
    Host;
    /// Speak plain HTTP with it.
    plain_http: bool = false, "true";
    /// PEM certificates to trust for it besides the system's. Unset: none.
    ca_file: Option<PathBuf> = None, "/etc/packswarm/ca.pem";
    /// A PEM certificate chain by which this node shows it in TLS who it is; goes with `client_key`. What the registry serves
    /// then is for clients by `[access] local = "node"` only: whether it would serve them is asked without. Unset: none.
    client_cert: Option<PathBuf> = None, "/etc/packswarm/client.pem";
    /// The PEM private key of `client_cert`, in a file readable by its owner and at most its group. Unset: none.
    client_key: Option<PathBuf> = None, "/etc/packswarm/client.key";
    /// A file with one line `user:password`, readable by its owner and at most its group, read when the registry asks. Unset: none.
    credentials_file: Option<PathBuf> = None, "/etc/packswarm/registry.credentials";
    /// A Docker `config.json` with its credentials. Unset: that of `[registry]`.
    docker_config: Option<PathBuf> = None, "/etc/packswarm/registry.json";
    /// `HOST[:PORT]` to connect to instead. Unset: itself.
    endpoint: Option<String> = None, "registry.internal:5000";
}

/// `[registry]`: tables are registries, the rest are options.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "toml::Table", into = "toml::Table")]
pub(crate) struct Registry {
    options: Options,
    hosts: BTreeMap<String, Host>,
}

/// Why a `[registry]` makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// An option of it.
    #[error("{}", .0.message())]
    Options(toml::de::Error),
    /// An option of one registry.
    #[error("[registry.\"{host}\"]: {}", .source.message())]
    Host {
        /// Which.
        host: String,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// Half of a client certificate.
    #[error("[registry.\"{0}\"] has only one of client_cert and client_key; each needs the other")]
    HalfCertificate(String),
    /// Two sources of credentials.
    #[error("[registry.\"{0}\"] has both credentials_file and docker_config; which of the two?")]
    TwoCredentials(String),
}

impl TryFrom<toml::Table> for Registry {
    type Error = RegistryError;

    fn try_from(table: toml::Table) -> Result<Self, RegistryError> {
        let (hosts, options): (toml::Table, toml::Table) = table.into_iter().partition(|(_, value)| value.is_table());
        let hosts = hosts.into_iter().map(|(name, given)| {
            let wrong = |source| RegistryError::Host {
                host: name.clone(),
                source,
            };
            let mut table = toml::Table::try_from(Host::default()).expect("defaults are a table");
            if let toml::Value::Table(given) = given {
                table.extend(given);
            }
            let host: Host = table.try_into().map_err(wrong)?;
            if host.credentials_file.is_some() && host.docker_config.is_some() {
                return Err(RegistryError::TwoCredentials(name));
            }
            Ok((name, host))
        });
        let hosts = hosts.collect::<Result<_, _>>()?;
        Ok(Self {
            options: options.try_into().map_err(RegistryError::Options)?,
            hosts,
        })
    }
}

impl From<Registry> for toml::Table {
    fn from(registry: Registry) -> Self {
        let mut table = Self::try_from(registry.options).expect("options are a table");
        for (name, host) in registry.hosts {
            table.insert(name, toml::Value::try_from(host).expect("options are a table"));
        }
        table
    }
}

impl Registry {
    pub(crate) const INFO: SectionInfo = SectionInfo {
        named: Host::INFO.options,
        ..Options::INFO
    };

    /// As a configuration has it.
    pub(crate) fn of(config: &peer::Config) -> Self {
        Self {
            options: Options::of(config),
            hosts: BTreeMap::new(),
        }
    }

    /// Every host that is named here.
    pub(crate) fn names(&self) -> Vec<String> {
        self.hosts.keys().chain(&self.options.insecure).cloned().collect()
    }

    /// Sets it in a configuration.
    ///
    /// # Errors
    /// If an option lacks the other that it needs.
    pub(crate) fn apply(self, config: &mut peer::Config) -> Result<(), RegistryError> {
        self.options.apply(config);
        let hosts = self.hosts.into_iter().map(|(name, host)| {
            if host.client_cert.is_some() == host.client_key.is_some() {
                Ok((name, host.config()))
            } else {
                Err(RegistryError::HalfCertificate(name))
            }
        });
        config.registry.registries = hosts.collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl Host {
    fn config(self) -> RegistryConfig {
        let credentials = self.credentials_file.map(Credentials::File);
        RegistryConfig {
            plain_http: self.plain_http,
            ca_file: self.ca_file,
            client_certificate: self
                .client_cert
                .zip(self.client_key)
                .map(|(certificate, key)| ClientCertificate { certificate, key }),
            credentials: credentials.or(self.docker_config.map(Credentials::DockerConfig)),
            endpoint: self.endpoint,
        }
    }
}
