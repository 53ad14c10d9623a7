//! The UDP socket: its buffers, and how many datagrams one system call may carry.
//!
//! quinn hands the kernel up to ten datagrams at once (GSO). If they are together longer than a UDP datagram may be, the
//! kernel answers EMSGSIZE, quinn takes that for loss, and black-hole detection drops the path to 1200 bytes: large
//! payloads become slower than small ones. So the count is capped by the payload. What comes in as one is taken apart
//! ([`Datagrams`]).

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rustix::net::sockopt;

use crate::Config;
use crate::datagrams::{Datagrams, GROUP};

/// The most bytes in a UDP datagram, and so in what GSO sends at once.
const MAX_DATAGRAM: usize = 65_507;
/// The most bytes that GRO receives at once: an IP packet's.
const MAX_RECEIVED: usize = 1 << 16;

/// What was asked of the system, and what it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingReport {
    /// Which setting.
    pub name: &'static str,
    /// What was asked for.
    pub wanted: String,
    /// What the system gave.
    pub got: String,
    /// What an operator can do about the difference; none if there is none.
    pub advice: Option<String>,
}

/// The system's part of the data plane, and what it granted.
#[derive(Debug, Clone)]
pub(crate) struct Socket {
    /// What quinn sends and receives through.
    pub(crate) udp: Arc<dyn AsyncUdpSocket>,
    buffers: Vec<SettingReport>,
}

impl Socket {
    /// Sets up `socket` for `config`; `read` counts the bytes of pieces that were read. Needs a tokio runtime.
    pub(crate) fn new(config: &Config, socket: UdpSocket, read: Arc<AtomicU64>) -> io::Result<Self> {
        let buffers = grow_buffers(&socket, config.socket_buffer);
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let row = match inner.max_receive_segments() {
            1 => config.max_udp_payload.into(),
            _ => MAX_RECEIVED,
        };
        let udp = Arc::new(PlaneSocket {
            inner,
            transmit: (MAX_DATAGRAM / usize::from(config.mtu_upper_bound)).max(1),
            receive: row.div_ceil(config.max_udp_payload.into()).max(GROUP),
            received: Mutex::new(Datagrams::new(row, read)),
        });
        Ok(Self { udp, buffers })
    }

    /// What the system granted, as of now: segmentation can be lost while running, when a route leads to an interface
    /// that cannot do it.
    pub(crate) fn settings(&self, config: &Config) -> Vec<SettingReport> {
        let mut settings = self.buffers.clone();
        let on = self.udp.max_transmit_segments() > 1;
        let wanted = MAX_DATAGRAM / usize::from(config.mtu_upper_bound) > 1;
        settings.push(SettingReport {
            name: "udp_segmentation",
            wanted: on_off(wanted),
            got: on_off(on),
            advice: (wanted && !on).then(|| {
                "UDP segmentation offload (UDP_SEGMENT, Linux 4.18) is not available here: sending costs about four \
                 times the CPU. Check the kernel and the network driver"
                    .to_owned()
            }),
        });
        settings
    }
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

/// Asks for socket buffers of `wanted` bytes and reports what came of it.
fn grow_buffers(socket: &UdpSocket, wanted: usize) -> Vec<SettingReport> {
    // Refusal shows in what the system then says the size is.
    let _ = sockopt::set_socket_recv_buffer_size(socket, wanted);
    let _ = sockopt::set_socket_send_buffer_size(socket, wanted);
    vec![
        buffer_report(
            "receive_buffer",
            "net.core.rmem_max",
            wanted,
            sockopt::socket_recv_buffer_size(socket),
        ),
        buffer_report(
            "send_buffer",
            "net.core.wmem_max",
            wanted,
            sockopt::socket_send_buffer_size(socket),
        ),
    ]
}

fn buffer_report(name: &'static str, sysctl: &str, wanted: usize, got: rustix::io::Result<usize>) -> SettingReport {
    // Linux answers with twice the size, for its own bookkeeping (man 7 socket).
    let got = got.map_or(0, |doubled| doubled / 2);
    let advice = (got < wanted).then(|| {
        format!("packets are lost when this overflows: `sysctl -w {sysctl}={wanted}`, and in /etc/sysctl.d to keep it")
    });
    SettingReport {
        name,
        wanted: format!("{wanted} bytes"),
        got: format!("{got} bytes"),
        advice,
    }
}

/// A socket that sends no more datagrams per call than fit into 65,507 bytes, and takes apart what it receives.
struct PlaneSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    transmit: usize,
    /// Datagrams of the longest payload that what the system delivers as one can hold.
    receive: usize,
    /// Only quinn's driver receives, so nobody ever waits for it.
    received: Mutex<Datagrams>,
}

impl AsyncUdpSocket for PlaneSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.poll(bufs, meta, |bufs, meta| self.inner.poll_recv(cx, bufs, meta))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(self.transmit)
    }

    fn max_receive_segments(&self) -> usize {
        self.receive
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for PlaneSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaneSocket")
            .field("transmit", &self.transmit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(mtu_upper_bound: u16) -> Socket {
        let config = Config {
            mtu_upper_bound,
            max_udp_payload: mtu_upper_bound,
            ..Config::default()
        };
        Socket::new(&config, UdpSocket::bind("127.0.0.1:0").unwrap(), Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn datagrams_per_call_fit_into_one() {
        for payload in [1200, 1472, 6500, 6551, 8952, 32_754, 65_000] {
            let socket = socket(payload);
            let payload = usize::from(payload);
            assert!(
                socket.udp.max_transmit_segments() * payload <= MAX_DATAGRAM,
                "{payload}"
            );
            assert!(socket.udp.max_transmit_segments() >= 1);
            let received = socket.udp.max_receive_segments() * payload;
            assert!(
                (MAX_RECEIVED..2 * MAX_RECEIVED.max(GROUP * payload)).contains(&received),
                "{payload}: {received}"
            );
        }
    }

    #[test]
    fn a_buffer_cut_short_is_reported_with_its_remedy() {
        let report = buffer_report("receive_buffer", "net.core.rmem_max", 4 << 20, Ok(425_984));
        assert_eq!(report.got, "212992 bytes");
        assert!(report.advice.unwrap().contains("net.core.rmem_max=4194304"));
        assert_eq!(
            buffer_report("receive_buffer", "net.core.rmem_max", 4096, Ok(8192)).advice,
            None
        );
    }

    #[tokio::test]
    async fn an_impossible_buffer_is_reported() {
        let config = Config {
            socket_buffer: 1 << 30,
            ..Config::default()
        };
        let socket = Socket::new(&config, UdpSocket::bind("127.0.0.1:0").unwrap(), Arc::default()).unwrap();
        let settings = socket.settings(&config);
        let names: Vec<_> = settings.iter().map(|setting| setting.name).collect();
        assert_eq!(names, ["receive_buffer", "send_buffer", "udp_segmentation"]);
        assert!(settings[0].advice.is_some() && settings[1].advice.is_some());
    }
}
