//! A node without a scheduler whose neighbours have nothing more for it: somebody must read the registry, once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use piece::{Bitfield, Blob, Digest, NodeId};
use swarm::node::{Config, Identity, Input, Node, Output};
use wire::control::{Address, Kind, Locality, Neighbour, Repository, Role, Source, Swarm};
use wire::exchange::Message;

const BLOB: u64 = 8 << 20;

struct Alone {
    node: Node,
    now: Duration,
    out: Vec<Output>,
    blob: Blob,
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn neighbour(number: u8, role: Role) -> Neighbour {
    Neighbour {
        node: id(number),
        data: Address(format!("10.0.0.{number}:7654").parse().unwrap()),
        role,
        locality: Locality::default(),
    }
}

impl Alone {
    /// A peer that holds the first `held` pieces of a blob, and lost its scheduler at `now`, which had named these to it.
    fn new(held: u32, named: Vec<Neighbour>) -> Self {
        let config = Config {
            origin_fallback: true,
            ..Config::default()
        };
        let identity = Identity {
            node: id(1),
            role: Role::Peer,
            zone: None,
        };
        let digest = Digest::of(b"blob");
        let mut alone = Self {
            node: Node::new(identity, config, 1),
            now: Duration::from_secs(100),
            out: Vec::new(),
            blob: Blob { digest, size: BLOB },
        };
        let repository = Repository {
            registry: "r".into(),
            name: "m".into(),
        };
        let source = Source {
            repository,
            kind: Kind::Blob,
        };
        let report_every = Duration::from_secs(1);
        let scheduler = id(100);
        alone.tell(Input::SchedulerUp { scheduler });
        alone.tell(Input::SchedulerSettled { scheduler });
        alone.tell(Input::Registered {
            scheduler,
            report_every,
        });
        alone.tell(Input::Want {
            digest,
            size: Some(BLOB),
            source,
            urgent: true,
        });
        let (blob, bits) = (alone.blob, alone.first(held));
        let media_type = None;
        alone.tell(Input::Opened { blob, bits, media_type });
        let swarm = Swarm {
            neighbours: named,
            ..Swarm::default()
        };
        alone.tell(Input::Told {
            scheduler,
            digest,
            swarm,
        });
        alone.tell(Input::SchedulerDown { scheduler });
        alone
    }

    fn first(&self, held: u32) -> Bitfield {
        let geometry = self.blob.geometry();
        let mut bits = Bitfield::empty(&geometry);
        for piece in 0..held {
            bits.set(geometry.piece(piece).unwrap());
        }
        bits
    }

    fn tell(&mut self, input: Input) {
        self.node.handle(self.now, input, &mut self.out);
    }

    /// A neighbour that is connected and holds the first `held` pieces.
    fn meet(&mut self, number: u8, held: u32) {
        self.tell(Input::Connected { node: id(number) });
        let blob = self.blob;
        let message = Message::Holding {
            blob,
            bits: Some(self.first(held).as_bytes().to_vec()),
            wants: true,
            media_type: None,
            spare: false,
            zone: None,
            imports: false,
        };
        self.tell(Input::Message {
            from: id(number),
            message,
        });
    }

    /// Lets time pass; whether the node begins to read the registry meanwhile.
    fn reads_within(&mut self, seconds: u64) -> bool {
        self.out.clear();
        for _ in 0..seconds * 4 {
            self.now += Duration::from_millis(250);
            self.tell(Input::Tick);
        }
        let opens = |output: &Output| matches!(output, Output::OpenOrigin { .. });
        self.out.iter().any(opens)
    }

    fn has_summoned(&self) -> bool {
        let stuck = |output: &Output| matches!(output, Output::FindHolders { stuck: true, .. });
        self.out.iter().any(stuck)
    }
}

#[test]
fn a_side_of_a_partition_that_has_no_more_summons_a_seed_and_then_elects_a_reader() {
    // A seed that cannot be reached is nobody's reader, whatever its rank.
    let mut alone = Alone::new(4, vec![neighbour(9, Role::Seed)]);
    alone.tell(Input::Disconnected { node: id(9) });
    alone.meet(2, 4);
    assert!(!alone.reads_within(8), "seeds come first");
    assert!(alone.has_summoned());
    assert!(alone.reads_within(20), "nobody else is there to read");
}

#[test]
fn nobody_reads_while_a_neighbour_has_more() {
    let mut alone = Alone::new(4, Vec::new());
    alone.meet(2, 5);
    assert!(!alone.reads_within(60));
    assert!(!alone.has_summoned());
}

#[test]
fn a_seed_that_can_be_reached_is_left_to_read() {
    let mut alone = Alone::new(4, vec![neighbour(3, Role::Seed)]);
    alone.meet(3, 4);
    assert!(!alone.reads_within(15));
}
