//! A neighbour that sends much of nothing around little of something, so that the little keeps the much in memory.
//!
//! quinn's chunks are views of what the system delivered. The system delivers datagrams of one sender that follow one another
//! as one, up to 64 KiB; and within a datagram there can be any amount of padding.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use peak_alloc::PeakAlloc;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, SendStream, TokioRuntime, TransportConfig, UdpPoller};
use transport::Config;

use crate::raw::Raw;
use crate::support::{Node, gone, key, within};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What goes in front of each packet, in datagrams of this length or of the packet's if that is more: together with it, what
/// the system delivers as one. They are no QUIC at all.
const TRAIN: usize = 63_000;
const CARRIAGE: usize = 1150;
/// The most that one such neighbour may make a node hold: quinn lets a stream keep 32 KiB more than is in it.
const BOUND: usize = 4 << 20;

/// A socket that sends others in front of each datagram, once told to.
struct Train {
    inner: Arc<dyn AsyncUdpSocket>,
    is_on: Arc<AtomicBool>,
}

impl AsyncUdpSocket for Train {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.is_on.load(Ordering::Relaxed) {
            return self.inner.try_send(transmit);
        }
        let carriage = transmit.contents.len().max(CARRIAGE);
        let contents = [&vec![0; TRAIN / carriage * carriage], transmit.contents].concat();
        self.inner.try_send(&Transmit {
            contents: &contents,
            segment_size: Some(carriage),
            ..*transmit
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}

impl fmt::Debug for Train {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Train")
    }
}

/// A member that pads.
struct Padder {
    raw: Raw,
    messages: SendStream,
}

impl Padder {
    /// One whose datagrams follow others, all of the same length or not.
    async fn around(node: &mut Node, is_equal: bool) -> Self {
        let is_on = Arc::new(AtomicBool::new(false));
        let mut transport = TransportConfig::default();
        transport.pad_to_mtu(is_equal);
        let padder = Self::join(node, transport, is_on.clone()).await;
        is_on.store(true, Ordering::Relaxed);
        padder
    }

    /// One whose datagrams are as large as they can be, whatever is in them.
    async fn inside(node: &mut Node) -> Self {
        let mut transport = TransportConfig::default();
        transport
            .pad_to_mtu(true)
            .initial_mtu(Config::default().max_udp_payload);
        Self::join(node, transport, Arc::default()).await
    }

    async fn join(node: &mut Node, transport: TransportConfig, is_on: Arc<AtomicBool>) -> Self {
        let inner = TokioRuntime
            .wrap_udp_socket(UdpSocket::bind("127.0.0.1:0").unwrap())
            .unwrap();
        let (train, config) = (Arc::new(Train { inner, is_on }), EndpointConfig::default());
        let endpoint = Endpoint::new_with_abstract_socket(config, None, train, Arc::new(TokioRuntime)).unwrap();
        let raw = Raw::over(endpoint, transport, &key(2), node).await.unwrap();
        let (messages, _) = raw.join(&key(2), node).await;
        Self { raw, messages }
    }
}

/// Has `padder` send requests a byte at a time, many at once, and returns what is then held of them.
async fn held_of_slow_requests(padder: &Padder) -> usize {
    let before = MEMORY.current_usage();
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(within(padder.raw.connection.open_bi()).await.unwrap().0);
    }
    for byte in 0..32 {
        for stream in &mut streams {
            padder.raw.send(stream, &[byte]).await;
        }
    }
    assert_eq!(padder.raw.connection.close_reason(), None);
    MEMORY.current_usage().saturating_sub(before)
}

#[tokio::test]
async fn requests_between_other_datagrams_keep_none_of_them() {
    for is_equal in [false, true] {
        let mut node = Node::start(1);
        let padder = Padder::around(&mut node, is_equal).await;
        let held = held_of_slow_requests(&padder).await;
        println!("{held} bytes are held");
        assert!(held < BOUND, "{held} bytes are held");
    }
}

#[tokio::test]
async fn requests_in_padded_datagrams_keep_none_of_them() {
    let mut node = Node::start(1);
    let padder = Padder::inside(&mut node).await;
    let held = held_of_slow_requests(&padder).await;
    println!("{held} bytes are held");
    assert!(held < BOUND, "{held} bytes are held");
}

#[tokio::test]
async fn messages_that_nobody_reads_keep_few_times_what_they_are() {
    for is_equal in [false, true] {
        let config = Config {
            event_queue: 1,
            ..Config::default()
        };
        let mut node = Node::with_config(1, config);
        let mut padder = Padder::around(&mut node, is_equal).await;
        let before = MEMORY.current_usage();
        for byte in 0..=255 {
            let message = wire::encode_frame(&gone(byte));
            padder.raw.send(&mut padder.messages, &message).await;
        }
        let held = MEMORY.current_usage().saturating_sub(before);
        println!("{held} bytes are held");
        assert!(held < BOUND, "{held} bytes are held");
    }
}
