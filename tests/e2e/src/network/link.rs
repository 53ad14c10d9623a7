//! What a host's link carries.

/// Rates of a link, and the largest packet that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Bits per second from the host; 0 for all that the machine can.
    pub up: u64,
    /// Bits per second to the host; 0 for all that the machine can.
    pub down: u64,
    /// Bytes of the largest IP packet. Hosts with different ones lose each other's large packets, as behind a real switch.
    pub mtu: u16,
}

impl Link {
    /// As fast as the machine.
    pub const OPEN: Self = Self {
        up: 0,
        down: 0,
        mtu: 1500,
    };

    /// The same rate both ways, in megabits per second.
    pub const fn mbit(rate: u64) -> Self {
        Self {
            up: rate * 1_000_000,
            down: rate * 1_000_000,
            ..Self::OPEN
        }
    }

    /// Another largest packet.
    pub const fn with_mtu(self, mtu: u16) -> Self {
        Self { mtu, ..self }
    }
}
