//! A seed that reads the registry reads first, and fetches what others hold afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId, PieceIndex};
use swarm::node::{Config, FetchId, Identity, Input, Node, Outcome, Output};
use wire::control::{Access, Kind, Lease, Repository, Role, Source, Swarm};
use wire::exchange::Message;

const HOLDER: NodeId = NodeId::from_bytes([2; 32]);

/// A seed that was given the lease of a blob of which its neighbour holds the first half; what it reads, and what it asks for.
struct Stage {
    node: Node,
    blob: Blob,
    now: Duration,
    reads: Vec<PieceIndex>,
    asked: Vec<(FetchId, PieceIndex)>,
}

impl Stage {
    fn new() -> Self {
        let (digest, role, zone) = (Digest::of(b"blob"), Role::Seed, None);
        let node = NodeId::from_bytes([1; 32]);
        let blob = Blob { digest, size: 16 << 20 };
        let mut stage = Self {
            node: Node::new(Identity { node, role, zone }, Config::seed(), 1),
            blob,
            now: Duration::from_secs(1),
            reads: Vec::new(),
            asked: Vec::new(),
        };
        let (name, registry) = ("m".into(), "r".into());
        let source = Source {
            repository: Repository { registry, name },
            kind: Kind::Blob,
        };
        let lease = Lease {
            epoch: 2,
            source,
            resume: None,
        };
        let swarm = Swarm {
            size: Some(blob.size),
            lease: Some(lease),
            ..Swarm::default()
        };
        stage.handle(Input::Told {
            scheduler: NodeId::from_bytes([9; 32]),
            digest,
            swarm,
        });
        let geometry = blob.geometry();
        let mut half = Bitfield::empty(&geometry);
        for piece in geometry.pieces().take(geometry.count() as usize / 2) {
            half.set(piece);
        }
        stage.handle(Input::Connected { node: HOLDER });
        stage.handle(Input::Message {
            from: HOLDER,
            message: Message::Holding {
                blob,
                bits: Some(half.as_bytes().to_vec()),
                wants: true,
                media_type: None,
                spare: false,
                zone: None,
                imports: false,
            },
        });
        let (bits, media_type) = (Bitfield::empty(&geometry), None);
        stage.handle(Input::Opened { blob, bits, media_type });
        let (access, media_type, sequential) = (Access::Public, None, false);
        stage.handle(Input::OriginOpened {
            blob,
            media_type,
            access,
            sequential,
        });
        stage
    }

    fn handle(&mut self, input: Input) {
        let mut out = Vec::new();
        self.now += Duration::from_millis(20);
        self.node.handle(self.now, input, &mut out);
        for output in out {
            if let Output::Fetch { id, piece, .. } = output {
                self.asked.push((id, piece));
            } else if let Output::ReadOrigin { first, count, .. } = output {
                let numbers = first.get()..first.get() + count;
                let geometry = self.blob.geometry();
                self.reads.extend(numbers.filter_map(|number| geometry.piece(number)));
            }
        }
    }
}

#[test]
fn what_only_the_registry_has_comes_before_what_others_hold() {
    let mut stage = Stage::new();
    let half = stage.blob.geometry().count() / 2;
    assert!(!stage.reads.is_empty() && stage.reads.iter().all(|piece| piece.get() >= half));
    // Until the registry has answered, nothing else is to be had.
    for (id, _) in std::mem::take(&mut stage.asked) {
        let outcome = Outcome::Stored;
        stage.handle(Input::Fetched { id, outcome });
    }
    let digest = stage.blob.digest;
    while !stage.reads.is_empty() {
        assert_eq!(stage.asked, [], "the registry is being read");
        let piece = stage.reads.remove(0);
        stage.handle(Input::Settled { digest, piece });
    }
    assert!(!stage.asked.is_empty() && stage.asked.iter().all(|(_, piece)| piece.get() < half));
}
