//! A client's first bytes come alone from whoever has them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId, PieceIndex};
use swarm::node::{Config, FetchId, Identity, Input, Node, Outcome, Output};
use wire::control::{Kind, Repository, Role, Source};
use wire::exchange::Message;

const HOLDERS: [NodeId; 2] = [NodeId::from_bytes([2; 32]), NodeId::from_bytes([3; 32])];

/// A peer whose client waits at this piece, or is not there yet, and what it asks two holders of the whole blob for.
struct Stage {
    node: Node,
    asked: Vec<(FetchId, NodeId, PieceIndex)>,
}

impl Stage {
    fn new(cursor: Option<u32>) -> Self {
        let (digest, role) = (Digest::of(b"blob"), Role::Peer);
        let blob = Blob { digest, size: 64 << 20 };
        let me = NodeId::from_bytes([1; 32]);
        let mut stage = Self {
            node: Node::new(
                Identity {
                    node: me,
                    role,
                    zone: None,
                },
                Config::default(),
                1,
            ),
            asked: Vec::new(),
        };
        let repository = Repository {
            registry: "r".into(),
            name: "m".into(),
        };
        let source = Source {
            repository,
            kind: Kind::Blob,
        };
        let (size, urgent) = (Some(blob.size), true);
        stage.handle(Input::Want {
            digest,
            size,
            source,
            urgent,
        });
        let piece = cursor.map(|number| blob.geometry().piece(number).unwrap());
        stage.handle(Input::Cursor { digest, piece });
        let (bits, media_type) = (Bitfield::empty(&blob.geometry()), None);
        stage.handle(Input::Opened { blob, bits, media_type });
        for node in HOLDERS {
            stage.handle(Input::Connected { node });
            let message = Message::Holding {
                blob,
                bits: Some(Bitfield::full(&blob.geometry()).as_bytes().to_vec()),
                wants: false,
                media_type: None,
                // As a seed says it: that must not make a difference here.
                spare: true,
                zone: None,
                imports: false,
            };
            stage.handle(Input::Message { from: node, message });
        }
        stage
    }

    fn handle(&mut self, input: Input) {
        let mut out = Vec::new();
        self.node.handle(Duration::from_secs(1), input, &mut out);
        for output in out {
            if let Output::Fetch { id, from, piece, .. } = output {
                self.asked.push((id, from, piece));
            }
        }
    }

    fn asked_of(&self, node: NodeId) -> Vec<u32> {
        let of_it = self.asked.iter().filter(|(_, from, _)| *from == node);
        of_it.map(|(_, _, piece)| piece.get()).collect()
    }
}

#[test]
fn what_a_client_waits_for_shares_its_link_with_nothing_until_it_is_here() {
    let mut stage = Stage::new(Some(7));
    let (first, from, piece) = stage.asked[0];
    assert_eq!(piece.get(), 7);
    assert_eq!(stage.asked_of(from), [7]);
    let other = HOLDERS.into_iter().find(|node| *node != from).unwrap();
    assert!(stage.asked_of(other).len() > 1, "the other holder's link is its own");
    stage.handle(Input::Fetched {
        id: first,
        outcome: Outcome::Stored,
    });
    assert!(stage.asked_of(from).len() > 1, "the rest follows");
}

#[test]
fn without_a_client_many_are_asked_for_at_once() {
    let stage = Stage::new(None);
    assert!(HOLDERS.iter().all(|node| stage.asked_of(*node).len() > 1));
}
