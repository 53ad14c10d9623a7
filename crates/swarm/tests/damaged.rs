//! A node that held a blob and finds it damaged is named its holders again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use piece::{Blob, Digest, NodeId};
use swarm::scheduler::{Config, Input, Output, RequestId, Scheduler};
use wire::control::{Address, Holding, Kind, Locality, Repository, Request, Response, Role, Source};

#[test]
fn a_damaged_blob_finds_its_holders_again() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut scheduler = Scheduler::new(Config::default(), 1, 1);
    let blob = Blob {
        digest: Digest::of(b"blob"),
        size: 12_530_323,
    };
    let (seed, peer) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    let holding = |pieces, wants| Holding {
        blob,
        pieces,
        wants,
        media_type: None,
        reading: None,
    };
    let mut id = 0;
    let mut now = Duration::ZERO;
    let mut ask = |from, after: u64, request| {
        now += Duration::from_millis(after);
        id += 1;
        let mut out = Vec::new();
        scheduler.handle(
            now,
            Input::Request {
                from,
                observed: ip,
                id: RequestId(id),
                request,
            },
            &mut out,
        );
        let mut told = Vec::new();
        for output in out {
            match output {
                Output::Reply {
                    response: Response::Joined { swarm },
                    ..
                } => told.extend(swarm.neighbours),
                Output::Reply {
                    response: Response::Reported { swarms, .. },
                    ..
                } => {
                    told.extend(swarms.into_iter().flat_map(|(_, swarm)| swarm.neighbours));
                }
                Output::Update { swarm, .. } => told.extend(swarm.neighbours),
                Output::Reply { .. } | Output::AskSeed { .. } | Output::Preheat { .. } | Output::Expelled { .. } => {}
            }
        }
        told
    };
    for (node, role) in [(seed, Role::Seed), (peer, Role::Peer)] {
        let register = Request::Register {
            protocol: wire::PROTOCOL,
            role,
            data: Address(SocketAddr::new(ip, 7654)),
            locality: Locality::default(),
            holdings: vec![holding(48, false)],
            more: false,
        };
        ask(node, 10, register);
    }
    let repository = Repository {
        registry: "r".into(),
        name: "m".into(),
    };
    let source = Source {
        repository,
        kind: Kind::Blob,
    };
    let join = Request::Join {
        digest: blob.digest,
        size: Some(blob.size),
        source,
        urgent: true,
    };
    let mut told = ask(peer, 100, join.clone());
    let report = |lonely| Request::Report {
        holdings: vec![holding(47, true)],
        gone: Vec::new(),
        failed: Vec::new(),
        accusations: Vec::new(),
        lonely,
    };
    told.extend(ask(peer, 900, report(Vec::new())));
    told.extend(ask(peer, 2000, report(vec![blob.digest])));
    assert!(told.iter().any(|neighbour| neighbour.node == seed), "{told:?}");

    // Got, lost and wanted again between two reports: the scheduler has not heard that it ever got it.
    let again = ask(peer, 10, join);
    assert!(again.iter().any(|neighbour| neighbour.node == seed), "{again:?}");
    let lonely = ask(peer, 2000, report(vec![blob.digest]));
    assert!(
        lonely.iter().any(|neighbour| neighbour.node == seed),
        "tried again, for want of others"
    );
}
