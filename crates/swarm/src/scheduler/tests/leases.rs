//! Who may read a registry.

use super::*;

/// Two seeds and two peers.
fn cluster() -> (Cluster, [NodeId; 2], [NodeId; 2]) {
    let mut cluster = Cluster::new();
    let seeds = [
        cluster.register(0, Role::Seed, vec![]),
        cluster.register(1, Role::Seed, vec![]),
    ];
    let peers = [
        cluster.register(2, Role::Peer, vec![]),
        cluster.register(3, Role::Peer, vec![]),
    ];
    (cluster, seeds, peers)
}

fn chosen(digest: &Digest, nodes: &[NodeId]) -> NodeId {
    *nodes.iter().max_by_key(|node| crate::rank(digest, node)).unwrap()
}

#[test]
fn the_first_who_wants_a_blob_makes_its_seed_read_it() {
    let (mut cluster, seeds, [peer, _]) = cluster();
    let blob = blob("a");
    let reader = chosen(&blob.digest, &seeds);
    let swarm = cluster.join(peer, blob, "model");
    assert_eq!(ids(&swarm.neighbours), [reader]);
    assert_eq!(swarm.readers, [reader]);
    assert_eq!((swarm.size, swarm.lease, swarm.access), (None, None, None));
    let lease = cluster.update(reader, blob.digest).lease.unwrap();
    assert_eq!((lease.source, lease.resume), (source("model"), None));
    assert!(lease.epoch > STARTED << 20);
    assert!(cluster.out.is_empty(), "nobody else is told: {:?}", cluster.out);
}

#[test]
fn the_blobs_of_a_model_spread_over_the_seeds() {
    let (mut cluster, seeds, [peer, _]) = cluster();
    let mut shares = [0, 0];
    for number in 0..200 {
        let blob = blob(&number.to_string());
        cluster.join(peer, blob, "model");
        let (reader, _) = cluster.scheduler.lease_of(&blob.digest).unwrap();
        shares[seeds.iter().position(|seed| *seed == reader).unwrap()] += 1;
    }
    assert!(shares.iter().all(|share| *share > 70), "{shares:?}");
}

#[test]
fn without_a_seed_a_peer_that_wants_the_blob_reads_it() {
    let mut cluster = Cluster::new();
    let peer = cluster.register(1, Role::Peer, vec![]);
    cluster.register(2, Role::Peer, vec![]);
    let swarm = cluster.join(peer, blob("a"), "model");
    assert_eq!(swarm.lease.unwrap().source, source("model"));
    assert_eq!(swarm.readers, [peer]);
    assert!(cluster.out.is_empty());
}

#[test]
fn nobody_reads_what_somebody_holds_or_reads() {
    let (mut cluster, seeds, peers) = cluster();
    let (held, read) = (blob("held"), blob("read"));
    cluster.report(seeds[0], Report::of(holding(held, PIECES)));
    let swarm = cluster.join(peers[0], held, "model");
    assert_eq!(
        (ids(&swarm.neighbours), swarm.size, swarm.lease),
        (vec![seeds[0]], Some(held.size), None)
    );
    assert_eq!(cluster.scheduler.lease_of(&held.digest), None);
    cluster.join(peers[0], read, "model");
    let lease = cluster.scheduler.lease_of(&read.digest);
    let swarm = cluster.join(peers[1], read, "model");
    assert_eq!(cluster.scheduler.lease_of(&read.digest), lease);
    assert_eq!(ids(&swarm.neighbours).len(), 2, "the reader and the other peer");
}

#[test]
fn size_and_access_reach_those_who_wait_as_soon_as_the_reader_knows() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.out.clear();
    cluster.report(
        reader,
        Report::of(Holding {
            reading: Some(reading(epoch, 0)),
            ..holding(blob, 0)
        }),
    );
    let told = cluster.update(peers[0], blob.digest);
    assert_eq!(
        (told.size, told.access, told.about),
        (Some(blob.size), Some(Access::Public), Some(source("model")))
    );
    assert_eq!(told.media_type.as_deref(), Some("application/octet-stream"));
    cluster.report(
        reader,
        Report::of(Holding {
            reading: Some(reading(epoch, 1)),
            ..holding(blob, 1)
        }),
    );
    assert_eq!(cluster.updates(peers[0], blob.digest), [], "once is enough");
    let late = cluster.join(peers[1], blob, "model");
    assert_eq!((late.size, late.access), (Some(blob.size), Some(Access::Public)));
}

