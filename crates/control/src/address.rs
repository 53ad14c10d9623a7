//! Addresses: names as operators write them, socket addresses as the system has them, multiaddresses as libp2p wants them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// How long a name server may take. Longer than a resolver's first retry, shorter than anybody's patience.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses of one name that are tried.
const MAX_RESOLVED: usize = 16;
/// The most addresses that are remembered of one node.
const MAX_REACHABLE: usize = 4;

/// Whether `name` has the form `HOST:PORT`.
pub(crate) fn is_host_and_port(name: &str) -> bool {
    name.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// The addresses that the system's resolver gives for `HOST:PORT` now; never an empty list.
pub(crate) async fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name))
        .await
        .map_err(|_| format!("the name was not resolved within {} s", RESOLVE_TIMEOUT.as_secs()))?
        .map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let found: Vec<SocketAddr> = found.take(MAX_RESOLVED).collect();
    if found.is_empty() {
        Err("the name has no address".into())
    } else {
        Ok(found)
    }
}

/// `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
pub(crate) fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// The IP address and TCP port at the head of `address`; whatever follows, such as `/p2p/…`, is ignored.
pub(crate) fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let first = parts.next()?;
    let ip = if let Protocol::Ip4(ip) = first {
        IpAddr::from(ip)
    } else if let Protocol::Ip6(ip) = first {
        IpAddr::from(ip)
    } else {
        return None;
    };
    let Some(Protocol::Tcp(port)) = parts.next() else {
        return None;
    };
    Some(SocketAddr::new(ip, port))
}

/// Where a node can be dialled that says it listens on `listening` and that we see at `seen`.
///
/// It cannot know which of its addresses lead from here to there, so the address it is seen at comes first, with the ports
/// it listens on. Its loopback addresses mean ourselves, unless that is how we see it.
pub(crate) fn reachable(listening: &[Multiaddr], seen: IpAddr) -> Vec<SocketAddr> {
    let listening = || {
        listening
            .iter()
            .filter_map(to_socket)
            .filter(|address| address.port() != 0)
    };
    let here = listening().map(|address| SocketAddr::new(seen, address.port()));
    let elsewhere = listening().filter(|address| {
        let ip = address.ip();
        !ip.is_unspecified() && !ip.is_loopback()
    });
    let mut found: Vec<SocketAddr> = Vec::with_capacity(MAX_REACHABLE);
    // A node that listens on certain addresses only is not to be sought at others.
    let exact: Vec<SocketAddr> = listening().filter(|address| address.ip() == seen).collect();
    for address in exact.into_iter().chain(elsewhere).chain(here) {
        if found.len() < MAX_REACHABLE && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multi(addresses: &[&str]) -> Vec<Multiaddr> {
        addresses
            .iter()
            .map(|address| to_multiaddr(address.parse().unwrap()))
            .collect()
    }

    fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn names_need_a_host_and_a_port() {
        assert!(is_host_and_port("scheduler.swarm:7654"));
        assert!(is_host_and_port("[::1]:7654"));
        for wrong in ["scheduler", ":7654", "scheduler:", "scheduler:0", "scheduler:70000"] {
            assert!(!is_host_and_port(wrong), "{wrong}");
        }
    }

    #[test]
    fn socket_addresses_survive_as_multiaddresses() {
        for address in sockets(&["10.1.2.3:7654", "[2001:db8::1]:1"]) {
            assert_eq!(to_socket(&to_multiaddr(address)), Some(address));
        }
        assert_eq!(to_socket(&"/dns4/example.org/tcp/1".parse().unwrap()), None);
    }

    #[test]
    fn loopback_is_believed_only_from_a_node_on_loopback() {
        let listening = multi(&["127.0.0.1:7654", "10.0.0.7:7654"]);
        assert_eq!(
            reachable(&listening, "10.0.0.7".parse().unwrap()),
            sockets(&["10.0.0.7:7654"]),
            "its loopback is not ours"
        );
        assert_eq!(
            reachable(&listening, "127.0.0.1".parse().unwrap()),
            sockets(&["127.0.0.1:7654", "10.0.0.7:7654"])
        );
    }

    #[test]
    fn a_node_behind_a_translated_address_is_sought_where_it_is_seen_too() {
        assert_eq!(
            reachable(&multi(&["172.17.0.2:7000"]), "10.0.0.7".parse().unwrap()),
            sockets(&["172.17.0.2:7000", "10.0.0.7:7000"])
        );
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let many: Vec<Multiaddr> = (1..100)
            .map(|n| to_multiaddr(SocketAddr::from(([10, 0, 0, n], 7654))))
            .collect();
        assert_eq!(reachable(&many, "10.0.1.1".parse().unwrap()).len(), MAX_REACHABLE);
    }
}
