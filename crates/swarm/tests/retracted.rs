//! A node that is told that what a reader signed is worth nothing drops what rests on it, once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use swarm::node::{Config, Identity, Input, Node, Output, ServeId};
use wire::control::{Kind, Repository, Retraction, Role, Source, Swarm};
use wire::exchange::Refusal;

fn handle(node: &mut Node, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    node.handle(Duration::from_secs(1), input, &mut out);
    out
}

fn retracted(digest: Digest, epoch: u64, by: NodeId) -> Input {
    let retracted = Some(Retraction { epoch, by: Some(by) });
    let swarm = Swarm {
        retracted,
        ..Swarm::default()
    };
    Input::Told {
        scheduler: NodeId::from_bytes([9; 32]),
        digest,
        swarm,
    }
}

fn serve(digest: Digest, from: NodeId) -> Input {
    let id = ServeId(1);
    Input::Serve {
        id,
        from,
        digest,
        piece: 0,
    }
}

#[test]
fn what_a_reader_takes_back_is_dropped_once() {
    let [me, reader, other] = [1, 2, 3].map(|number| NodeId::from_bytes([number; 32]));
    let role = Role::Peer;
    let mut node = Node::new(
        Identity {
            node: me,
            role,
            zone: None,
        },
        Config::default(),
        1,
    );
    let digest = Digest::of(b"blob");
    let blob = Blob { digest, size: 8 << 20 };
    let geometry = blob.geometry();
    let repository = Repository {
        registry: "r".into(),
        name: "m".into(),
    };
    let source = Source {
        repository,
        kind: Kind::Blob,
    };
    let (size, urgent) = (Some(blob.size), true);
    handle(
        &mut node,
        Input::Want {
            digest,
            size,
            source,
            urgent,
        },
    );
    let mut bits = Bitfield::empty(&geometry);
    bits.set(geometry.piece(0).unwrap());
    let media_type = None;
    handle(&mut node, Input::Opened { blob, bits, media_type });
    assert_eq!(node.holding(&digest).unwrap().pieces, 1);

    let out = handle(&mut node, retracted(digest, 7, reader));
    let unblamed = Some(reader);
    assert!(out.contains(&Output::Distrust { digest, unblamed }), "{out:?}");
    let after = 7;
    let readers = Vec::new();
    assert!(out.contains(&Output::Trust { digest, readers, after }), "{out:?}");
    assert_eq!(node.holding(&digest).unwrap().pieces, 0);
    // Until it is gone nothing of it is served, and what was on its way to the disk does not count.
    let refusal = Refusal::NotHere;
    let id = ServeId(1);
    assert!(handle(&mut node, serve(digest, other)).contains(&Output::Refuse { id, refusal }));
    let piece = geometry.piece(1).unwrap();
    handle(&mut node, Input::Settled { digest, piece });
    assert_eq!(node.holding(&digest).unwrap().pieces, 0);
    let again = handle(&mut node, retracted(digest, 7, reader));
    assert!(
        !again.iter().any(|output| matches!(output, Output::Distrust { .. })),
        "{again:?}"
    );

    let (bits, vouchers) = (Bitfield::empty(&geometry), Vec::new());
    handle(&mut node, Input::ChainBroken { digest, bits, vouchers });
    handle(&mut node, Input::Settled { digest, piece });
    assert_eq!(node.holding(&digest).unwrap().pieces, 1, "a new beginning");
    let late = handle(&mut node, retracted(digest, 6, reader));
    assert!(
        !late.iter().any(|output| matches!(output, Output::Distrust { .. })),
        "{late:?}"
    );
}
