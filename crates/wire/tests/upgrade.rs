//! Releases mix: a message with fields that this release does not know is read as if they were not there, and one without
//! fields that it does know as if they were unset.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};

use minicbor::{Decode, Encode};
use piece::{Blob, Digest, Midstate, NodeId};
use wire::Authorization;
use wire::control::{
    Access, Address, Failure, Holding, Kind, Lease, Locality, Neighbour, Query, Reading, Repository, Request, Response,
    Resume, Retraction, Role, Source, Swarm, Upstream, UpstreamAnswer,
};
use wire::exchange::{Answer, Fetch, Hello, Message, Refusal};

/// What a later release might add at the end of a structure: something nested, so that skipping is not trivial.
const ADDED: [u8; 8] = [0xa1, 0x01, 0x82, 0x18, 0x2a, 0x41, 0xff, 0xf6];

/// The same CBOR with fields added at the end of the last array whose header lies `depth` arrays deep: of an enum, depth 1 is
/// the fields of its variant.
fn widened(bytes: &[u8], depth: usize) -> Vec<u8> {
    let mut wide = bytes.to_vec();
    let mut at = 0;
    for _ in 0..depth {
        // The array that a variant is: its number, and its fields.
        assert_eq!(wide[at], 0x82, "an enum's variant");
        assert!(wide[at + 1] < 0x18, "a small number");
        at += 2;
    }
    let fields = wide[at];
    assert!((0x80..0x96).contains(&fields), "an array of few fields: {fields:#x}");
    wide[at] += 2;
    wide.extend(ADDED);
    wide
}

/// Reads a message as a later release would write it.
fn reads<T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug>(message: &T, depth: usize) {
    let bytes = wire::encode(message);
    assert_eq!(&wire::decode::<T>(&bytes).unwrap(), message);
    assert_eq!(
        &wire::decode::<T>(&widened(&bytes, depth)).unwrap(),
        message,
        "with more fields"
    );
}

fn blob() -> Blob {
    Blob {
        digest: Digest::of(b"blob"),
        size: 7 << 20,
    }
}

fn source() -> Source {
    let repository = Repository {
        registry: "registry.example".into(),
        name: "org/model".into(),
    };
    Source {
        repository,
        kind: Kind::Blob,
    }
}

fn node() -> NodeId {
    NodeId::from_bytes([7; 32])
}

fn swarm() -> Swarm {
    let failure = Failure {
        status: 503,
        message: "busy".into(),
        retry_after: Some(1),
        challenge: None,
    };
    let (boundary, midstate) = (3, Midstate::START);
    let lease = Lease {
        epoch: 9,
        source: source(),
        resume: Some(Resume { boundary, midstate }),
    };
    Swarm {
        size: Some(7),
        media_type: Some("application/x".into()),
        neighbours: vec![Neighbour {
            node: node(),
            data: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 7654))),
            role: Role::Seed,
            locality: Locality::default(),
        }],
        readers: vec![node()],
        lease: Some(lease),
        revoked: Some(4),
        access: Some(Access::Public),
        failure: Some(failure),
        about: Some(source()),
        retracted: Some(Retraction {
            epoch: 8,
            by: Some(node()),
        }),
    }
}

fn holding() -> Holding {
    let reading = Reading {
        epoch: 1,
        boundary: 2,
        midstate: Some(Midstate::START),
        source: source(),
        access: Access::Private,
    };
    Holding {
        blob: blob(),
        pieces: 3,
        wants: true,
        media_type: None,
        reading: Some(reading),
    }
}

fn requests() -> Vec<Request> {
    let digest = blob().digest;
    let upstream = Upstream {
        repository: source().repository,
        query: Query::Tag { tag: "v1".into() },
    };
    let authorization = Authorization::from_header("Bearer a.b.c").unwrap().unwrap();
    vec![
        Request::Register {
            protocol: wire::PROTOCOL,
            role: Role::Peer,
            data: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 7654))),
            locality: Locality::default(),
            holdings: vec![holding()],
            more: false,
        },
        Request::Join {
            digest,
            size: Some(1),
            source: source(),
            urgent: true,
        },
        Request::Report {
            holdings: vec![holding()],
            gone: vec![digest],
            failed: Vec::new(),
            accusations: Vec::new(),
            lonely: vec![digest],
        },
        Request::Upstream { upstream },
        Request::Update { digest, swarm: swarm() },
        Request::Lookup { digest },
        Request::Preheat {
            blobs: vec![(blob(), source())],
            to: Some(Role::Peer),
        },
        Request::Authorised {
            upstream: Upstream {
                repository: source().repository,
                query: Query::Ping,
            },
            authorization: Some(authorization.clone()),
        },
        Request::Lend {
            digest,
            source: source(),
            authorization,
        },
        Request::Expelled {
            nodes: vec![NodeId::from_bytes([3; 32])],
        },
    ]
}

fn responses() -> Vec<Response> {
    let answer = UpstreamAnswer::Content {
        blob: blob(),
        media_type: "application/x".into(),
        access: Access::Public,
    };
    vec![
        Response::Registered { report_every: 1000 },
        Response::Joined { swarm: swarm() },
        Response::Reported {
            known: true,
            swarms: vec![(blob().digest, swarm())],
        },
        Response::Upstream { answer },
        Response::Found {
            data: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 7654))),
            role: Role::Seed,
            holding: Some(holding()),
        },
        Response::Refused {
            reason: "because".into(),
        },
    ]
}

#[test]
fn unknown_fields_are_skipped_on_the_control_plane() {
    requests().iter().for_each(|request| reads(request, 1));
    responses().iter().for_each(|response| reads(response, 1));
    reads(&swarm(), 0);
    reads(&source(), 0);
}

#[test]
fn unknown_fields_are_skipped_on_the_data_plane() {
    let digest = blob().digest;
    let messages = [
        Message::Holding {
            blob: blob(),
            bits: Some(vec![0xf0]),
            wants: true,
            media_type: Some("application/x".into()),
            spare: true,
            zone: Some("zone-1".into()),
            imports: true,
        },
        Message::Have {
            digest,
            ranges: vec![(1, 2)],
            load: 3,
        },
        Message::Gone { digest },
    ];
    messages.iter().for_each(|message| reads(message, 1));
    reads(&Answer::Piece { runs: Vec::new() }, 1);
    let refusal = Refusal::Busy;
    reads(&Answer::Refused { refusal }, 1);
    let fetch = Fetch {
        digest,
        size: 1,
        piece: 2,
        runs: true,
    };
    reads(&fetch, 0);
    let hello = Hello {
        protocol: wire::PROTOCOL,
        proofs: Vec::new(),
        version: "9.9.9".into(),
    };
    reads(&hello, 0);
}

/// A release before a field was added ends its arrays earlier.
#[test]
fn fields_of_later_releases_are_unset_where_they_are_absent() {
    let new = Swarm {
        size: Some(7),
        ..Swarm::default()
    };
    // Size, media type, neighbours and readers: the rest came later.
    let old = [0x84, 0x07, 0xf6, 0x80, 0x80];
    assert_eq!(wire::decode::<Swarm>(&old).unwrap(), new);
}

#[test]
fn messages_of_unknown_kinds_are_errors_that_say_so() {
    // The hundredth kind, with no fields.
    let bytes = [0x82, 0x18, 100, 0x80];
    assert!(wire::decode::<Request>(&bytes).is_err());
    assert!(wire::decode::<Response>(&bytes).is_err());
    let error = wire::decode::<Message>(&bytes).unwrap_err();
    assert!(
        error.to_string().contains("not a message that this release knows"),
        "{error}"
    );
}
