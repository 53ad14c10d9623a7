//! The sockets that a process listens on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket};

use tokio::net::TcpListener;

/// Free port numbers tried until one is free for TCP and UDP alike.
const TRIES: usize = 32;

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {source}{}", advice(source))]
pub(crate) struct BindError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// A listener for an HTTP server.
pub(crate) async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let address = usable(address);
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { what, address, source })
}

/// The data plane's socket, and where the control plane is to listen: on the same number, if a free one is asked for.
pub(crate) fn data_and_control(listen: SocketAddr) -> Result<(UdpSocket, SocketAddr), BindError> {
    let listen = usable(listen);
    let failed = |source| BindError {
        what: "the data plane (UDP)",
        address: listen,
        source,
    };
    for _ in 0..TRIES {
        let data = UdpSocket::bind(listen).map_err(failed)?;
        let control = SocketAddr::new(listen.ip(), data.local_addr().map_err(failed)?.port());
        if listen.port() != 0 || StdTcpListener::bind(control).is_ok() {
            return Ok((data, control));
        }
    }
    // Two numbers then: what others are told has both.
    Ok((UdpSocket::bind(listen).map_err(failed)?, listen))
}

/// On a system without IPv6, all addresses are all IPv4 addresses.
pub(crate) fn usable(listen: SocketAddr) -> SocketAddr {
    if listen.is_ipv6() && listen.ip().is_unspecified() && UdpSocket::bind((listen.ip(), 0)).is_err() {
        return (Ipv4Addr::UNSPECIFIED, listen.port()).into();
    }
    listen
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; another process has it: stop that one, or choose another port (0 picks a free one)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_planes_share_a_free_number() {
        for listen in ["127.0.0.1:0", "[::]:0", "0.0.0.0:0"] {
            let (data, control) = data_and_control(listen.parse().unwrap()).unwrap();
            assert_eq!(data.local_addr().unwrap().port(), control.port());
            assert_ne!(control.port(), 0);
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen("the mirror", address).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {address} for the mirror")),
            "{error}"
        );
        assert!(error.contains("another process has it"), "{error}");
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = data_and_control(taken.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.contains("the data plane (UDP)"), "{error}");
    }
}