#[test]
fn who_follows_a_reader_that_had_no_time_to_report_is_told_that_there_was_one() {
    let (mut cluster, seeds, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.out.clear();
    cluster.handle(Input::Disconnected(reader));
    let next = *seeds.iter().find(|seed| **seed != reader).unwrap();
    let lease = cluster.update(next, blob.digest).lease.unwrap();
    assert!(lease.epoch > epoch);
    let resume = lease.resume.unwrap();
    assert_eq!((resume.boundary, resume.midstate), (0, Midstate::START));
}

#[test]
fn a_reader_that_dies_is_followed_at_the_last_published_boundary() {
    let (mut cluster, seeds, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(
        reader,
        Report::of(Holding {
            reading: Some(reading(epoch, 4)),
            ..holding(blob, 6)
        }),
    );
    cluster.report(peers[0], Report::of(holding(blob, 4)));
    cluster.out.clear();
    cluster.handle(Input::Disconnected(reader));
    let next = *seeds.iter().find(|seed| **seed != reader).unwrap();
    let told = cluster.update(next, blob.digest);
    let lease = told.lease.unwrap();
    assert!(lease.epoch > epoch);
    let resume = lease.resume.unwrap();
    assert_eq!((resume.boundary, resume.midstate), (4, Midstate::from_bytes([4; 32])));
    assert_eq!(told.size, Some(blob.size));
    let told = cluster.update(peers[0], blob.digest);
    assert_eq!(
        (told.readers, ids(&told.neighbours)),
        (vec![reader, next], vec![next]),
        "over this link the head comes"
    );
}

#[test]
fn a_lease_lives_by_its_reports() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    for boundary in 0..5 {
        cluster.report(
            reader,
            Report::of(Holding {
                reading: Some(reading(epoch, boundary)),
                ..holding(blob, 6)
            }),
        );
        // It is silent about the lease, not about itself.
        cluster.pass(at(9));
        (0..4).for_each(|number| drop(cluster.report(node(number), Report::default())));
    }
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), Some((reader, epoch)));
    cluster.out.clear();
    cluster.pass(at(2));
    let (next, later) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert!(next != reader && later > epoch);
    assert_eq!(cluster.update(reader, blob.digest).revoked, Some(epoch));
}

#[test]
fn a_registry_may_let_a_reader_wait() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let lease = cluster.scheduler.lease_of(&blob.digest);
    let alive = |cluster: &mut Cluster| {
        cluster.pass(at(5));
        (0..4).for_each(|number| drop(cluster.report(node(number), Report::default())));
    };
    (0..11).for_each(|_| alive(&mut cluster));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), lease);
    (0..2).for_each(|_| alive(&mut cluster));
    assert_ne!(cluster.scheduler.lease_of(&blob.digest), lease);
}

#[test]
fn a_finished_reading_is_not_repeated() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(
        reader,
        Report::of(Holding {
            reading: Some(reading(epoch, 9)),
            ..holding(blob, 9)
        }),
    );
    cluster.report(reader, Report::of(holding(blob, PIECES)));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None);
    cluster.join(peers[1], blob, "model");
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None);
    cluster.out.clear();
    cluster.handle(Input::Disconnected(reader));
    assert_eq!(
        cluster.scheduler.lease_of(&blob.digest),
        None,
        "it may only have lost us"
    );
    cluster.pass(at(4));
    assert!(
        cluster.scheduler.lease_of(&blob.digest).is_some(),
        "it is gone, and two peers wait"
    );
}

