//! What neighbours hear of a node's pieces, and what they need not hear.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use swarm::node::{Config, FetchId, Identity, Input, Node, Outcome, Output};
use wire::control::{Kind, Repository, Role, Source};
use wire::exchange::Message;

const HOLDER: NodeId = NodeId::from_bytes([2; 32]);
const OTHER: NodeId = NodeId::from_bytes([3; 32]);

/// The bits of a `Holding`, and whether its sender wants more.
type Said = (Option<Vec<u8>>, bool);

/// A peer that wants a blob of two pieces, of which `HOLDER` has both and `OTHER` none.
struct Stage {
    node: Node,
    blob: Blob,
    now: Duration,
    asked: Vec<FetchId>,
    said: Vec<(NodeId, Message)>,
}

impl Stage {
    fn new(holder_reads: bool) -> Self {
        let (digest, role, zone) = (Digest::of(b"blob"), Role::Peer, None);
        let blob = Blob { digest, size: 400_000 };
        let node = NodeId::from_bytes([1; 32]);
        let mut stage = Self {
            node: Node::new(Identity { node, role, zone }, Config::default(), 1),
            blob,
            now: Duration::from_secs(1),
            asked: Vec::new(),
            said: Vec::new(),
        };
        assert_eq!(blob.geometry().count(), 2);
        let repository = Repository {
            registry: "r".into(),
            name: "m".into(),
        };
        let kind = Kind::Blob;
        stage.handle(Input::Want {
            digest,
            size: Some(blob.size),
            source: Source { repository, kind },
            urgent: true,
        });
        let (bits, media_type) = (Bitfield::empty(&blob.geometry()), None);
        stage.handle(Input::Opened { blob, bits, media_type });
        stage.handle(Input::Connected { node: OTHER });
        stage.hear_holding(OTHER, Bitfield::empty(&blob.geometry()), false);
        stage.handle(Input::Connected { node: HOLDER });
        stage.hear_holding(HOLDER, Bitfield::full(&blob.geometry()), holder_reads);
        stage.said.clear();
        stage
    }

    fn hear_holding(&mut self, from: NodeId, bits: Bitfield, spare: bool) {
        let message = Message::Holding {
            blob: self.blob,
            bits: Some(bits.as_bytes().to_vec()),
            wants: true,
            media_type: None,
            spare,
            zone: None,
            imports: false,
        };
        self.handle(Input::Message { from, message });
    }

    /// Some time later, so that nothing waits to be gathered.
    fn handle(&mut self, input: Input) {
        let mut out = Vec::new();
        self.now += Duration::from_millis(50);
        self.node.handle(self.now, input, &mut out);
        for output in out {
            if let Output::Fetch { id, .. } = output {
                self.asked.push(id);
            } else if let Output::Send { to, message } = output {
                self.said.push((to, message));
            }
        }
    }

    /// A piece arrives.
    fn gain(&mut self) {
        let (id, outcome) = (self.asked.remove(0), Outcome::Stored);
        self.handle(Input::Fetched { id, outcome });
    }

    /// How many pieces the `Have`s to a neighbour were about, and what the `Holding`s said.
    fn heard(&mut self, node: NodeId) -> (u32, Vec<Said>) {
        let (mut pieces, mut holding) = (0, Vec::new());
        for (_, message) in self.said.extract_if(.., |(to, _)| *to == node) {
            match message {
                Message::Have { ranges, .. } => pieces += ranges.iter().map(|(_, count)| count).sum::<u32>(),
                Message::Holding { bits, wants, .. } => holding.push((bits, wants)),
                Message::Gone { .. } => panic!("nothing is gone"),
            }
        }
        (pieces, holding)
    }
}

#[test]
fn only_who_lacks_a_piece_hears_of_it() {
    let mut stage = Stage::new(false);
    stage.gain();
    assert_eq!(stage.heard(OTHER), (1, vec![]));
    assert_eq!(stage.heard(HOLDER), (0, vec![]), "it has that piece itself");
}

#[test]
fn a_reader_hears_what_others_hold_of_what_it_has() {
    let mut stage = Stage::new(true);
    stage.gain();
    assert_eq!(stage.heard(HOLDER), (1, vec![]));
}

#[test]
fn who_becomes_a_reader_hears_what_it_has_not_heard() {
    let mut stage = Stage::new(false);
    stage.gain();
    stage.said.clear();
    stage.hear_holding(HOLDER, Bitfield::full(&stage.blob.geometry()), true);
    let (_, holding) = stage.heard(HOLDER);
    assert!(
        matches!(&holding[..], [(Some(bits), true)] if bits.iter().any(|byte| *byte != 0)),
        "{holding:?}"
    );
}

#[test]
fn all_hear_when_the_blob_is_whole() {
    let mut stage = Stage::new(false);
    stage.gain();
    stage.said.clear();
    stage.gain();
    for node in [HOLDER, OTHER] {
        assert_eq!(stage.heard(node), (0, vec![(None, false)]));
    }
}
