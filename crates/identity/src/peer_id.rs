//! The two names of a node's public key.

use libp2p_identity::PeerId;
use piece::NodeId;

/// Before the 32 key bytes of an Ed25519 `PeerId`: identity multihash of 36 bytes, protobuf `{ Type = Ed25519, Data = .. }`
/// (libp2p specs, "peer-ids").
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// What libp2p, logs and operators call this node.
pub fn peer_id(node: NodeId) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&PREFIX);
    bytes[6..].copy_from_slice(node.as_bytes());
    PeerId::from_bytes(&bytes).expect("an identity multihash of 36 bytes is a PeerId")
}

/// What our messages call this peer; none if its key is not Ed25519.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PREFIX)?;
    Some(NodeId::from_bytes(key.try_into().ok()?))
}

/// The node that an operator names by its peer id; none if that is no Ed25519 node's.
pub fn parse_node(text: &str) -> Option<NodeId> {
    node_id(&text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_id_is_the_known_one() {
        // The example key of libp2p's "peer-ids" specification.
        let node: NodeId = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
            .parse()
            .unwrap();
        let peer = peer_id(node);
        assert_eq!(peer.to_bytes()[6..], *node.as_bytes());
        let public = libp2p_identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).unwrap();
        assert_eq!(peer, libp2p_identity::PublicKey::from(public).to_peer_id());
        assert_eq!(node_id(&peer), Some(node));
    }

    #[test]
    fn any_32_bytes_have_a_peer_id() {
        for byte in 0..=255 {
            let node = NodeId::from_bytes([byte; 32]);
            assert_eq!(node_id(&peer_id(node)), Some(node));
        }
    }

    #[test]
    fn a_hashed_peer_id_is_no_node() {
        let hashed: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
        assert_eq!(node_id(&hashed), None);
    }
}
