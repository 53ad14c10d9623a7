//! Many at once, each of whom takes what it is given and gives nothing back.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use transport::Config;

use crate::raw::Raw;
use crate::support::{Node, data, gone, key, request, until, within};

/// Time in which something that must not happen would have.
const GRACE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_flood_of_strangers_takes_the_places_of_strangers_only() {
    let config = Config {
        max_handshakes: 8,
        // Longer than all of them need to come: no place is free again before.
        handshake_timeout: Duration::from_secs(15),
        ..Config::default()
    };
    let [mut node, mut member, mut late] = [Node::with_config(1, config), Node::start(2), Node::start(3)];
    member.join(&mut node).await;
    let stranger = key(4);
    let flood = join_all((0..60).map(|_| Raw::try_connect(&stranger, &node))).await;
    let inside = flood.iter().flatten().count();
    assert!((1..=8).contains(&inside), "{inside} of 60 got through TLS");
    assert!(late.dial(&node).await.is_err(), "all places of strangers are taken");
    assert_eq!(node.transport.status().connections, 1, "none of them is a neighbour");
    member.transport.send(&node.id, gone(1)).unwrap();
    while !matches!(node.event().await, transport::Event::Message { .. }) {}
    drop(flood);
    within(async { while late.dial(&node).await.is_err() {} }).await;
    late.connected().await;
    until(|| node.transport.status().connections == 2).await;
}

#[tokio::test]
async fn a_greeting_that_trickles_is_cut() {
    let limit = Duration::from_millis(300);
    let config = Config {
        handshake_timeout: limit,
        ..Config::default()
    };
    let mut node = Node::with_config(1, config);
    let raw = Raw::connect(&key(2), &node).await;
    let (mut send, _recv) = raw.open(&200_u32.to_be_bytes()).await;
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    // Never silent, never done.
    within(async {
        while send.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    assert!(node.refused().await.ends_with("did not finish its handshake in time"));
    assert_eq!(node.transport.status().connections, 0);
}

#[tokio::test]
async fn a_member_that_opens_streams_and_says_nothing_keeps_nobody_waiting() {
    let config = Config {
        max_concurrent_fetches: 4,
        request_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    let [mut node, mut other] = [Node::with_config(1, config), Node::start(3)];
    let (raw, _send, _recv) = Raw::member(&key(2), &mut node).await;
    other.join(&mut node).await;
    let silent = join_all((0..4).map(|_| raw.open(&[0]))).await;
    let (fifth, one_way) = (raw.connection.open_bi(), raw.connection.open_uni());
    assert!(tokio::time::timeout(GRACE, fifth).await.is_err(), "a stream too many");
    assert!(tokio::time::timeout(GRACE, one_way).await.is_err(), "a one-way stream");
    let (id, asker) = (node.id, other.transport.clone());
    let asked = tokio::spawn(async move { asker.fetch(&id, request(0)).await.map(|_| ()) });
    within(node.request().await.piece(Vec::new(), data(10))).await.unwrap();
    within(asked).await.unwrap().unwrap();
    for (_send, mut answer) in silent {
        let reset = within(answer.read_chunk(1, true)).await.unwrap_err();
        assert!(matches!(reset, quinn::ReadError::Reset(_)), "{reset}");
    }
    // With its places free again, it may ask like anybody else.
    let (mut send, mut answer) = raw.open(&wire::encode_frame(&request(1))).await;
    send.finish().unwrap();
    within(node.request().await.piece(Vec::new(), Bytes::from_static(b"piece")))
        .await
        .unwrap();
    let answered = within(answer.read_to_end(1 << 16)).await.unwrap();
    assert!(answered.ends_with(b"piece"));
    assert_eq!(raw.connection.close_reason(), None);
}
