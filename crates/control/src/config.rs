//! What a node's control plane is told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::is_host_and_port;
use crate::error::ControlError;

/// The most schedulers and bootstrap nodes together: each is a connection that is kept up.
const MAX_LINKS: usize = 64;

/// How the control plane of one node is set up. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to accept connections; port 0 takes a free one. `[::]` accepts IPv4 too.
    pub listen: SocketAddr,
    /// The address that others are told, instead of those that the node listens on and is seen at. Default none; wrong, it
    /// makes the node unreachable for those who learn of it through others.
    pub external: Option<SocketAddr>,
    /// The schedulers, as `HOST:PORT`; connected to for as long as the node runs, and dialled anew when lost. Names are
    /// resolved at each attempt. Default none.
    pub schedulers: Vec<String>,
    /// Other nodes, as `HOST:PORT`, through which to join the Kademlia network where no scheduler answers. Default none.
    pub bootstrap: Vec<String>,
    /// How long an [`ask`](crate::Control::ask) may take in all, and how long a request may wait here for its answer.
    /// Default 15 s. At worst an asker waits that long for a node that has gone silent.
    pub request_timeout: Duration,
    /// How long a TCP connection may take to come about, and after it the handshake. Default 5 s.
    pub handshake_timeout: Duration,
    /// After how long without use a connection is closed, if it is not one to a scheduler. Default 30 s. Longer saves
    /// handshakes and costs connections.
    pub idle: Duration,
    /// Between two pings on a connection; one that is not answered within that time closes the connection. Default 15 s.
    /// A scheduler that vanishes without a word is noticed within twice that.
    pub ping_interval: Duration,
    /// The most connections. Default 1024, at about 100 KiB each; a scheduler needs one for each node. An eighth of them,
    /// at most 64, is kept free for those that this node dials.
    pub max_connections: u32,
    /// The most requests of others that wait for an answer, and of this node. Default 1024. Beyond, others are refused and
    /// this node's wait their turn.
    pub max_requests_in_flight: usize,
    /// Whether to take part in Kademlia, so that nodes find each other when no scheduler answers. Default true.
    pub kad: bool,
    /// How long [`providers`](crate::Control::providers) may look. Default 5 s.
    pub find_timeout: Duration,
}

impl Config {
    /// The defaults, for a node that listens at `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            external: None,
            schedulers: Vec::new(),
            bootstrap: Vec::new(),
            request_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            ping_interval: Duration::from_secs(15),
            max_connections: 1024,
            max_requests_in_flight: 1024,
            kad: true,
            find_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ControlError> {
        if let Some(name) = self
            .schedulers
            .iter()
            .chain(&self.bootstrap)
            .find(|name| !is_host_and_port(name))
        {
            return Err(ControlError::Address { name: name.clone() });
        }
        let count = self.schedulers.len() + self.bootstrap.len();
        if count > MAX_LINKS {
            return Err(ControlError::TooManyLinks {
                count,
                limit: MAX_LINKS,
            });
        }
        let zero = [
            ("request_timeout", self.request_timeout.is_zero()),
            ("handshake_timeout", self.handshake_timeout.is_zero()),
            ("ping_interval", self.ping_interval.is_zero()),
            ("max_connections", self.max_connections == 0),
            ("max_requests_in_flight", self.max_requests_in_flight == 0),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((option, _)) => Err(ControlError::Zero { option }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn the_defaults_are_valid() {
        config().check().unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = Config {
            schedulers: vec!["scheduler".into()],
            ..config()
        };
        assert!(wrong.check().unwrap_err().to_string().contains("`scheduler`"));
        let wrong = Config {
            bootstrap: vec!["a:1".into(); MAX_LINKS + 1],
            ..config()
        };
        assert!(matches!(wrong.check(), Err(ControlError::TooManyLinks { .. })));
        let wrong = Config {
            max_connections: 0,
            ..config()
        };
        assert!(wrong.check().unwrap_err().to_string().contains("max_connections"));
    }
}
