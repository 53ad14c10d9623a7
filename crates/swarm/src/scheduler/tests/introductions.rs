//! Who is named to whom.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Lets `count` peers join a blob that a seed will read, and returns whom each was named.
fn flash_crowd(cluster: &mut Cluster, count: u32, locality: impl Fn(u32) -> Locality) -> BTreeMap<NodeId, Vec<NodeId>> {
    cluster.register(100_000, Role::Seed, vec![]);
    let mut named = BTreeMap::new();
    for number in 0..count {
        let peer = cluster.register_at(number, Role::Peer, locality(number), vec![]);
        named.insert(peer, ids(&cluster.join(peer, blob("a"), "model").neighbours));
    }
    named
}

/// How many nodes can be reached from one.
fn reached(named: &BTreeMap<NodeId, Vec<NodeId>>, from: NodeId) -> usize {
    let mut links: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, others) in named {
        for other in others {
            links.entry(*node).or_default().insert(*other);
            links.entry(*other).or_default().insert(*node);
        }
    }
    let mut seen = BTreeSet::from([from]);
    let mut todo = vec![from];
    while let Some(node) = todo.pop() {
        for other in &links[&node] {
            if seen.insert(*other) {
                todo.push(*other);
            }
        }
    }
    seen.len()
}

#[test]
fn a_crowd_becomes_one_graph_of_bounded_degree() {
    let mut cluster = Cluster::new();
    let named = flash_crowd(&mut cluster, 1000, |_| Locality::default());
    let seed = node(100_000);
    assert_eq!(
        named.values().filter(|named| named.contains(&seed)).count(),
        8,
        "the seed's fan-out"
    );
    let mut degrees: BTreeMap<NodeId, usize> = named.iter().map(|(node, named)| (*node, named.len())).collect();
    for other in named.values().flatten() {
        *degrees.entry(*other).or_default() += 1;
    }
    degrees.remove(&seed);
    let most = degrees.values().max().unwrap();
    assert!(*most <= 22, "{most}: twenty, and what keeps the swarm in one piece");
    assert!(degrees.values().all(|degree| *degree >= 6));
    let mean = degrees.values().sum::<usize>() as f64 / 1000.0;
    assert!((14.0..=18.0).contains(&mean), "{mean}");
    assert_eq!(reached(&named, seed), 1001);
    let twice = named
        .values()
        .any(|named| named.iter().collect::<BTreeSet<_>>().len() < named.len());
    assert!(!twice, "nobody is named twice");
}

#[test]
fn the_near_are_preferred_and_a_few_of_each_zone_have_links_across() {
    let mut cluster = Cluster::new();
    let place = |number: u32| Locality {
        host: None,
        rack: Some(format!("rack {}", number % 20)),
        zone: Some(format!("zone {}", number % 4)),
    };
    let named = flash_crowd(&mut cluster, 800, place);
    let places: BTreeMap<NodeId, Locality> = (0..800).map(|number| (node(number), place(number))).collect();
    let (mut same_rack, mut all) = (0, 0);
    let mut importers: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    for (here, named) in named
        .iter()
        .filter_map(|(node, named)| Some((places.get(node)?, named)))
    {
        let there: Vec<&Locality> = named.iter().filter_map(|other| places.get(other)).collect();
        same_rack += there.iter().filter(|there| there.rack == here.rack).count();
        all += there.len();
        let across = there.iter().any(|there| there.zone != here.zone);
        *importers.entry(&here.zone).or_default() += usize::from(across);
    }
    assert_eq!(importers.len(), 4);
    assert!(
        importers.values().all(|few| (3..=6).contains(few)),
        "named nodes of other zones, per zone: {importers:?}"
    );
    assert!(
        same_rack * 10 > all,
        "{same_rack} of {all} in the rack, which is a twentieth"
    );
    assert_eq!(reached(&named, node(100_000)), 801);
}

#[test]
fn holders_are_preferred() {
    let mut cluster = Cluster::new();
    let holders: BTreeSet<NodeId> = (0..5)
        .map(|number| cluster.register(number, Role::Peer, vec![holding(blob("a"), PIECES)]))
        .collect();
    for number in 10..200 {
        let peer = cluster.register(number, Role::Peer, vec![]);
        let named = ids(&cluster.join(peer, blob("a"), "model").neighbours);
        if number < 30 {
            assert_eq!(named.iter().filter(|node| holders.contains(node)).count(), 5);
        }
    }
    let swarms = cluster.scheduler.swarms(None, 1);
    assert_eq!((swarms[0].nodes, swarms[0].whole, swarms[0].waiting), (195, 5, 190));
}

#[test]
fn the_lonely_get_others_and_a_holder() {
    let mut cluster = Cluster::new();
    let named = flash_crowd(&mut cluster, 100, |_| Locality::default());
    let lonely = node(99);
    assert!(!named[&lonely].contains(&node(100_000)));
    let holder = cluster.register(200, Role::Peer, vec![holding(blob("a"), PIECES)]);
    cluster.out.clear();
    let told = cluster.report(
        lonely,
        Report {
            lonely: vec![blob("a").digest],
            ..Report::default()
        },
    );
    let anew = ids(&told[0].1.neighbours);
    assert!(anew.contains(&holder));
    assert!(
        anew.iter().all(|node| !named[&lonely].contains(node)),
        "it was named the others before"
    );
}

#[test]
fn who_gets_nothing_for_five_seconds_is_named_others() {
    let mut cluster = Cluster::new();
    let named = flash_crowd(&mut cluster, 60, |_| Locality::default());
    let quiet = node(59);
    assert_eq!(cluster.report(quiet, Report::default()), []);
    cluster.pass(at(5));
    let told = cluster.report(quiet, Report::default());
    assert!(!told[0].1.neighbours.is_empty());
    assert!(
        ids(&told[0].1.neighbours)
            .iter()
            .all(|node| !named[&quiet].contains(node))
    );
    assert_eq!(cluster.report(quiet, Report::default()), [], "not at each report");
}

#[test]
fn a_seed_whose_links_leave_is_named_to_others() {
    let mut cluster = Cluster::new();
    let named = flash_crowd(&mut cluster, 100, |_| Locality::default());
    let seed = node(100_000);
    let fed: Vec<NodeId> = named
        .iter()
        .filter(|(_, named)| named.contains(&seed))
        .map(|(node, _)| *node)
        .collect();
    cluster.out.clear();
    fed.iter().for_each(|node| cluster.handle(Input::Disconnected(*node)));
    let refed: BTreeSet<NodeId> = cluster
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Update { to, swarm, .. } if ids(&swarm.neighbours).contains(&seed) => Some(*to),
            _ => None,
        })
        .filter(|node| !fed.contains(node))
        .collect();
    assert_eq!(refed.len(), 8);
}

#[test]
fn lost_nodes_are_not_named() {
    let mut cluster = Cluster::new();
    let here = cluster.register(1, Role::Peer, vec![holding(blob("a"), PIECES)]);
    let lost = cluster.register(2, Role::Peer, vec![holding(blob("a"), PIECES)]);
    cluster.handle(Input::Disconnected(lost));
    let peer = cluster.register(3, Role::Peer, vec![]);
    assert_eq!(ids(&cluster.join(peer, blob("a"), "model").neighbours), [here]);
}
