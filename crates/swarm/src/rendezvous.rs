//! Highest-random-weight hashing (Thaler and Ravishankar, 1998): everybody who knows the same nodes agrees, without a word,
//! which of them is responsible for a blob, and when one leaves only its own blobs move.

use std::cmp::Reverse;

use piece::{Digest, NodeId, PieceIndex};

/// The increment of SplitMix64: 2^64 divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The weight of a node for a blob; the node with the highest is responsible, ties go to the higher id.
///
/// The eight little-endian words of digest and id are folded in one by one, each step being SplitMix64 (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014): stable over releases and machines, as it must be. It need
/// not resist an adversary: whoever can choose a node id to be responsible for a blob can as well hold the cluster key.
pub fn rank(digest: &Digest, node: &NodeId) -> u64 {
    let words = digest
        .as_bytes()
        .as_chunks::<8>()
        .0
        .iter()
        .chain(node.as_bytes().as_chunks::<8>().0);
    words.fold(0, |state, word| {
        mix((state ^ u64::from_le_bytes(*word)).wrapping_add(GAMMA))
    })
}

/// Some nodes in the order in which they are responsible for a blob: when the first is lost, the second takes over.
pub fn ranked(digest: &Digest, nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
    nodes.sort_unstable_by_key(|node| Reverse((rank(digest, node), *node)));
    nodes
}

/// The weight of a zone for a blob.
pub(crate) fn rank_zone(digest: &Digest, label: &str) -> u64 {
    let start = rank(digest, &NodeId::from_bytes([0; 32]));
    let bytes = label.bytes();
    bytes.fold(start, |state, byte| mix((state ^ u64::from(byte)).wrapping_add(GAMMA)))
}

/// A node's weight for one piece of a blob, from its weight for the blob.
pub(crate) const fn rank_piece(rank: u64, piece: PieceIndex) -> u64 {
    mix((rank ^ piece.get() as u64).wrapping_add(GAMMA))
}

/// SplitMix64's finaliser.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn winner(digest: &Digest, nodes: &[NodeId]) -> NodeId {
        let ranked = ranked(digest, nodes.iter().copied());
        assert_eq!(
            ranked.first(),
            nodes.iter().max_by_key(|node| (rank(digest, node), **node))
        );
        ranked[0]
    }

    fn blobs() -> impl Iterator<Item = Digest> {
        (0..4000u32).map(|number| Digest::of(&number.to_be_bytes()))
    }

    #[test]
    fn never_changes_between_releases() {
        assert_eq!(rank(&Digest::EMPTY, &node(7)), 0x8d9a_fc79_cde9_e9c4);
        assert_eq!(
            mix(GAMMA),
            0xe220_a839_7b1d_cdaf,
            "the first output of SplitMix64 seeded with 0"
        );
    }

    #[test]
    fn spreads_blobs_evenly() {
        let nodes: Vec<NodeId> = (0..8).map(node).collect();
        let mut shares = [0; 8];
        for digest in blobs() {
            let winner = winner(&digest, &nodes);
            shares[nodes.iter().position(|node| *node == winner).unwrap()] += 1;
        }
        assert!(shares.iter().all(|share| (400..600).contains(share)), "{shares:?}");
    }

    #[test]
    fn the_next_in_order_takes_over() {
        let nodes: Vec<NodeId> = (0..8).map(node).collect();
        for digest in blobs() {
            let order = ranked(&digest, nodes.iter().copied());
            let left = nodes.iter().copied().filter(|node| *node != order[0]);
            assert_eq!(ranked(&digest, left), order[1..]);
        }
    }

    #[test]
    fn a_leaving_node_moves_only_its_own_blobs() {
        let nodes: Vec<NodeId> = (0..8).map(node).collect();
        for digest in blobs() {
            let before = winner(&digest, &nodes);
            if before != nodes[0] {
                assert_eq!(winner(&digest, &nodes[1..]), before);
            }
        }
    }
}
