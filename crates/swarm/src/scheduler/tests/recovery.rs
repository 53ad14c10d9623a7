//! What a scheduler that was restarted learns from its nodes.

use super::*;

fn restarted() -> Cluster {
    Cluster {
        now: Duration::ZERO,
        ..Cluster::new()
    }
}

#[test]
fn a_lease_is_adopted_with_its_epoch() {
    let mut cluster = restarted();
    let (blob, epoch) = (blob("a"), (STARTED << 20) - 5);
    let peer = cluster.register(2, Role::Peer, vec![holding(blob, 1)]);
    cluster.join(peer, blob, "model");
    cluster.register(0, Role::Seed, vec![]);
    cluster.pass(at(1));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None, "others may still tell");
    let reads = Holding {
        reading: Some(reading(epoch, 3)),
        ..holding(blob, 5)
    };
    let reader = cluster.register(1, Role::Seed, vec![reads]);
    cluster.pass(at(2));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), Some((reader, epoch)));
    let told = cluster.updates(peer, blob.digest);
    assert!(told.iter().any(|told| told.readers == [reader]), "{told:?}");
    assert_eq!(
        cluster
            .updates(reader, blob.digest)
            .iter()
            .filter_map(|told| told.revoked)
            .max(),
        None
    );
    cluster.handle(Input::Disconnected(reader));
    let told = cluster.updates(node(0), blob.digest);
    let lease = told.iter().find_map(|told| told.lease.clone()).unwrap();
    assert_eq!(
        lease.resume.map(|resume| resume.boundary),
        Some(3),
        "and so is what it had published"
    );
    assert!(lease.epoch > epoch);
}

#[test]
fn leases_are_granted_once_the_nodes_have_had_time_to_tell() {
    let mut cluster = restarted();
    let seed = cluster.register(0, Role::Seed, vec![]);
    let peer = cluster.register(2, Role::Peer, vec![holding(blob("other"), PIECES)]);
    let swarm = cluster.join(peer, blob("a"), "model");
    assert!(swarm.lease.is_none() && swarm.readers.is_empty());
    cluster.pass(Duration::from_millis(1999));
    assert_eq!(cluster.scheduler.lease_of(&blob("a").digest), None);
    cluster.pass(Duration::from_millis(2));
    assert_eq!(
        cluster.scheduler.lease_of(&blob("a").digest).map(|(reader, _)| reader),
        Some(seed)
    );
    assert_eq!(cluster.update(peer, blob("a").digest).readers, [seed]);
}

#[test]
fn a_new_cluster_is_not_delayed() {
    let mut cluster = restarted();
    let seed = cluster.register(0, Role::Seed, vec![]);
    let peer = cluster.register(2, Role::Peer, vec![]);
    assert_eq!(cluster.join(peer, blob("a"), "model").readers, [seed]);
}

#[test]
fn a_peer_reads_only_once_the_seeds_have_had_time_to_come() {
    let mut cluster = restarted();
    let peer = cluster.register(2, Role::Peer, vec![]);
    cluster.join(peer, blob("a"), "model");
    cluster.join(peer, blob("b"), "model");
    cluster.pass(at(1));
    assert_eq!(cluster.scheduler.lease_of(&blob("a").digest), None);
    let seed = cluster.register(0, Role::Seed, vec![]);
    assert_eq!(
        cluster.scheduler.lease_of(&blob("a").digest).map(|(reader, _)| reader),
        Some(seed),
        "at once"
    );
    assert_eq!(
        cluster.scheduler.lease_of(&blob("b").digest).map(|(reader, _)| reader),
        Some(seed)
    );

    let mut alone = restarted();
    let peer = alone.register(2, Role::Peer, vec![]);
    alone.join(peer, blob("a"), "model");
    alone.pass(at(2));
    assert_eq!(
        alone.scheduler.lease_of(&blob("a").digest).map(|(reader, _)| reader),
        Some(peer)
    );
}

#[test]
fn an_older_epoch_is_revoked_and_a_newer_one_wins() {
    let mut cluster = Cluster::new();
    let (old, new) = (
        cluster.register(0, Role::Seed, vec![]),
        cluster.register(1, Role::Seed, vec![]),
    );
    let peer = cluster.register(2, Role::Peer, vec![]);
    let blob = blob("a");
    cluster.join(peer, blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    let other = if reader == old { new } else { old };
    cluster.out.clear();
    let stale = Holding {
        reading: Some(reading(epoch - 1, 3)),
        ..holding(blob, 5)
    };
    let told = cluster.report(other, Report::of(stale));
    assert_eq!(told[0].1.revoked, Some(epoch - 1));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), Some((reader, epoch)));
    let newer = Holding {
        reading: Some(reading(epoch + 10, 3)),
        ..holding(blob, 5)
    };
    cluster.report(other, Report::of(newer));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), Some((other, epoch + 10)));
    assert!(
        cluster
            .updates(reader, blob.digest)
            .iter()
            .any(|told| told.revoked == Some(epoch))
    );
    cluster.handle(Input::Disconnected(other));
    assert!(
        cluster.scheduler.lease_of(&blob.digest).unwrap().1 > epoch + 10,
        "epochs go on from the highest known"
    );
}

#[test]
fn a_reader_that_was_overtaken_does_not_get_its_lease_back() {
    let mut cluster = Cluster::new();
    cluster.register(0, Role::Seed, vec![]);
    cluster.register(1, Role::Seed, vec![]);
    let peer = cluster.register(2, Role::Peer, vec![]);
    let blob = blob("a");
    cluster.join(peer, blob, "model");
    let (first, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    let reads = |epoch| {
        Report::of(Holding {
            reading: Some(reading(epoch, 1)),
            ..holding(blob, 3)
        })
    };
    cluster.report(first, reads(epoch));
    cluster.report(first, Report::of(holding(blob, 3)));
    let (second, later) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert!(second != first && later > epoch);
    cluster.report(second, Report::failed(blob.digest, later, failure(404)));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None);
    let told = cluster.report(first, reads(epoch));
    assert_eq!(told[0].1.revoked, Some(epoch));
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None);
}

#[test]
fn an_epoch_that_no_scheduler_can_have_granted_is_ignored() {
    let mut cluster = Cluster::new();
    let seed = cluster.register(0, Role::Seed, vec![]);
    let liar = cluster.register(1, Role::Peer, vec![]);
    let blob = blob("a");
    cluster.join(liar, blob, "model");
    cluster.report(
        liar,
        Report::of(Holding {
            reading: Some(reading(u64::MAX, 3)),
            ..holding(blob, 5)
        }),
    );
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    let later = STARTED + cluster.now.as_secs() + 1;
    assert!(reader == seed && epoch < later << 20);
}

#[test]
fn a_reader_that_was_restarted_no_longer_reads() {
    let mut cluster = Cluster::new();
    let seed = cluster.register(0, Role::Seed, vec![]);
    let peer = cluster.register(2, Role::Peer, vec![]);
    let blob = blob("a");
    cluster.join(peer, blob, "model");
    let (_, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(
        seed,
        Report::of(Holding {
            reading: Some(reading(epoch, 2)),
            ..holding(blob, 3)
        }),
    );
    cluster.register(
        0,
        Role::Seed,
        vec![Holding {
            wants: false,
            ..holding(blob, 3)
        }],
    );
    let (reader, later) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert!(later > epoch, "it must be told anew");
    assert_eq!(reader, seed);
}
