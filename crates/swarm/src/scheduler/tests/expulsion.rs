//! Nodes that the operator puts out, and lets back in.

use std::collections::BTreeMap;

use wire::control::MAX_EXPELLED;

use super::super::{ExpelError, MAX_REASON};
use super::*;

/// Who was told what since this was last asked.
fn told(cluster: &mut Cluster) -> BTreeMap<NodeId, Vec<NodeId>> {
    let mut told = BTreeMap::new();
    cluster.out.retain(|output| match output {
        Output::Expelled { to, nodes } => {
            told.insert(*to, nodes.to_vec());
            false
        }
        _ => true,
    });
    told
}

fn expel(cluster: &mut Cluster, node: NodeId, reason: &str) -> Result<bool, ExpelError> {
    let (now, out) = (cluster.now, &mut cluster.out);
    cluster.scheduler.expel(now, node, reason.to_owned(), out)
}

fn refusal(cluster: &mut Cluster, from: NodeId, request: Request) -> String {
    match cluster.ask(from, request) {
        Some(Response::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_expelled_node_is_out_of_everything_at_once_and_hears_why() {
    let mut cluster = Cluster::new();
    let whole = || vec![holding(blob("a"), PIECES)];
    let [stolen, other] = [1, 2].map(|number| cluster.register(number, Role::Peer, whole()));
    let late = cluster.register(3, Role::Peer, vec![]);
    assert_eq!(told(&mut cluster), BTreeMap::new(), "nobody has ever been out");
    assert_eq!(expel(&mut cluster, stolen, "lost"), Ok(true));
    let all = vec![stolen];
    let expected = [stolen, other, late].map(|node| (node, all.clone()));
    assert_eq!(told(&mut cluster), BTreeMap::from(expected));
    assert_eq!(ids(&cluster.join(late, blob("a"), "model").neighbours), [other]);
    assert_eq!(cluster.scheduler.status(cluster.now).nodes, 2);
    // Whatever it asks, it hears that it is out, and nothing of others.
    expel(&mut cluster, node(9), "").unwrap();
    told(&mut cluster);
    for request in [
        registration(1, Role::Peer, Locality::default(), whole()),
        Request::Join {
            digest: blob("a").digest,
            size: None,
            source: source("model"),
            urgent: true,
        },
    ] {
        let said = refusal(&mut cluster, stolen, request);
        assert!(said.contains("expelled") && said.contains("lost"), "{said}");
        assert_eq!(told(&mut cluster), BTreeMap::from([(stolen, vec![stolen])]));
    }
    assert_eq!(cluster.scheduler.status(cluster.now).nodes, 2);
}

#[test]
fn an_expelled_reader_is_followed_by_another() {
    let mut cluster = Cluster::new();
    let seeds = [1, 2].map(|number| cluster.register(number, Role::Seed, vec![]));
    let peer = cluster.register(3, Role::Peer, vec![]);
    cluster.join(peer, blob("a"), "model");
    let digest = blob("a").digest;
    let (reader, epoch) = cluster.scheduler.lease_of(&digest).unwrap();
    expel(&mut cluster, reader, "").unwrap();
    let (next, later) = cluster.scheduler.lease_of(&digest).unwrap();
    assert!(seeds.contains(&next) && next != reader && later > epoch);
}

#[test]
fn who_comes_or_is_let_back_in_hears_who_is_out_now() {
    let mut cluster = Cluster::new();
    let stolen = node(1);
    cluster
        .scheduler
        .remember_expelled(BTreeMap::from([(stolen, "lost".to_owned())]));
    let other = cluster.register(2, Role::Peer, vec![]);
    assert_eq!(
        told(&mut cluster),
        BTreeMap::from([(other, vec![stolen])]),
        "after a restart"
    );
    assert!(cluster.scheduler.readmit(&stolen, &mut cluster.out));
    assert!(!cluster.scheduler.readmit(&stolen, &mut cluster.out), "it is in");
    assert_eq!(told(&mut cluster), BTreeMap::from([(other, vec![])]));
    cluster.register(1, Role::Peer, vec![]);
    assert_eq!(told(&mut cluster), BTreeMap::from([(stolen, vec![])]));
}

#[test]
fn list_and_reasons_are_bounded() {
    let mut cluster = Cluster::new();
    let long = "r".repeat(MAX_REASON + 1);
    assert_eq!(expel(&mut cluster, node(0), &long), Err(ExpelError::Reason));
    assert_eq!(expel(&mut cluster, node(0), "two\nlines"), Err(ExpelError::Reason));
    for number in 0..MAX_EXPELLED as u32 {
        assert_eq!(expel(&mut cluster, node(number), ""), Ok(true));
    }
    let more = node(MAX_EXPELLED as u32);
    assert_eq!(expel(&mut cluster, more, ""), Err(ExpelError::Full));
    assert_eq!(expel(&mut cluster, node(0), "known"), Ok(false));
    assert_eq!(cluster.scheduler.expelled()[&node(0)], "known");
    assert_eq!(cluster.scheduler.expelled().len(), MAX_EXPELLED);
}