#[test]
fn a_registrys_refusal_reaches_those_who_named_the_source() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "private");
    cluster.join(peers[1], blob, "public");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    let asked = cluster.asks();
    assert_eq!(
        asked[0].2.repository,
        repository("public"),
        "the reader reads from elsewhere"
    );
    cluster.out.clear();
    cluster.report(reader, Report::failed(blob.digest, epoch, failure(401)));
    let told = cluster.update(peers[0], blob.digest);
    assert_eq!(
        (told.failure.map(|failure| failure.status), told.about),
        (Some(401), Some(source("private")))
    );
    let (_, later) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert!(later > epoch, "the other source is tried");
    assert_eq!(cluster.updates(peers[1], blob.digest)[0].failure, None);
}

#[test]
fn a_failure_is_repeated_for_two_seconds() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(reader, Report::failed(blob.digest, epoch, failure(404)));
    let swarm = cluster.join(peers[1], blob, "model");
    assert_eq!(
        (swarm.failure.map(|failure| failure.status), swarm.about),
        (Some(404), Some(source("model")))
    );
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None);
    cluster.pass(at(2));
    assert_eq!(cluster.scheduler.status(cluster.now).swarms, 0, "nothing is left of it");
    assert_eq!(cluster.join(peers[1], blob, "model").failure, None);
    assert!(cluster.scheduler.lease_of(&blob.digest).is_some());
}

#[test]
fn trouble_on_the_way_makes_another_seed_try_once() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (first, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.out.clear();
    cluster.report(first, Report::failed(blob.digest, epoch, failure(502)));
    let (second, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert_ne!(first, second);
    assert_eq!(cluster.update(peers[0], blob.digest).failure, None);
    cluster.report(second, Report::failed(blob.digest, epoch, failure(504)));
    assert_eq!(
        cluster
            .update(peers[0], blob.digest)
            .failure
            .map(|failure| failure.status),
        Some(504)
    );
}

#[test]
fn no_peer_reads_while_a_seed_lives() {
    let mut cluster = Cluster::new();
    let seed = cluster.register(0, Role::Seed, vec![]);
    let peer = cluster.register(1, Role::Peer, vec![]);
    let blob = blob("a");
    cluster.join(peer, blob, "model");
    let (_, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.out.clear();
    cluster.report(seed, Report::failed(blob.digest, epoch, failure(502)));
    assert_eq!(
        cluster.update(peer, blob.digest).failure.map(|failure| failure.status),
        Some(502)
    );
    cluster.pass(at(2));
    cluster.join(peer, blob, "model");
    cluster.handle(Input::Disconnected(seed));
    assert_eq!(
        cluster.scheduler.lease_of(&blob.digest).map(|(reader, _)| reader),
        Some(peer),
        "none is left"
    );
}

#[test]
fn a_stale_failure_changes_nothing() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let lease = cluster.scheduler.lease_of(&blob.digest);
    let (reader, epoch) = lease.unwrap();
    cluster.report(reader, Report::failed(blob.digest, epoch - 1, failure(404)));
    cluster.report(peers[0], Report::failed(blob.digest, epoch, failure(404)));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), lease);
}

#[test]
fn a_reader_out_of_the_others_reach_is_followed() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    for _ in 0..14 {
        cluster.report(
            reader,
            Report::of(Holding {
                reading: Some(reading(epoch, 0)),
                ..holding(blob, 6)
            }),
        );
        cluster.pass(at(5));
        cluster.report(peers[0], Report::default());
        cluster.report(node(1), Report::default());
        cluster.report(node(0), Report::default());
    }
    let (next, _) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert_ne!(next, reader, "it has pieces that nobody could fetch for a minute");
}

#[test]
fn a_slow_registry_is_no_reason_for_another_reader() {
    let (mut cluster, _, peers) = cluster();
    let blob = blob("a");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(peers[0], Report::of(holding(blob, 2)));
    for _ in 0..30 {
        cluster.report(
            reader,
            Report::of(Holding {
                reading: Some(reading(epoch, 2)),
                ..holding(blob, 2)
            }),
        );
        cluster.pass(at(5));
        (0..4).for_each(|number| drop(cluster.report(node(number), Report::default())));
    }
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), Some((reader, epoch)));
}
