//! Questions that only a registry can answer.

use super::*;
use wire::control::Query;

fn tag(name: &str) -> Upstream {
    Upstream {
        repository: repository("model"),
        query: Query::Tag { tag: name.into() },
    }
}

fn resolved(blob: Blob) -> UpstreamAnswer {
    UpstreamAnswer::Content {
        blob,
        media_type: "application/manifest".into(),
        access: Access::Public,
    }
}

fn cluster() -> (Cluster, Vec<NodeId>, [NodeId; 2]) {
    let mut cluster = Cluster::new();
    let seeds = (0..3)
        .map(|number| cluster.register(number, Role::Seed, vec![]))
        .collect();
    let peers = [
        cluster.register(10, Role::Peer, vec![]),
        cluster.register(11, Role::Peer, vec![]),
    ];
    (cluster, seeds, peers)
}

fn ask(cluster: &mut Cluster, from: NodeId, upstream: Upstream) -> RequestId {
    cluster.post(from, Request::Upstream { upstream })
}

fn answered(cluster: &mut Cluster, id: RequestId) -> Option<UpstreamAnswer> {
    match cluster.answer(id)? {
        Response::Upstream { answer } => Some(answer),
        other => panic!("not an answer: {other:?}"),
    }
}

#[test]
fn one_request_serves_all_who_wait_and_ten_seconds_more() {
    let (mut cluster, seeds, peers) = cluster();
    let waiting = peers.map(|peer| ask(&mut cluster, peer, tag("v1")));
    let asks = cluster.asks();
    assert_eq!(asks.len(), 1);
    assert!(seeds.contains(&asks[0].1));
    let manifest = blob("manifest");
    cluster.upstream_answered(asks[0].0, Some(resolved(manifest)));
    for id in waiting {
        assert_eq!(answered(&mut cluster, id), Some(resolved(manifest)));
    }
    cluster.pass(Duration::from_millis(9900));
    let id = ask(&mut cluster, peers[0], tag("v1"));
    assert_eq!(answered(&mut cluster, id), Some(resolved(manifest)));
    cluster.pass(Duration::from_millis(200));
    let id = ask(&mut cluster, peers[0], tag("v1"));
    assert_eq!(answered(&mut cluster, id), None);
    assert_eq!(cluster.asks().len(), 1);
    assert_eq!(cluster.scheduler.status(cluster.now).upstream_waiters, 1);
}

#[test]
fn the_seed_that_resolved_a_tag_holds_the_manifest() {
    let (mut cluster, _, peers) = cluster();
    ask(&mut cluster, peers[0], tag("v1"));
    let asks = cluster.asks();
    let manifest = blob("manifest");
    cluster.upstream_answered(asks[0].0, Some(resolved(manifest)));
    let swarm = cluster.join(peers[0], manifest, "model");
    assert_eq!(ids(&swarm.neighbours), [asks[0].1]);
    assert_eq!((swarm.size, swarm.access), (Some(manifest.size), Some(Access::Public)));
    assert_eq!(cluster.scheduler.lease_of(&manifest.digest), None);
}

#[test]
fn questions_spread_over_the_seeds() {
    let (mut cluster, seeds, peers) = cluster();
    for number in 0..100 {
        ask(&mut cluster, peers[0], tag(&number.to_string()));
    }
    let asks = cluster.asks();
    for seed in seeds {
        assert!(asks.iter().filter(|(_, to, _)| *to == seed).count() > 15);
    }
}

#[test]
fn the_next_seed_is_asked_when_one_cannot_be() {
    let (mut cluster, mut seeds, peers) = cluster();
    let id = ask(&mut cluster, peers[0], tag("v1"));
    let mut asked = Vec::new();
    for _ in 0..3 {
        let asks = cluster.asks();
        asked.push(asks[0].1);
        cluster.upstream_answered(asks[0].0, None);
    }
    asked.sort();
    seeds.sort();
    assert_eq!(asked, seeds);
    assert!(cluster.asks().is_empty());
    let Some(UpstreamAnswer::Failed { failure }) = answered(&mut cluster, id) else {
        panic!("no failure")
    };
    assert_eq!(failure.status, 504);
    assert!(failure.message.contains("registry.example/model"));
}

