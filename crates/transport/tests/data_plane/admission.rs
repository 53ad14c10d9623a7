//! Who is let in, and what those who are not are told.

use std::collections::BTreeSet;
use std::sync::Arc;

use identity::{ClusterKeys, peer_id};
use transport::{Config, ConnectError};

use crate::raw::Raw;
use crate::support::{KEY, Node, OTHER_KEY, gone, key, within};

#[tokio::test]
async fn another_cluster_key_is_refused_both_ways_in_clear_words() {
    let [mut ours, mut theirs] = [Node::with_key(1, KEY), Node::with_key(2, OTHER_KEY)];
    for (dialler, listener) in [(&mut ours, &mut theirs)] {
        refused_for_its_key(dialler, listener).await;
        refused_for_its_key(listener, dialler).await;
    }
}

async fn refused_for_its_key(dialler: &mut Node, listener: &mut Node) {
    let words = |node: &Node| {
        let (id, addr) = (peer_id(node.id), node.addr);
        format!(
            "node {id} at {addr} does not have this cluster's key: check that --cluster-key names the same file on both"
        )
    };
    let error = dialler.dial(listener).await.unwrap_err();
    assert_eq!(
        error,
        ConnectError::WrongKey {
            node: listener.id,
            addr: listener.addr
        }
    );
    assert_eq!(error.to_string(), words(listener));
    assert_eq!(listener.refused().await, words(dialler));
    assert_eq!(
        (
            dialler.transport.status().connections,
            listener.transport.status().connections
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn keys_rotate_without_a_stop() {
    let both = |first, second| format!("{first}\n{second}");
    let steps = [
        KEY.to_owned(),
        both(KEY, OTHER_KEY),
        both(OTHER_KEY, KEY),
        OTHER_KEY.to_owned(),
    ];
    for neighbouring in steps.windows(2) {
        for (dialler, listener) in [(0, 1), (1, 0)] {
            let mut dialler = Node::with_key(1, &neighbouring[dialler]);
            let mut listener = Node::with_key(2, &neighbouring[listener]);
            dialler.join(&mut listener).await;
        }
    }
}

#[tokio::test]
async fn another_node_at_the_address_is_refused() {
    let [a, mut impostor] = [Node::start(1), Node::start(2)];
    let error = within(a.transport.connect(key(3).node_id(), impostor.addr))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        ConnectError::WrongNode {
            node: key(3).node_id(),
            addr: impostor.addr
        }
    );
    assert!(impostor.refused().await.contains("aborted by peer"));
}

#[tokio::test]
async fn a_proof_made_for_another_node_or_connection_is_refused() {
    let mut node = Node::start(1);
    let cluster = Arc::new(ClusterKeys::parse(KEY).unwrap());
    // A stranger that overheard a member's proof, were that possible, could not use it.
    let member = Raw::connect(&key(2), &node).await;
    let overheard = member.proofs(&cluster, &key(2).node_id());
    let stranger = Raw::connect(&key(3), &node).await;
    stranger.greet(overheard.clone()).await;
    assert!(stranger.closed().await.contains("no valid membership proof"));
    assert!(node.refused().await.contains("does not have this cluster's key"));
    let again = Raw::connect(&key(2), &node).await;
    again.greet(overheard).await;
    assert!(again.closed().await.contains("no valid membership proof"));
}

#[tokio::test]
async fn another_protocol_version_is_refused_in_clear_words() {
    let node = Node::start(1);
    let cluster = ClusterKeys::parse(KEY).unwrap();
    let raw = Raw::connect(&key(2), &node).await;
    raw.greet_with(wire::PROTOCOL + 1, raw.proofs(&cluster, &key(2).node_id()), "9.9.9")
        .await;
    assert!(
        raw.closed()
            .await
            .contains("it speaks protocol version 2, this node speaks 1")
    );
    let raw = Raw::connect(&key(2), &node).await;
    raw.greet_with(
        wire::PROTOCOL,
        raw.proofs(&cluster, &key(2).node_id()),
        "1.0\nINFO all is well",
    )
    .await;
    assert!(raw.closed().await.contains("its version is not one"));
}

#[tokio::test]
async fn a_banned_node_is_refused_until_it_is_allowed() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.join(&mut b).await;
    a.transport.ban(b.id);
    assert_eq!(a.disconnected().await, "banned");
    assert_eq!(b.disconnected().await, "closed by the other end: banned");
    assert_eq!(a.dial(&b).await, Err(ConnectError::Banned { node: b.id }));
    let error = b.dial(&a).await.unwrap_err().to_string();
    assert!(
        error.ends_with("refused the connection: it has banned this node"),
        "{error}"
    );
    assert!(a.refused().await.ends_with("is banned here"));
    a.transport.allow(&b.id);
    b.join(&mut a).await;
    a.transport.send(&b.id, gone(1)).unwrap();
    assert_eq!(b.message().await.1, gone(1));
}

#[tokio::test]
async fn an_expelled_node_is_refused_whatever_else_is_banned() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.join(&mut b).await;
    a.transport.expel(BTreeSet::from([b.id]));
    assert!(b.disconnected().await.contains("expelled this node from the cluster"));
    a.disconnected().await;
    a.transport.ban(b.id);
    a.transport.allow(&b.id);
    assert_eq!(a.dial(&b).await, Err(ConnectError::Banned { node: b.id }));
    b.dial(&a).await.unwrap_err();
    assert!(a.refused().await.ends_with("is banned here"));
    a.transport.expel(BTreeSet::new());
    b.join(&mut a).await;
}

#[tokio::test]
async fn no_secret_is_shown() {
    let a = Node::start(1);
    let shown = format!("{:?} {:?}", a.transport, Config::default());
    assert!(!shown.contains(&KEY[..8]) && !shown.contains("0101"), "{shown}");
}
