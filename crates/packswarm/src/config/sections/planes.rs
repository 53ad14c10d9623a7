//! The two networks among the nodes.

use std::time::Duration;

use crate::config::section::section;
use crate::config::{size, time};

section! {
    /// The data plane: QUIC on UDP, pieces of blobs.
    Transport in transport::Config;
    /// Bytes of UDP payload accepted from others, 1200 to 65507: the other end's path discovery can go no higher.
    max_udp_payload => max_udp_payload: u16, "8952";
    /// Bytes of UDP payload up to which path discovery probes, 1200 to 65507. With frames of 9000 bytes, 6500 costs less
    /// than half the CPU of 1500, and 8952 a tenth less again; beyond, loopback only. Too high costs a few lost probes.
    mtu_upper_bound => mtu_upper_bound: u16, "8952";
    /// Bytes of UDP payload to begin with. 1200 passes everywhere; too much makes connections fail.
    initial_mtu => initial_mtu: u16, "1400";
    /// Bytes asked for each socket buffer. The system grants at most net.core.rmem_max and wmem_max; `packswarm status`
    /// says when that was less, and jumbo frames are then lost in bursts.
    #[serde(with = "size")]
    socket_buffer => socket_buffer: usize, "8MiB";
    /// Time without a packet after which a connection is lost, at least 1 s.
    #[serde(with = "time")]
    idle_timeout => idle_timeout: Duration, "30s";
    /// Time without a packet after which one is sent, at most half of `idle_timeout`.
    #[serde(with = "time")]
    keep_alive => keep_alive: Duration, "2s";
    /// Time that a handshake may take, membership proof included.
    #[serde(with = "time")]
    handshake_timeout => handshake_timeout: Duration, "10s";
    /// Time that an opened stream may take to say what it asks for.
    #[serde(with = "time")]
    request_timeout => request_timeout: Duration, "10s";
    /// Time that pieces being served have to finish at the end.
    #[serde(with = "time")]
    drain_timeout => drain_timeout: Duration, "1s";
    /// Connections at once. Each may make this node hold `connection_receive_window` bytes.
    max_connections => max_connections: usize, "300";
    /// Handshakes at once, each way; from half of it on, newcomers must first prove that they own their address.
    max_handshakes => max_handshakes: usize, "32";
    /// Pieces that one neighbour may be asking for at once.
    max_concurrent_fetches => max_concurrent_fetches: u32, "16";
    /// Bytes of one stream in flight to this node: bandwidth times round trip. 2 MiB are 10 Gbit/s at 1.6 ms.
    #[serde(with = "size")]
    stream_receive_window => stream_receive_window: u32, "8MiB";
    /// Bytes of one connection in flight to this node, and so the most that a neighbour can make it hold.
    #[serde(with = "size")]
    connection_receive_window => connection_receive_window: u32, "16MiB";
    /// Bytes of one connection sent and not yet acknowledged. They are views of the pieces, not copies.
    #[serde(with = "size")]
    send_window => send_window: u64, "16MiB";
    /// Messages that may wait for one neighbour; one that is slower is dropped.
    send_queue => send_queue: usize, "256";
    /// Bytes that those may have, for each neighbour.
    #[serde(with = "size")]
    send_queue_bytes => send_queue_bytes: usize, "2MiB";
    /// Events that may wait for the node; then the network waits.
    event_queue => event_queue: usize, "512";
    /// Nodes that can be banned at once; the oldest ban is lifted for a newer one.
    max_bans => max_bans: usize, "1024";
}

section! {
    /// The control plane: libp2p on TCP, between nodes and schedulers.
    Control in control::Config;
    /// How long a request may take in all. At worst an asker waits that long for a node that has gone silent.
    #[serde(with = "time")]
    request_timeout => request_timeout: Duration, "20s";
    /// How long a TCP connection may take to come about, and after it the handshake.
    #[serde(with = "time")]
    handshake_timeout => handshake_timeout: Duration, "10s";
    /// After how long without use a connection is closed, if it is not one to a scheduler. Longer saves handshakes and
    /// costs connections.
    #[serde(with = "time")]
    idle => idle: Duration, "2m";
    /// Between two pings; a scheduler that vanishes without a word is noticed within twice that.
    #[serde(with = "time")]
    ping_interval => ping_interval: Duration, "5s";
    /// Connections at most, at about 50 KiB each. A scheduler needs one for each node.
    max_connections => max_connections: u32, "2000";
    /// Requests that wait for an answer at most, of others and of this node each.
    max_requests_in_flight => max_requests_in_flight: usize, "2000";
    /// Whether to take part in Kademlia, so that nodes find each other when no scheduler answers.
    kad => kad: bool, "false";
    /// How long a search in Kademlia may take.
    #[serde(with = "time")]
    find_timeout => find_timeout: Duration, "10s";
}
