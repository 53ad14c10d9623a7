//! The mirror, and who may read what through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peer::LocalAccess;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::section::section;
use crate::config::time;

section! {
    /// The mirror: an OCI registry's reading half, for this machine's clients.
    Mirror;
    /// `IP:PORT` of the mirror. Beyond loopback, whoever reaches it reads what this node may read.
    listen: SocketAddr = ([127, 0, 0, 1], 7655).into(), "127.0.0.1:5000";
    /// `HOST[:PORT]` of the registry of requests that name none, such as the Docker daemon's. Unset: they are refused.
    default_registry: Option<String> = None, "docker.io";
    /// `HOST[:PORT]` of the registry whose challenge `/v2/` passes on: podman, CRI-O and skopeo learn only there how to
    /// authenticate. They then get tokens from where it says, which they must reach, for public content too. Unset: they pull
    /// what is public.
    challenge: Option<String> = None, "registry.example";
    /// First path components that stand for a registry, such as `hub = "docker.io"`.
    aliases: BTreeMap<String, String> = BTreeMap::new(), "{ hub = \"docker.io\" }";
    /// The only registries that are mirrored, as `HOST[:PORT]`; others are answered 404 at once. Empty: all.
    allow: Vec<String> = Vec::new(), "registry.example,docker.io";
    /// Requests at a time from which on new pulls are refused with 503; those under way are served up to twice as many.
    /// Each costs a few KiB, whatever it reads.
    max_requests: usize = mirror::Config::default().max_requests, "64";
    /// How long a client waits for the first byte of an answer. containerd gives up after 30 s.
    #[serde(with = "time")]
    answer_timeout: Duration = mirror::Config::default().answer_timeout, "30s";
    /// How long a body may stand still for want of bytes before it is cut. CRI runtimes give up after 5 min.
    #[serde(with = "time")]
    stall_timeout: Duration = mirror::Config::default().stall_timeout, "1m";
}

impl Mirror {
    /// As the mirror wants it; these hosts are known besides.
    pub(crate) fn config(self, registries: Vec<String>) -> mirror::Config {
        mirror::Config {
            default_registry: self.default_registry,
            challenge: self.challenge,
            aliases: self.aliases,
            allow: self.allow,
            registries,
            max_requests: self.max_requests,
            answer_timeout: self.answer_timeout,
            stall_timeout: self.stall_timeout,
        }
    }
}

section! {
    /// Who may read what.
    Access in peer::Config;
    /// Whom this node gives content that its registry does not serve to everybody: `public`, clients whose own credentials the
    /// registry accepts for it; `node`, besides them everybody who reaches its mirror, whatever the nodes' credentials can read.
    #[serde(with = "local_access")]
    local => local_access: LocalAccess, "node";
    /// How long a registry's verdict on who may read a content counts: so long a change of mind may go unnoticed. On a client's
    /// token it never counts longer than the token itself.
    #[serde(with = "time")]
    ttl => access_ttl: Duration, "1m";
    /// How much longer it counts while the registry cannot be asked, so that what was served before is served in its outage;
    /// for a client's token still no longer than the token itself. 0: whoever must be asked about is refused then.
    #[serde(with = "time")]
    grace => access_grace: Duration, "1h";
}

/// [`LocalAccess`] by its name.
mod local_access {
    use super::{Deserialize, Deserializer, LocalAccess, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        Public,
        Node,
    }

    pub(super) fn serialize<S: Serializer>(access: &LocalAccess, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match access {
            LocalAccess::Public => Name::Public,
            LocalAccess::Node => Name::Node,
        };
        name.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LocalAccess, D::Error> {
        Ok(match Name::deserialize(deserializer)? {
            Name::Public => LocalAccess::Public,
            Name::Node => LocalAccess::Node,
        })
    }
}
