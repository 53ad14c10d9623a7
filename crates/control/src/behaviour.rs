//! The libp2p protocols that a node speaks, and their settings.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::identity::{Keypair, PeerId};
use libp2p::kad::store::RecordStore;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol};
use libp2p::{connection_limits, identify, kad, ping, request_response};

use crate::announce::RECORD_TTL;
use crate::codec::{self, ControlCodec};
use crate::config::Config;
use crate::hold;
use crate::providers::ProviderStore;

/// Kademlia among packswarm nodes only.
pub(crate) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/packswarm/kad/1");
/// At how many nodes a provider record is kept. Losing all of them within one repetition takes half the cluster.
const KAD_REPLICATION: usize = 8;
/// How many nodes a search asks at a time. Generous, as it is used when others have failed.
const KAD_PARALLELISM: usize = 8;
/// How often a node looks for nodes it does not know: it connects to a few dozen others for it.
const KAD_REFRESH: Duration = Duration::from_secs(15 * 60);
/// The most bytes in a Kademlia message: twenty nodes with four addresses each are a tenth of it.
const KAD_MAX_MESSAGE: usize = 32 << 10;
/// The most of one node's asks under way to another.
pub(crate) const MAX_ASKS_PER_NODE: usize = 512;
/// The most connections to one node: both ends may dial at once, for different reasons.
const MAX_CONNECTIONS_PER_NODE: u32 = 8;
/// The most connections in the handshake: when a scheduler comes back, everybody calls.
const MAX_PENDING: u32 = 512;
/// The most streams of one connection whose protocol is not settled yet; both ends' asks at once.
pub(crate) const MAX_NEGOTIATING: usize = 2 * MAX_ASKS_PER_NODE;
/// The most nodes whose addresses are remembered besides those in the Kademlia tables.
const MAX_REMEMBERED: usize = 256;

/// All of them.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Behaviour {
    /// First, so that nothing else sees a connection that is one too many.
    pub(crate) limits: connection_limits::Behaviour,
    /// Whom an operator has expelled.
    pub(crate) expelled: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) messages: request_response::Behaviour<ControlCodec>,
    pub(crate) kad: Toggle<kad::Behaviour<ProviderStore>>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) hold: hold::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(config: &Config, key: &Keypair) -> Self {
        let local = key.public().to_peer_id();
        Self {
            limits: connection_limits::Behaviour::new(limits(config.max_connections)),
            expelled: allow_block_list::Behaviour::default(),
            messages: messages(config.request_timeout),
            kad: config.kad.then(|| kademlia(local, config.find_timeout)).into(),
            identify: identify::Behaviour::new(
                identify::Config::new(format!("packswarm/{}", wire::PROTOCOL), key.public())
                    .with_agent_version(concat!("packswarm/", env!("CARGO_PKG_VERSION")).into())
                    .with_hide_listen_addrs(config.external.is_some())
                    .with_push_listen_addr_updates(true)
                    .with_cache_size(MAX_REMEMBERED),
            ),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(config.ping_interval)
                    .with_timeout(config.ping_interval),
            ),
            hold: hold::Behaviour::default(),
        }
    }

    /// The provider records in this node's keeping, if it takes part in Kademlia.
    pub(crate) fn records(&mut self) -> Option<&mut impl RecordStore> {
        self.kad.as_mut().map(kad::Behaviour::store_mut)
    }
}

fn limits(max_connections: u32) -> connection_limits::ConnectionLimits {
    let for_dialling = (max_connections / 8).min(64);
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(max_connections))
        .with_max_established_incoming(Some(max_connections - for_dialling))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_NODE))
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
}

fn messages(request_timeout: Duration) -> request_response::Behaviour<ControlCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(request_timeout)
        .with_max_concurrent_streams(2 * MAX_ASKS_PER_NODE);
    let protocols = [(codec::PROTOCOL, request_response::ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(ControlCodec::new(), protocols, config)
}

fn kademlia(local: PeerId, find_timeout: Duration) -> kad::Behaviour<ProviderStore> {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_parallelism(NonZeroUsize::new(KAD_PARALLELISM).expect("not zero"))
        .set_replication_factor(NonZeroUsize::new(KAD_REPLICATION).expect("not zero"))
        .set_query_timeout(find_timeout.max(Duration::from_secs(1)))
        .set_periodic_bootstrap_interval(Some(KAD_REFRESH))
        .set_max_packet_size(KAD_MAX_MESSAGE)
        .set_provider_record_ttl(Some(RECORD_TTL))
        // `announce` paces what libp2p would repeat all at once.
        .set_provider_publication_interval(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_caching(kad::Caching::Enabled { max_peers: 0 });
    let mut kademlia = kad::Behaviour::with_config(local, ProviderStore::new(local), config);
    kademlia.set_mode(Some(kad::Mode::Server));
    kademlia
}