#[test]
fn a_silent_seed_is_given_up() {
    let (mut cluster, _, peers) = cluster();
    ask(&mut cluster, peers[0], tag("v1"));
    let first = cluster.asks();
    cluster.pass(at(14));
    let second = cluster.asks();
    assert_eq!(second.len(), 1);
    assert_ne!(first[0].1, second[0].1);
}

#[test]
fn an_answer_to_another_question_is_none() {
    let (mut cluster, _, peers) = cluster();
    let id = ask(&mut cluster, peers[0], tag("v1"));
    let asks = cluster.asks();
    let document = UpstreamAnswer::Document {
        body: vec![],
        media_type: String::new(),
        link: None,
        filters: None,
        access: Access::Public,
    };
    cluster.upstream_answered(asks[0].0, Some(document));
    assert_eq!(answered(&mut cluster, id), None);
    assert_eq!(cluster.asks().len(), 1, "another seed is asked");
}

#[test]
fn without_a_seed_a_peer_is_asked_and_without_anybody_it_is_said() {
    let mut cluster = Cluster::new();
    let id = ask(&mut cluster, node(9), tag("v1"));
    let Some(UpstreamAnswer::Failed { failure }) = answered(&mut cluster, id) else {
        panic!("no failure")
    };
    assert!(failure.message.contains("start a seed"));
    let peer = cluster.register(1, Role::Peer, vec![]);
    ask(&mut cluster, peer, tag("v1"));
    assert_eq!(cluster.asks()[0].1, peer);
}

#[test]
fn failures_are_repeated_for_two_seconds() {
    let (mut cluster, _, peers) = cluster();
    ask(&mut cluster, peers[0], tag("v1"));
    let asks = cluster.asks();
    cluster.upstream_answered(asks[0].0, Some(UpstreamAnswer::Failed { failure: failure(404) }));
    let id = ask(&mut cluster, peers[1], tag("v1"));
    assert_eq!(
        answered(&mut cluster, id),
        Some(UpstreamAnswer::Failed { failure: failure(404) })
    );
    cluster.pass(at(2));
    ask(&mut cluster, peers[1], tag("v1"));
    assert_eq!(cluster.asks().len(), 1);
}

#[test]
fn a_preheat_goes_to_the_seed_that_would_read_or_to_all_peers() {
    let (mut cluster, seeds, peers) = cluster();
    let blobs: Vec<(Blob, Source)> = (0..30)
        .map(|number| (blob(&number.to_string()), source("model")))
        .collect();
    let preheat = |to| Request::Preheat {
        blobs: blobs.clone(),
        to,
    };
    assert_eq!(cluster.ask(peers[0], preheat(None)), Some(Response::Taken));
    let mut told = 0;
    for output in std::mem::take(&mut cluster.out) {
        let Output::Preheat { to, blobs } = output else {
            panic!("{output:?}")
        };
        for (blob, _) in blobs.iter() {
            assert_eq!(
                Some(&to),
                seeds.iter().max_by_key(|seed| crate::rank(&blob.digest, seed))
            );
            told += 1;
        }
    }
    assert_eq!(told, 30);
    assert_eq!(cluster.ask(peers[0], preheat(Some(Role::Peer))), Some(Response::Taken));
    let mut told: Vec<NodeId> = std::mem::take(&mut cluster.out)
        .into_iter()
        .map(|output| match output {
            Output::Preheat { to, blobs } if blobs.len() == 30 => to,
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort();
    let mut expected = peers.to_vec();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn many_peers_are_told_in_turns() {
    let mut cluster = Cluster::new();
    for number in 0..600 {
        cluster.register(number, Role::Peer, vec![]);
    }
    let blobs = vec![(blob("a"), source("model"))];
    cluster.ask(
        node(0),
        Request::Preheat {
            blobs,
            to: Some(Role::Peer),
        },
    );
    assert_eq!(cluster.out.len(), 256);
    cluster.pass(Duration::from_millis(200));
    assert_eq!(cluster.out.len(), 600);
    assert_eq!(cluster.scheduler.status(cluster.now).preheats, 0);
}
