//! What an operator says about registries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How registries are read.
#[derive(Debug, Clone)]
pub struct Config {
    /// Sent with every request: `packswarm/VERSION (ROLE; PEERID)`, so that the registry's log shows who asked.
    pub user_agent: String,
    /// `HOST` (any port) or `HOST:PORT` of registries that speak plain HTTP. Loopback registries do so anyway.
    pub insecure: Vec<String>,
    /// By `HOST[:PORT]`, as references name it.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// A Docker `config.json` whose `auths` serve every registry that has no credentials of its own.
    pub docker_config: Option<PathBuf>,
    /// For a TCP and TLS handshake. Default 10 s.
    pub connect_timeout: Duration,
    /// From a request to its answer's headers. Default 30 s: what containerd grants.
    pub answer_timeout: Duration,
    /// Between two chunks of a body; then the rest is asked for anew. Default 15 s.
    pub read_timeout: Duration,
    /// After which an unused connection is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Attempts in a row, after the first, without [`Config::progress`]. Default 5: with the default backoff a registry
    /// is given some six seconds to come back.
    pub retries: u32,
    /// Wait before the first new attempt; doubled for each further one, and randomised down to a half. Default 200 ms.
    pub backoff: Duration,
    /// The longest wait before an attempt. A registry that asks for more by `Retry-After` is not asked again: the error
    /// goes up with its wish. Default 20 s.
    pub max_wait: Duration,
    /// Bytes after which a resumed read has all its attempts again, so that a long read outlives many cuts, and a
    /// registry that drips a byte per connection does not hold it forever. Default 1 MiB.
    pub progress: u64,
    /// After which a repository that wanted credentials is tried anonymously again. Default 1 h.
    pub reprobe: Duration,
    /// The largest manifest accepted. Default 4 MiB: what the OCI spec asks registries to support.
    pub max_manifest: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user_agent: concat!("packswarm/", env!("CARGO_PKG_VERSION")).to_owned(),
            insecure: Vec::new(),
            registries: BTreeMap::new(),
            docker_config: None,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(200),
            max_wait: Duration::from_secs(20),
            progress: 1 << 20,
            reprobe: Duration::from_secs(3600),
            max_manifest: 4 << 20,
        }
    }
}

/// What is particular to one registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Speak plain HTTP. Default false, but for loopback hosts without a `ca_file`.
    pub plain_http: bool,
    /// PEM certificates to trust for this registry besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM certificate chain to show to this registry, and the PEM file with its private key, readable by its owner and at
    /// most its group.
    pub client_certificate: Option<ClientCertificate>,
    /// This node's credentials for it. Default: those in [`Config::docker_config`].
    pub credentials: Option<Credentials>,
    /// `HOST[:PORT]` to connect to instead. Built in: `docker.io` is `registry-1.docker.io`.
    pub endpoint: Option<String>,
}

impl RegistryConfig {
    /// Whether its options make sense with TLS only.
    pub(crate) const fn wants_tls(&self) -> bool {
        self.ca_file.is_some() || self.client_certificate.is_some()
    }
}

/// With what this node shows a registry who it is in TLS. Both files are read at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, this node's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where a registry's credentials are read from, whenever they are needed: a file replaced meanwhile takes effect.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Docker's `config.json` (or podman's `auth.json`).
    DockerConfig(PathBuf),
    /// One line, `user:password`, in a file that only its owner can read.
    File(PathBuf),
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A host that is none.
    #[error("`{0}` is no registry: write HOST or HOST:PORT, without a scheme or path")]
    Host(String),
    /// A user agent that HTTP cannot carry.
    #[error("the user agent `{0}` contains characters that a header cannot carry")]
    UserAgent(String),
    /// A CA file that cannot be used.
    #[error("the CA file {} for {registry} cannot be used: {reason}", .path.display())]
    Ca {
        /// For which registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A client certificate that cannot be used.
    #[error("the client certificate {} for {registry} cannot be used: {reason}", .path.display())]
    ClientCertificate {
        /// For which registry.
        registry: String,
        /// The file that is wrong.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Credentials that cannot be used.
    #[error("the credentials file {} cannot be used: {reason}", .path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS or HTTP could not be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
}
