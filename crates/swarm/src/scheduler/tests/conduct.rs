//! What complaints lead to.

use super::*;
use wire::control::{Accusation, Offence, Retraction};

fn accuse(cluster: &mut Cluster, by: NodeId, node: NodeId, digest: Digest, offence: Offence) {
    let accusations = vec![Accusation { node, digest, offence }];
    cluster.report(
        by,
        Report {
            accusations,
            ..Report::default()
        },
    );
}

#[test]
fn a_node_that_two_accuse_of_wrong_bytes_is_not_named_for_that_blob() {
    let mut cluster = Cluster::new();
    let bad = cluster.register(
        1,
        Role::Peer,
        vec![holding(blob("a"), PIECES), holding(blob("b"), PIECES)],
    );
    let good = cluster.register(2, Role::Peer, vec![holding(blob("a"), PIECES)]);
    let accusers = [
        cluster.register(3, Role::Peer, vec![]),
        cluster.register(4, Role::Peer, vec![]),
    ];
    let late = cluster.register(5, Role::Peer, vec![]);
    accuse(&mut cluster, accusers[0], bad, blob("a").digest, Offence::WrongBytes);
    let named = ids(&cluster.join(accusers[0], blob("a"), "model").neighbours);
    assert_eq!(named, [good], "one accuser is enough for itself");
    accuse(&mut cluster, accusers[1], bad, blob("a").digest, Offence::WrongBytes);
    let named = ids(&cluster.join(late, blob("a"), "model").neighbours);
    assert!(named.contains(&good) && !named.contains(&bad));
    assert_eq!(
        ids(&cluster.join(late, blob("b"), "model").neighbours),
        [bad],
        "another blob"
    );
    cluster.report(bad, Report::of(holding(blob("a"), PIECES)));
    assert_eq!(cluster.scheduler.swarms(Some(Digest::from_bytes([0; 32])), 9).len(), 2);
    let swarms = cluster.scheduler.swarms(None, 9);
    let swarm = swarms.iter().find(|swarm| swarm.digest == blob("a").digest).unwrap();
    assert_eq!(swarm.whole, 1, "what it says it holds counts for nothing");
    assert_eq!(cluster.scheduler.counters().wrong_bytes, 2);
    assert_eq!(cluster.scheduler.status(cluster.now).banned, 1);
}

#[test]
fn a_forging_reader_loses_its_lease_and_gets_no_other() {
    let mut cluster = Cluster::new();
    let seeds = [
        cluster.register(0, Role::Seed, vec![]),
        cluster.register(1, Role::Seed, vec![]),
    ];
    let peers = [
        cluster.register(2, Role::Peer, vec![]),
        cluster.register(3, Role::Peer, vec![]),
    ];
    let blob = blob("a");
    peers.iter().for_each(|peer| drop(cluster.join(*peer, blob, "model")));
    let (forger, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(
        forger,
        Report::of(Holding {
            reading: Some(reading(epoch, 4)),
            ..holding(blob, 6)
        }),
    );
    cluster.out.clear();
    for peer in peers {
        accuse(&mut cluster, peer, forger, blob.digest, Offence::ForgedMidstates);
    }
    let (next, _) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert_eq!(next, *seeds.iter().find(|seed| **seed != forger).unwrap());
    let told = cluster.updates(next, blob.digest);
    let lease = told.iter().find_map(|told| told.lease.clone()).unwrap();
    let from = lease.resume.map(|resume| (resume.boundary, resume.midstate));
    assert_eq!(
        from,
        Some((0, Midstate::START)),
        "nobody goes on from a forger's midstate"
    );
    assert!(
        cluster
            .updates(forger, blob.digest)
            .iter()
            .any(|told| told.revoked == Some(epoch))
    );
    for number in 0..20 {
        let other = super::blob(&format!("other {number}"));
        cluster.join(peers[0], other, "model");
        assert_eq!(
            cluster.scheduler.lease_of(&other.digest).map(|(reader, _)| reader),
            Some(next)
        );
    }
}

#[test]
fn a_ban_ends() {
    let mut cluster = Cluster::new();
    let bad = cluster.register(1, Role::Seed, vec![]);
    for number in 2..4 {
        let accuser = cluster.register(number, Role::Peer, vec![]);
        accuse(&mut cluster, accuser, bad, blob("a").digest, Offence::ForgedMidstates);
    }
    for _ in 0..60 {
        cluster.pass(at(10));
        cluster.report(bad, Report::default());
    }
    let late = cluster.register(5, Role::Peer, vec![]);
    cluster.join(late, blob("a"), "model");
    assert_eq!(
        cluster.scheduler.lease_of(&blob("a").digest).map(|(reader, _)| reader),
        Some(bad)
    );
}

#[test]
fn one_accuser_is_heard_about_eight_nodes_only() {
    let mut cluster = Cluster::new();
    let liars = [
        cluster.register(100, Role::Peer, vec![]),
        cluster.register(101, Role::Peer, vec![]),
    ];
    let honest: Vec<NodeId> = (0..20)
        .map(|number| cluster.register(number, Role::Peer, vec![]))
        .collect();
    for liar in liars {
        for node in &honest {
            accuse(&mut cluster, liar, *node, blob("a").digest, Offence::ForgedMidstates);
        }
    }
    assert_eq!(cluster.scheduler.status(cluster.now).banned, 8);
}

#[test]
fn a_reader_takes_back_what_it_signed_and_all_begin_again() {
    let mut cluster = Cluster::new();
    let seeds = [1, 2].map(|number| cluster.register(number, Role::Seed, vec![]));
    let peers = [3, 4, 5].map(|number| cluster.register(number, Role::Peer, vec![]));
    let blob = blob("a");
    for peer in &peers[..2] {
        cluster.join(*peer, blob, "model");
    }
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    let reads = Holding {
        reading: Some(reading(epoch, 4)),
        ..holding(blob, 6)
    };
    cluster.report(reader, Report::of(reads));
    cluster.report(peers[0], Report::of(holding(blob, 4)));
    // Who does not read has nothing to take back.
    accuse(&mut cluster, peers[0], peers[0], blob.digest, Offence::ForgedMidstates);
    cluster.out.clear();

    let failure = Failure {
        status: 502,
        message: "the registry's bytes are others".to_owned(),
        retry_after: None,
        challenge: None,
    };
    let accusation = Accusation {
        node: reader,
        digest: blob.digest,
        offence: Offence::ForgedMidstates,
    };
    let report = Report {
        failed: vec![(blob.digest, epoch, failure)],
        accusations: vec![accusation],
        ..Report::default()
    };
    cluster.report(reader, report);
    let (next, _) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert_eq!(next, *seeds.iter().find(|seed| **seed != reader).unwrap());
    let told = cluster.update(next, blob.digest);
    let resume = told.lease.and_then(|lease| lease.resume).map(|resume| resume.boundary);
    assert_eq!(resume, Some(0), "nobody goes on from what was taken back");
    let retraction = Some(Retraction {
        epoch,
        by: Some(reader),
    });
    for peer in &peers[..2] {
        assert_eq!(cluster.update(*peer, blob.digest).retracted, retraction);
    }
    let late = cluster.join(peers[2], blob, "model");
    assert_eq!(late.retracted, retraction, "who comes late may hold some of it");
    assert_eq!(cluster.scheduler.status(cluster.now).banned, 0, "it was honest");

    cluster.report(next, Report::of(holding(blob, PIECES)));
    cluster.out.clear();
    let last = cluster.register(6, Role::Peer, vec![]);
    assert_eq!(
        cluster.join(last, blob, "model").retracted,
        None,
        "the truth is there to be had"
    );
}
