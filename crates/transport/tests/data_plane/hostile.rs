//! Bytes that no node of ours sends.

use std::net::UdpSocket;

use piece::Digest;
use wire::exchange::{MAX_FETCH, MAX_HAVE_RANGES, MAX_HELLO, MAX_MEDIA_TYPE, MAX_MESSAGE, Message};

use crate::raw::Raw;
use crate::support::{Node, blob, gone, key, until, within};

/// What makes the frame `[length][body]` of any length and body.
fn frame(length: usize, body: &[u8]) -> Vec<u8> {
    [&(length as u32).to_be_bytes(), body].concat()
}

#[tokio::test]
async fn a_greeting_that_is_none_closes_the_connection() {
    let mut node = Node::start(1);
    for (bytes, why) in [
        (
            frame(MAX_HELLO + 1, &[]),
            "a frame of 513 bytes exceeds the limit of 512",
        ),
        (frame(u32::MAX as usize, &[]), "exceeds the limit of 512"),
        (frame(3, b"abc"), "its greeting makes no sense"),
        (frame(0, &[]), "its greeting makes no sense"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "exceeds the limit of 512"),
    ] {
        let raw = Raw::connect(&key(2), &node).await;
        raw.open(&bytes).await;
        let said = raw.closed().await;
        assert!(said.contains(why), "{said}");
        assert!(node.refused().await.contains(why));
    }
    let raw = Raw::connect(&key(2), &node).await;
    let (mut send, _recv) = raw.open(&frame(100, b"half of it")).await;
    send.finish().unwrap();
    assert!(raw.closed().await.contains("the stream ended"));
    assert_eq!(node.transport.status().connections, 0);
}

#[tokio::test]
async fn garbage_on_the_message_stream_closes_the_connection() {
    let mut node = Node::start(1);
    let ranges = vec![(0, 1); MAX_HAVE_RANGES + 1];
    let text = "x".repeat(MAX_MEDIA_TYPE + 1);
    let long_have = Message::Have {
        digest: Digest::EMPTY,
        ranges,
        load: 3,
    };
    let long_type = Message::Holding {
        blob: blob(),
        bits: None,
        wants: false,
        media_type: Some(text),
        spare: false,
        zone: None,
        imports: false,
    };
    for (bytes, why) in [
        (
            frame(MAX_MESSAGE + 1, &[]),
            "a frame of 65537 bytes exceeds the limit of 65536",
        ),
        (frame(8, &[0xff; 8]), "not a message that this release knows"),
        (frame(0, &[]), "not a message that this release knows"),
        (
            wire::encode_frame(&long_have),
            "a message exceeds the limits of its kind",
        ),
        (
            wire::encode_frame(&long_type),
            "a message exceeds the limits of its kind",
        ),
    ] {
        let (raw, mut send, _recv) = Raw::member(&key(2), &mut node).await;
        send.write_all(&bytes).await.unwrap();
        let said = raw.closed().await;
        assert!(said.contains("it broke the protocol") && said.contains(why), "{said}");
        assert!(node.disconnected().await.contains(why));
    }
}

#[tokio::test]
async fn a_message_of_an_unknown_kind_costs_only_itself() {
    let mut node = Node::start(1);
    let (raw, mut send, _recv) = Raw::member(&key(2), &mut node).await;
    // CBOR: [99, []], as an enum of ours with a variant that is yet to come.
    let unknown = frame(4, &[0x82, 0x18, 99, 0x80]);
    send.write_all(&[unknown.clone(), wire::encode_frame(&gone(1)), unknown].concat())
        .await
        .unwrap();
    send.write_all(&wire::encode_frame(&gone(2))).await.unwrap();
    assert_eq!(node.message().await, (key(2).node_id(), gone(1)));
    assert_eq!(node.message().await, (key(2).node_id(), gone(2)));
    assert_eq!(raw.connection.close_reason(), None);
}

#[tokio::test]
async fn a_request_that_is_none_closes_the_connection() {
    let mut node = Node::start(1);
    for (bytes, why) in [
        (vec![0; 5 + MAX_FETCH], "a request is too long"),
        (frame(MAX_FETCH + 1, &[]), "exceeds the limit of 256"),
        (frame(3, b"abc"), "not a message"),
        (frame(9, b"abc"), "a request is not one frame"),
        (Vec::new(), "a request is not one frame"),
    ] {
        let (raw, _send, _recv) = Raw::member(&key(2), &mut node).await;
        let (mut send, _answer) = raw.open(&bytes).await;
        // A stream on which nothing was sent is announced by its end.
        let _ = send.finish();
        let said = raw.closed().await;
        assert!(said.contains(why), "{said}");
        assert!(node.disconnected().await.contains(why));
    }
}

#[tokio::test]
async fn noise_on_the_socket_is_ignored() {
    let [mut node, mut other] = [Node::start(1), Node::start(2)];
    node.join(&mut other).await;
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..1500 {
        noise.send_to(&vec![length as u8; length], node.addr).unwrap();
    }
    other.transport.send(&node.id, gone(1)).unwrap();
    assert_eq!(node.message().await, (other.id, gone(1)));
}

#[tokio::test]
async fn ending_the_message_stream_ends_the_connection() {
    let mut node = Node::start(1);
    let (raw, mut send, _recv) = Raw::member(&key(2), &mut node).await;
    send.finish().unwrap();
    assert_eq!(node.disconnected().await, "the message stream ended");
    within(raw.connection.closed()).await;
    until(|| node.transport.status().connections == 0).await;
}
