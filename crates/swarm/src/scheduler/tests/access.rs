//! Who may read what.

use super::*;
use wire::control::Query;

fn probe_of(name: &str, digest: Digest) -> Upstream {
    Upstream {
        repository: repository(name),
        query: Query::Probe {
            digest,
            kind: Kind::Blob,
        },
    }
}

fn content(blob: Blob, access: Access) -> UpstreamAnswer {
    UpstreamAnswer::Content {
        blob,
        media_type: "application/octet-stream".into(),
        access,
    }
}

/// A seed that holds a blob, and two peers.
fn cluster() -> (Cluster, NodeId, [NodeId; 2], Blob) {
    let mut cluster = Cluster::new();
    let seed = cluster.register(0, Role::Seed, vec![]);
    let peers = [
        cluster.register(2, Role::Peer, vec![]),
        cluster.register(3, Role::Peer, vec![]),
    ];
    cluster.report(seed, Report::of(holding(blob("a"), PIECES)));
    (cluster, seed, peers, blob("a"))
}

#[test]
fn a_seed_is_asked_once_for_all_who_want_what_is_here() {
    let (mut cluster, seed, peers, blob) = cluster();
    for peer in peers {
        assert_eq!(cluster.join(peer, blob, "model").access, None);
    }
    let asks = cluster.asks();
    assert_eq!(asks.len(), 1, "{asks:?}");
    assert_eq!((asks[0].1, &asks[0].2), (seed, &probe_of("model", blob.digest)));
    cluster.upstream_answered(asks[0].0, Some(content(blob, Access::Private)));
    for peer in peers {
        let told = cluster.update(peer, blob.digest);
        assert_eq!(
            (told.access, told.about),
            (Some(Access::Private), Some(source("model")))
        );
    }
    let late = cluster.register(4, Role::Peer, vec![]);
    assert_eq!(cluster.join(late, blob, "model").access, Some(Access::Private));
    assert!(cluster.asks().is_empty());
}

#[test]
fn a_second_repository_is_asked_of_its_own() {
    let (mut cluster, _, peers, blob) = cluster();
    cluster.join(peers[0], blob, "model");
    cluster.join(peers[0], blob, "other");
    let asks = cluster.asks();
    assert_eq!(asks.len(), 2);
    assert_eq!(asks[1].2, probe_of("other", blob.digest));
    cluster.upstream_answered(asks[1].0, Some(UpstreamAnswer::Failed { failure: failure(404) }));
    assert_eq!(
        cluster.updates(peers[0], blob.digest)[0]
            .failure
            .as_ref()
            .map(|failure| failure.status),
        Some(404)
    );
    cluster.upstream_answered(asks[0].0, Some(content(blob, Access::Public)));
    assert_eq!(cluster.update(peers[0], blob.digest).access, Some(Access::Public));
}

#[test]
fn what_is_remembered_ends() {
    let (mut cluster, seed, peers, blob) = cluster();
    cluster.join(peers[0], blob, "model");
    let asks = cluster.asks();
    cluster.upstream_answered(asks[0].0, Some(content(blob, Access::Public)));
    for _ in 0..30 {
        cluster.pass(at(10));
        cluster.report(seed, Report::default());
        cluster.report(peers[1], Report::default());
    }
    assert_eq!(cluster.join(peers[1], blob, "model").access, None);
    assert_eq!(cluster.asks().len(), 1);
}

#[test]
fn a_reader_is_trusted_to_find_out_where_it_reads() {
    let (mut cluster, _, peers, _) = cluster();
    let blob = blob("b");
    cluster.join(peers[0], blob, "model");
    let (reader, epoch) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    assert!(cluster.asks().is_empty());
    cluster.out.clear();
    // So small that its last report is its first.
    cluster.report(
        reader,
        Report::of(Holding {
            reading: Some(reading(epoch, 0)),
            ..holding(blob, PIECES)
        }),
    );
    assert_eq!(cluster.scheduler.lease_of(&blob.digest), None);
    assert_eq!(cluster.update(peers[0], blob.digest).access, Some(Access::Public));
    assert!(cluster.asks().is_empty());
}

#[test]
fn nobody_answers_for_a_reader_that_did_not_say() {
    let (mut cluster, _, peers, _) = cluster();
    let blob = blob("b");
    cluster.join(peers[0], blob, "model");
    let (reader, _) = cluster.scheduler.lease_of(&blob.digest).unwrap();
    cluster.report(reader, Report::of(holding(blob, PIECES)));
    assert_eq!(
        cluster.asks()[0].2,
        probe_of("model", blob.digest),
        "the registry is asked"
    );
}

#[test]
fn who_has_it_all_by_now_is_still_told() {
    let (mut cluster, _, peers, blob) = cluster();
    cluster.join(peers[0], blob, "model");
    let asks = cluster.asks();
    cluster.report(peers[0], Report::of(holding(blob, PIECES)));
    cluster.out.clear();
    cluster.upstream_answered(asks[0].0, Some(content(blob, Access::Public)));
    assert_eq!(cluster.update(peers[0], blob.digest).access, Some(Access::Public));
}
