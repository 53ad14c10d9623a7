//! What libp2p reports about connections that were not made, in words an operator can act on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::allow_block_list::Blocked;
use libp2p::connection_limits;
use libp2p::swarm::{ConnectionDenied, DialError, ListenError};
use libp2p::{PeerId, TransportError};

use crate::address::to_socket;
use crate::transport::ConnectError;

/// What to do about two nodes with different keys.
const SAME_KEY: &str = "check that --cluster-key names the same file on both";

/// Why a node could not be dialled.
pub(crate) fn dial_error(error: &DialError) -> String {
    match error {
        DialError::LocalPeerId { address } => format!("{} is this node itself", at(address)),
        DialError::NoAddresses => "no address of it is known".into(),
        DialError::DialPeerConditionFalse(_) => "it is being dialled already".into(),
        DialError::Aborted => "the attempt was given up".into(),
        DialError::WrongPeerId { obtained, address } => format!("another node, {obtained}, answers at {}", at(address)),
        DialError::Denied { cause } => denied(cause),
        DialError::Transport(attempts) => {
            let attempts: Vec<String> = attempts
                .iter()
                .map(|(address, error)| match connect_error(error) {
                    Some(error) => outgoing(&at(address), error),
                    None => format!("{}: {error}", at(address)),
                })
                .collect();
            attempts.join("; ")
        }
    }
}

/// Why the node at `address` did not get in, and whether that is for an operator to know.
pub(crate) fn listen_error(address: IpAddr, error: &ListenError) -> (String, bool) {
    match error {
        ListenError::Aborted => (format!("the attempt from {address} was given up"), false),
        ListenError::LocalPeerId { .. } => (format!("this node was dialled by itself, from {address}"), false),
        ListenError::WrongPeerId { obtained, .. } => {
            (format!("node {obtained} at {address} was taken for another"), false)
        }
        ListenError::Denied { cause } => (
            format!("refused the connection from {address}: {}", denied(cause)),
            true,
        ),
        ListenError::Transport(error) => match connect_error(error) {
            Some(error @ (ConnectError::OtherKey | ConnectError::Noise(_))) => {
                (outgoing(&address.to_string(), error), true)
            }
            Some(error) => (format!("{address}: {error}"), false),
            None => (format!("{address}: {error}"), false),
        },
    }
}

fn outgoing(at: &str, error: &ConnectError) -> String {
    match error {
        ConnectError::OtherKey => {
            format!("the node at {at} has another cluster key or speaks another protocol: {SAME_KEY}")
        }
        ConnectError::Interrupted(_) | ConnectError::HandshakeTimeout(_) => {
            format!("{at}: {error} (it may be at its limit of connections, or speak another protocol)")
        }
        ConnectError::Tcp(_) | ConnectError::TcpTimeout(_) | ConnectError::Noise(_) => format!("{at}: {error}"),
    }
}

fn denied(cause: &ConnectionDenied) -> String {
    match cause.downcast_ref::<connection_limits::Exceeded>() {
        Some(exceeded) => format!("{exceeded}: raise max_connections if this node is meant to serve more"),
        None if cause.downcast_ref::<Blocked>().is_some() => format!("{cause}: its operator has expelled it"),
        None => cause.to_string(),
    }
}

fn connect_error(error: &TransportError<std::io::Error>) -> Option<&ConnectError> {
    match error {
        TransportError::Other(error) => error.get_ref()?.downcast_ref(),
        TransportError::MultiaddrNotSupported(_) => None,
    }
}

fn at(address: &libp2p::Multiaddr) -> String {
    to_socket(address).map_or_else(|| address.to_string(), |socket| socket.to_string())
}

/// A node's name in errors and logs.
pub(crate) fn name(node: &PeerId) -> String {
    format!("node {node}")
}

/// Lets one message per address through within a time, so that a misconfigured node does not fill the log of others.
#[derive(Debug)]
pub(crate) struct Quiet {
    last: HashMap<IpAddr, Instant>,
    every: Duration,
}

/// The most addresses remembered; beyond, all messages are held back until the oldest may speak again.
const MAX_QUIET: usize = 256;

impl Quiet {
    /// One message per address in `every`.
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            last: HashMap::new(),
            every,
        }
    }

    /// Whether a message about `address` may be logged now.
    pub(crate) fn may_speak(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.last.len() >= MAX_QUIET {
            self.last
                .retain(|_, spoke| now.saturating_duration_since(*spoke) < self.every);
        }
        let spoke_recently = self
            .last
            .get(&address)
            .is_some_and(|spoke| now.saturating_duration_since(*spoke) < self.every);
        if spoke_recently || self.last.len() >= MAX_QUIET {
            return false;
        }
        self.last.insert(address, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_per_address_and_time() {
        let mut quiet = Quiet::new(Duration::from_secs(60));
        let now = Instant::now();
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        assert!(quiet.may_speak(a, now) && quiet.may_speak(b, now));
        assert!(!quiet.may_speak(a, now + Duration::from_secs(59)));
        assert!(quiet.may_speak(a, now + Duration::from_secs(60)));
    }

    #[test]
    fn the_memory_of_who_spoke_is_bounded() {
        let mut quiet = Quiet::new(Duration::from_secs(60));
        let now = Instant::now();
        for n in 0..2 * u32::try_from(MAX_QUIET).unwrap() {
            quiet.may_speak(IpAddr::from(n.to_be_bytes()), now);
        }
        assert_eq!(quiet.last.len(), MAX_QUIET);
        assert!(
            quiet.may_speak(IpAddr::from([200; 4]), now + Duration::from_secs(60)),
            "the old ones give way"
        );
    }
}
