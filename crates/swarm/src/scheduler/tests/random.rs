//! Random events, and what must hold after each.

use proptest::prelude::*;

use super::PIECES;
use super::world::{BLOBS, NODES, World};

/// What may happen next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Connect {
        node: u32,
        fresh: bool,
    },
    Disconnect {
        node: u32,
    },
    Join {
        node: u32,
        blob: u32,
        repository: u32,
    },
    /// The node gets pieces, if it waits or reads.
    Gain {
        node: u32,
        blob: u32,
        pieces: u32,
    },
    /// The node reports all that it holds.
    Report {
        node: u32,
    },
    Fail {
        node: u32,
        blob: u32,
        status: u16,
    },
    Drop {
        node: u32,
        blob: u32,
    },
    Lonely {
        node: u32,
        blob: u32,
    },
    Accuse {
        node: u32,
        other: u32,
        blob: u32,
        forged: bool,
    },
    Ask {
        node: u32,
        tag: u32,
    },
    Answer {
        which: usize,
        how: u32,
    },
    Pass {
        millis: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (node, blob) = (0..NODES, 0..BLOBS);
    prop_oneof![
        4 => (node.clone(), any::<bool>()).prop_map(|(node, fresh)| Step::Connect { node, fresh }),
        2 => node.clone().prop_map(|node| Step::Disconnect { node }),
        6 => (node.clone(), blob.clone(), 0..2u32).prop_map(|(node, blob, repository)| Step::Join { node, blob, repository }),
        6 => (node.clone(), blob.clone(), 0..=PIECES).prop_map(|(node, blob, pieces)| Step::Gain { node, blob, pieces }),
        8 => node.clone().prop_map(|node| Step::Report { node }),
        2 => (node.clone(), blob.clone(), prop_oneof![Just(401), Just(404), Just(502), Just(507)])
            .prop_map(|(node, blob, status)| Step::Fail { node, blob, status }),
        1 => (node.clone(), blob.clone()).prop_map(|(node, blob)| Step::Drop { node, blob }),
        1 => (node.clone(), blob.clone()).prop_map(|(node, blob)| Step::Lonely { node, blob }),
        1 => (node.clone(), node.clone(), blob.clone(), any::<bool>())
            .prop_map(|(node, other, blob, forged)| Step::Accuse { node, other, blob, forged }),
        2 => (node, 0..2u32).prop_map(|(node, tag)| Step::Ask { node, tag }),
        3 => (any::<usize>(), 0..4u32).prop_map(|(which, how)| Step::Answer { which, how }),
        4 => prop_oneof![0..500u64, 1000..6000u64, 20_000..90_000u64].prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn holds_whatever_happens(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.check_liveness();
        world.check_empty();
    }
}
