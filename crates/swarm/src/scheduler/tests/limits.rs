//! Nothing grows without bound.

use super::*;
use crate::scheduler::Limits;
use wire::control::Query;

fn with(limits: Limits) -> Cluster {
    Cluster::with(Config {
        limits,
        ..Config::default()
    })
}

fn refusal(response: Option<Response>) -> String {
    match response {
        Some(Response::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn nodes() {
    let mut cluster = with(Limits {
        nodes: 2,
        ..Limits::default()
    });
    cluster.register(1, Role::Peer, vec![]);
    cluster.register(2, Role::Peer, vec![]);
    let third = cluster.ask(node(3), registration(3, Role::Peer, Locality::default(), vec![]));
    assert!(refusal(third).contains("knows 2 nodes"));
    cluster.register(2, Role::Peer, vec![]);
    assert_eq!(cluster.scheduler.status(cluster.now).nodes, 2);
}

#[test]
fn swarms() {
    let mut cluster = with(Limits {
        swarms: 2,
        ..Limits::default()
    });
    let peer = cluster.register(
        1,
        Role::Peer,
        (0..5).map(|n| holding(blob(&n.to_string()), PIECES)).collect(),
    );
    assert_eq!(
        (
            cluster.scheduler.status(cluster.now).swarms,
            cluster.scheduler.counters().dropped
        ),
        (2, 3)
    );
    let failure = cluster.join(peer, blob("another"), "model").failure.unwrap();
    assert_eq!(failure.status, 503);
    assert!(failure.message.contains("knows 2 blobs"));
}

#[test]
fn memberships() {
    let mut cluster = with(Limits {
        memberships: 2,
        ..Limits::default()
    });
    let peer = cluster.register(
        1,
        Role::Peer,
        (0..5).map(|n| holding(blob(&n.to_string()), PIECES)).collect(),
    );
    let status = cluster.scheduler.status(cluster.now);
    assert_eq!((status.memberships, status.swarms), (2, 2), "and no empty swarm stays");
    assert!(
        cluster
            .join(peer, blob("another"), "model")
            .failure
            .unwrap()
            .message
            .contains("2 holdings")
    );
    assert_eq!(cluster.scheduler.status(cluster.now).swarms, 2);
}

#[test]
fn sources_of_one_blob() {
    let mut cluster = Cluster::new();
    let peer = cluster.register(1, Role::Peer, vec![]);
    for number in 0..8 {
        assert_eq!(cluster.join(peer, blob("a"), &number.to_string()).failure, None);
    }
    assert_eq!(cluster.join(peer, blob("a"), "ninth").failure.unwrap().status, 503);
    let other = cluster.register(2, Role::Peer, vec![]);
    assert_eq!(cluster.join(other, blob("a"), "ninth").failure.unwrap().status, 503);
    let swarms = cluster.scheduler.swarms(None, 1);
    assert_eq!((swarms[0].nodes, swarms[0].waiting), (1, 1));
    cluster.report(
        peer,
        Report {
            gone: vec![blob("a").digest],
            ..Report::default()
        },
    );
    assert_eq!(
        cluster.join(other, blob("a"), "ninth").failure,
        None,
        "the old ones are no longer used"
    );
}

#[test]
fn questions_and_those_who_wait() {
    let mut cluster = with(Limits {
        upstream: 2,
        upstream_waiters: 3,
        ..Limits::default()
    });
    cluster.register(0, Role::Seed, vec![]);
    let tag = |name: &str| Request::Upstream {
        upstream: Upstream {
            repository: repository("model"),
            query: Query::Tag { tag: name.into() },
        },
    };
    assert_eq!(cluster.ask(node(1), tag("a")), None);
    assert_eq!(cluster.ask(node(1), tag("b")), None);
    let Some(Response::Upstream {
        answer: UpstreamAnswer::Failed { failure },
    }) = cluster.ask(node(1), tag("c"))
    else {
        panic!("no failure")
    };
    assert_eq!(failure.status, 503);
    assert_eq!(cluster.ask(node(2), tag("a")), None);
    assert!(refusal(cluster.ask(node(3), tag("a"))).contains("3 nodes wait"));
    let long = "t".repeat(5000);
    assert!(refusal(cluster.ask(node(1), tag(&long))).contains("4096 bytes"));
}

#[test]
fn answers_and_access() {
    let mut cluster = with(Limits {
        answers: 3,
        access: 3,
        ..Limits::default()
    });
    cluster.register(0, Role::Seed, vec![]);
    for number in 0..20 {
        let query = Query::Tag {
            tag: number.to_string(),
        };
        cluster.post(
            node(1),
            Request::Upstream {
                upstream: Upstream {
                    repository: repository("model"),
                    query,
                },
            },
        );
        let asks = cluster.asks();
        let content = UpstreamAnswer::Content {
            blob: blob(&number.to_string()),
            media_type: String::new(),
            access: Access::Public,
        };
        cluster.upstream_answered(asks[0].0, Some(content));
    }
    let status = cluster.scheduler.status(cluster.now);
    assert_eq!((status.answers, status.access, status.upstream), (3, 3, 0));
}

#[test]
fn preheats() {
    let mut cluster = with(Limits {
        preheats: 2,
        ..Limits::default()
    });
    for number in 0..600 {
        cluster.register(number, Role::Peer, vec![]);
    }
    let preheat = |count: usize, to| Request::Preheat {
        blobs: vec![(blob("a"), source("model")); count],
        to,
    };
    for _ in 0..2 {
        assert_eq!(
            cluster.ask(node(1), preheat(1, Some(Role::Peer))),
            Some(Response::Taken)
        );
    }
    assert!(refusal(cluster.ask(node(1), preheat(1, Some(Role::Peer)))).contains("2 preheats"));
    assert!(refusal(cluster.ask(node(1), preheat(5000, Some(Role::Peer)))).contains("4096 blobs"));
    assert!(refusal(cluster.ask(node(1), preheat(1, Some(Role::Seed)))).contains("no seed"));
}

#[test]
fn labels_go_with_their_nodes() {
    let mut cluster = Cluster::new();
    for number in 0..100 {
        let locality = Locality {
            host: Some(number.to_string()),
            rack: Some("r".into()),
            zone: None,
        };
        cluster.register_at(number, Role::Peer, locality, vec![]);
        cluster.handle(Input::Disconnected(node(number)));
    }
    assert_eq!(cluster.scheduler.nodes.labels(), 0);
}

#[test]
fn a_reports_answer_fits_a_message() {
    let mut cluster = Cluster::new();
    let label = |number: u32| Some(format!("{number:0128}"));
    let blobs: Vec<Blob> = (0..100).map(|number| blob(&number.to_string())).collect();
    for number in 0..40 {
        let locality = Locality {
            host: label(number),
            rack: label(number),
            zone: label(number),
        };
        cluster.register_at(
            number,
            Role::Peer,
            locality,
            blobs.iter().map(|blob| holding(*blob, PIECES)).collect(),
        );
    }
    let lonely = cluster.register(99, Role::Peer, vec![]);
    let lonely_for = blobs.iter().map(|blob| blob.digest).collect();
    let request = Request::Report {
        holdings: vec![],
        gone: vec![],
        failed: vec![],
        accusations: vec![],
        lonely: lonely_for,
    };
    let answer = cluster.ask(lonely, request).unwrap();
    assert!(wire::encode(&answer).len() <= wire::control::MAX_CONTROL);
    let Response::Reported { swarms, .. } = answer else {
        panic!("{answer:?}")
    };
    let pushed = cluster
        .out
        .iter()
        .filter(|output| matches!(output, Output::Update { .. }))
        .count();
    assert_eq!((swarms.len(), pushed), (32, 68), "the others come as updates");
}
