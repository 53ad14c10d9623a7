//! What is said of nodes.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};
use piece::NodeId;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Knows who has what and who reads the registry.
    #[n(0)]
    Scheduler,
    /// Reads the registry and feeds the swarm.
    #[n(1)]
    Seed,
    /// Fetches, verifies, stores, serves.
    #[n(2)]
    Peer,
}

impl Role {
    /// Its name, as commands, logs and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Seed => "seed",
            Self::Peer => "peer",
        }
    }
}

/// Where a node stands; labels that an operator chose, compared for equality only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Locality {
    /// The machine.
    #[n(0)]
    pub host: Option<String>,
    /// The rack or block.
    #[n(1)]
    pub rack: Option<String>,
    /// The zone or data centre.
    #[n(2)]
    pub zone: Option<String>,
}

/// A node as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Neighbour {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// Where its data plane listens.
    #[n(1)]
    pub data: Address,
    /// What it does.
    #[n(2)]
    pub role: Role,
    /// Where it stands.
    #[n(3)]
    pub locality: Locality,
}

/// An IP address and port as CBOR carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub SocketAddr);

impl<C> Encode<C> for Address {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?;
        match self.0.ip() {
            IpAddr::V4(ip) => e.bytes(&ip.octets())?,
            IpAddr::V6(ip) => e.bytes(&ip.octets())?,
        };
        e.u16(self.0.port())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Address {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wrong = || minicbor::decode::Error::message("an address is 4 or 16 bytes and a port");
        if d.array()? != Some(2) {
            return Err(wrong());
        }
        let ip = d.bytes()?;
        let ip: IpAddr = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(v4), _) => v4.into(),
            (_, Ok(v6)) => v6.into(),
            _ => return Err(wrong()),
        };
        Ok(Self(SocketAddr::new(ip, d.u16()?)))
    }
}
