//! What can be set, in which unit, to what by default, and why.

use std::time::Duration;

/// The smallest UDP payload that QUIC works with (RFC 9000, section 14).
const MIN_PAYLOAD: u16 = 1200;
/// The largest that a UDP datagram over IPv4 holds.
const MAX_PAYLOAD: u16 = 65_507;

/// Settings of the data plane. Measurements are those of the project's notes: sender plus receiver, CPU-seconds per GiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes of UDP payload accepted from others. Default 6500: the other end's path discovery can go no higher than
    /// this, and QUIC's usual 1472 would cap it silently. Costs a receive buffer of 128 of them, and 512 KiB.
    pub max_udp_payload: u16,
    /// Bytes of UDP payload up to which path discovery probes. Default 6500: 1.10 CPU-s/GiB where frames are 9000 bytes,
    /// against 2.65 at 1500; ten of them are the most that one system call may carry. Up to 8952 is a tenth cheaper again
    /// (segments per call are then capped for it), 65,000 suits loopback only. Too high costs a few lost probes.
    pub mtu_upper_bound: u16,
    /// Bytes of UDP payload to begin with. Default 1200, which passes everywhere; no gain was measured from more, and too
    /// much makes connections fail.
    pub initial_mtu: u16,
    /// Bytes asked for each socket buffer. Default 4 MiB: with jumbo frames the system's 208 KiB overflow. The system
    /// grants at most `net.core.rmem_max` and `wmem_max`; [`crate::Status`] says when that was less.
    pub socket_buffer: usize,
    /// Time without a packet after which a connection is lost. Default 15 s.
    pub idle_timeout: Duration,
    /// Time without a packet after which one is sent. Default 4 s, so that three may be lost in a row.
    pub keep_alive: Duration,
    /// Time that a handshake may take, membership proof included, either way. Default 5 s.
    pub handshake_timeout: Duration,
    /// Time that an opened stream may take to say what it asks for. Default 5 s.
    pub request_timeout: Duration,
    /// Time that [`crate::Transport::close`] waits for pieces being served. Default 5 s.
    pub drain_timeout: Duration,
    /// Neighbours at once. Default 128: ten to twenty are wanted, and a seed has more. Each may make this node hold
    /// 128 KiB.
    pub max_connections: usize,
    /// Handshakes at once, each way; from half of it on, newcomers must first prove that they own their address. Default 64.
    pub max_handshakes: usize,
    /// Pieces that one neighbour may be asking for at once. Default 64.
    pub max_concurrent_fetches: u32,
    /// Bytes of one stream in flight to this node. Default 2 MiB: 10 Gbit/s at 1.6 ms. More bought nothing on short links.
    pub stream_receive_window: u32,
    /// Bytes of one connection in flight to this node, and so the most that a neighbour can make it hold. Default 4 MiB. Only
    /// the first 24 neighbours of whom something is asked have so many; the others have 128 KiB.
    pub connection_receive_window: u32,
    /// Bytes of one connection sent and not yet acknowledged. Default 8 MiB. They are views of the pieces, not copies.
    pub send_window: u64,
    /// Messages that may wait for one neighbour. Default 1024; [`crate::SendError::Full`] beyond.
    pub send_queue: usize,
    /// Bytes that those may have. Default 1 MiB.
    pub send_queue_bytes: usize,
    /// Events that may wait for the consumer; then the network waits. Default 256.
    pub event_queue: usize,
    /// Nodes that can be banned at once; the oldest ban is lifted for a newer one. Default 4096.
    pub max_bans: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_udp_payload: 6500,
            mtu_upper_bound: 6500,
            initial_mtu: MIN_PAYLOAD,
            socket_buffer: 4 << 20,
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(4),
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            max_connections: 128,
            max_handshakes: 64,
            max_concurrent_fetches: 64,
            stream_receive_window: 2 << 20,
            connection_receive_window: 4 << 20,
            send_window: 8 << 20,
            send_queue: 1024,
            send_queue_bytes: 1 << 20,
            event_queue: 256,
            max_bans: 4096,
        }
    }
}

/// A setting with which the transport cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` is {got}, but must be {must}")]
pub struct ConfigError {
    /// The field of [`Config`].
    pub setting: &'static str,
    /// Its value.
    pub got: String,
    /// What would do.
    pub must: String,
}

impl Config {
    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// With the first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_payloads()?;
        for (setting, value) in [
            ("max_connections", self.max_connections),
            ("max_handshakes", self.max_handshakes),
            ("max_concurrent_fetches", self.max_concurrent_fetches as usize),
            ("send_queue", self.send_queue),
            ("event_queue", self.event_queue),
            ("max_bans", self.max_bans),
        ] {
            within(setting, value as u64, 1, 1 << 20)?;
        }
        within(
            "send_queue_bytes",
            self.send_queue_bytes as u64,
            wire::exchange::MAX_MESSAGE as u64,
            1 << 30,
        )?;
        within(
            "stream_receive_window",
            self.stream_receive_window.into(),
            64 << 10,
            1 << 30,
        )?;
        within(
            "connection_receive_window",
            self.connection_receive_window.into(),
            64 << 10,
            1 << 30,
        )?;
        within("send_window", self.send_window, 64 << 10, 1 << 30)?;
        within(
            "idle_timeout in milliseconds",
            millis(self.idle_timeout),
            1000,
            3_600_000,
        )?;
        within(
            "keep_alive in milliseconds",
            millis(self.keep_alive),
            100,
            millis(self.idle_timeout) / 2,
        )?;
        within(
            "handshake_timeout in milliseconds",
            millis(self.handshake_timeout),
            100,
            600_000,
        )?;
        within(
            "request_timeout in milliseconds",
            millis(self.request_timeout),
            100,
            600_000,
        )?;
        within("drain_timeout in milliseconds", millis(self.drain_timeout), 0, 600_000)
    }

    fn check_payloads(&self) -> Result<(), ConfigError> {
        let [min, max] = [MIN_PAYLOAD, MAX_PAYLOAD].map(u64::from);
        within("max_udp_payload", self.max_udp_payload.into(), min, max)?;
        within("mtu_upper_bound", self.mtu_upper_bound.into(), min, max)?;
        within("initial_mtu", self.initial_mtu.into(), min, self.mtu_upper_bound.into())
    }
}

fn within(setting: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError {
        setting,
        got: value.to_string(),
        must: format!("from {least} to {most}"),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        Config::default().check().unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |config: Config| config.check().unwrap_err().to_string();
        let error = refused(Config {
            mtu_upper_bound: 1199,
            ..Config::default()
        });
        assert_eq!(error, "`mtu_upper_bound` is 1199, but must be from 1200 to 65507");
        let error = refused(Config {
            initial_mtu: 6501,
            ..Config::default()
        });
        assert_eq!(error, "`initial_mtu` is 6501, but must be from 1200 to 6500");
        assert!(
            refused(Config {
                max_connections: 0,
                ..Config::default()
            })
            .contains("`max_connections`")
        );
        let keep_alive = Config {
            keep_alive: Duration::from_secs(8),
            ..Config::default()
        };
        assert!(refused(keep_alive).contains("to 7500"));
    }
}
