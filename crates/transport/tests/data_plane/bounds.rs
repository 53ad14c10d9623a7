//! Every bound, reached.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use transport::{Config, ConnectError, SendError};
use wire::exchange::{Answer, MAX_MESSAGE, Message};

use crate::raw::Raw;
use crate::support::{Node, Wire, blob, data, gone, key, request, until, within};

/// Time in which something that must not happen would have.
const GRACE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn connections_are_bounded_at_both_ends() {
    let one = Config {
        max_connections: 1,
        ..Config::default()
    };
    let [mut a, mut b, mut c] = [Node::with_config(1, one), Node::start(2), Node::start(3)];
    a.join(&mut b).await;
    let error = c.dial(&a).await.unwrap_err().to_string();
    assert!(
        error.ends_with("refused the connection: all its connections are taken"),
        "{error}"
    );
    assert!(
        a.refused()
            .await
            .ends_with("was turned away: all 1 connections are taken")
    );
    assert_eq!(a.dial(&c).await, Err(ConnectError::Full { limit: 1 }));
    b.transport.disconnect(&a.id, "make room");
    a.disconnected().await;
    until(|| a.transport.status().connections == 0).await;
    within(async { while c.dial(&a).await.is_err() {} }).await;
    c.connected().await;
}

#[tokio::test]
async fn handshakes_in_progress_are_bounded_and_timed() {
    let limit = Duration::from_millis(600);
    let config = Config {
        max_handshakes: 1,
        handshake_timeout: limit,
        ..Config::default()
    };
    let [mut a, b] = [Node::with_config(1, config), Node::start(2)];
    let silent = Raw::connect(&key(3), &a).await;
    let error = b.dial(&a).await.unwrap_err().to_string();
    assert!(error.ends_with("it has too many handshakes in progress"), "{error}");
    assert!(a.refused().await.ends_with("did not finish its handshake in time"));
    within(silent.connection.closed()).await;
    b.dial(&a).await.unwrap();
}

#[tokio::test]
async fn a_crowd_must_prove_its_addresses() {
    let [mut a, mut b] = [
        Node::with_config(
            1,
            Config {
                max_handshakes: 2,
                ..Config::default()
            },
        ),
        Node::start(2),
    ];
    let silent = Raw::connect(&key(3), &a).await;
    // The place that is left goes to whoever answers from where it says it is: one round trip more.
    b.join(&mut a).await;
    assert_eq!(silent.connection.close_reason(), None);
}

#[tokio::test]
async fn dials_in_progress_are_bounded() {
    let config = Config {
        max_handshakes: 1,
        handshake_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let [a, b] = [Node::with_config(1, config), Node::start(2)];
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dial = a.transport.connect(key(3).node_id(), silent.local_addr().unwrap());
    let (first, second) = tokio::join!(dial, a.dial(&b));
    assert!(matches!(first, Err(ConnectError::Timeout { .. })), "{first:?}");
    assert_eq!(second, Err(ConnectError::TooManyDials { limit: 1 }));
    a.dial(&b).await.unwrap();
}

#[tokio::test]
async fn a_dial_that_nobody_waits_for_leaves_its_place() {
    let [a, b] = [
        Node::with_config(
            1,
            Config {
                max_handshakes: 1,
                ..Config::default()
            },
        ),
        Node::start(2),
    ];
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dial = a.transport.connect(key(3).node_id(), silent.local_addr().unwrap());
    assert!(tokio::time::timeout(GRACE, dial).await.is_err(), "nobody answers");
    assert_eq!(a.transport.status().dialling, 0);
    a.dial(&b).await.unwrap();
}

#[tokio::test]
async fn a_stranger_has_one_stream_and_a_small_window() {
    let node = Node::start(1);
    let raw = Raw::connect(&key(2), &node).await;
    let (mut send, _recv) = within(raw.connection.open_bi()).await.unwrap();
    assert!(
        tokio::time::timeout(GRACE, raw.connection.open_bi()).await.is_err(),
        "a second stream"
    );
    assert!(
        tokio::time::timeout(GRACE, raw.connection.open_uni()).await.is_err(),
        "a one-way stream"
    );
    let taken = within(send.write(&[0; 1 << 20])).await.unwrap();
    assert!(taken <= 16 << 10, "{taken} bytes");
}

#[tokio::test]
async fn requests_of_one_neighbour_are_bounded() {
    let config = Config {
        max_concurrent_fetches: 2,
        ..Config::default()
    };
    let [mut a, mut b] = [Node::start(1), Node::with_config(2, config)];
    a.join(&mut b).await;
    let id = b.id;
    let ask = |number| {
        let transport = a.transport.clone();
        tokio::spawn(async move { transport.fetch(&id, request(number)).await.map(|_| ()) })
    };
    let fetches = [ask(0), ask(1), ask(2)];
    let [first, second] = [b.request().await, b.request().await];
    assert!(
        tokio::time::timeout(GRACE, b.events.recv()).await.is_err(),
        "a third request"
    );
    within(first.piece(Vec::new(), data(10))).await.unwrap();
    let third = b.request().await;
    for request in [second, third] {
        within(request.piece(Vec::new(), Bytes::new())).await.unwrap();
    }
    for fetch in fetches {
        within(fetch).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_piece_spread_thin_over_other_packets_keeps_none_of_them() {
    const PIECE: usize = 64 << 10;
    let mut node = Node::start(1);
    let (raw, mut messages, _recv) = Raw::member(&key(2), &mut node).await;
    let (transport, mut events) = (node.transport.clone(), node.events);
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let between = wire::encode_frame(&Message::Have {
        digest: blob().digest,
        ranges: vec![(0, 1); 2000],
        load: 0,
    });
    let piece = data(PIECE);
    for is_thin in [false, true] {
        let serving = async {
            let (mut answer, _request) = within(raw.connection.accept_bi()).await.unwrap();
            let head = wire::encode_frame(&Answer::Piece { runs: Vec::new() });
            answer.write_all(&head).await.unwrap();
            for part in piece.chunks(2048) {
                answer.write_all(part).await.unwrap();
                if is_thin {
                    messages.write_all(&between).await.unwrap();
                }
            }
            answer.finish().unwrap();
        };
        let fetching = async {
            let id = key(2).node_id();
            let mut incoming = within(transport.fetch(&id, request(0))).await.unwrap();
            within(incoming.read(PIECE)).await.unwrap()
        };
        let (chunks, ()) = tokio::join!(fetching, serving);
        assert_eq!(chunks.concat(), piece);
        assert_eq!(chunks.len() < 10, is_thin, "{} chunks", chunks.len());
    }
}

#[tokio::test]
async fn a_request_must_be_made_in_time() {
    let config = Config {
        request_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let mut node = Node::with_config(1, config);
    let (raw, _send, _recv) = Raw::member(&key(2), &mut node).await;
    let (_half, mut answer) = raw.open(&[0, 0]).await;
    let reset = within(answer.read_chunk(1, true)).await.unwrap_err();
    assert!(matches!(reset, quinn::ReadError::Reset(_)), "{reset}");
    assert_eq!(raw.connection.close_reason(), None);
}

#[tokio::test]
async fn a_neighbour_that_is_not_heard_must_wait_and_loses_nothing() {
    let small = Config {
        event_queue: 1,
        send_queue: 8,
        ..Config::default()
    };
    let [mut a, mut b] = [Node::with_config(1, small.clone()), Node::with_config(2, small)];
    a.join(&mut b).await;
    let big = |number: u32| Message::Have {
        digest: blob().digest,
        ranges: vec![(number, 1); 2000],
        load: 3,
    };
    let mut sent = 0;
    // Nobody reads b's events: its queue fills, then QUIC's window, then the queue here.
    within(async {
        let mut since = tokio::time::Instant::now();
        while since.elapsed() < 2 * GRACE {
            match a.transport.send(&b.id, big(sent)) {
                Ok(()) => {
                    sent += 1;
                    since = tokio::time::Instant::now();
                }
                Err(error) => {
                    assert_eq!(error, SendError::Full);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    })
    .await;
    let held = u64::from(sent) * wire::encode_frame(&big(0)).len() as u64;
    let config = Config::default();
    let windows = u64::from(config.stream_receive_window) + config.send_window;
    assert!(held < windows + (2 << 20), "{held} bytes were taken");
    for number in 0..sent {
        assert_eq!(b.message().await.1, big(number));
    }
}

/// How many bytes of messages a neighbour can have in flight, none of which anybody reads.
async fn ahead(messages: &mut quinn::SendStream) -> usize {
    let some = wire::encode_frame(&gone(1)).repeat(64);
    let mut taken = 0;
    while let Ok(count) = tokio::time::timeout(2 * GRACE, messages.write(&some)).await {
        taken += count.unwrap();
    }
    taken
}

#[tokio::test]
async fn who_is_asked_nothing_may_send_little_ahead_and_few_may_send_much() {
    const WIDE: usize = 24;
    let config = Config {
        event_queue: 1,
        ..Config::default()
    };
    let mut node = Node::with_config(1, config.clone());
    let mut members = Vec::new();
    for seed in 0..=WIDE as u8 {
        members.push(Raw::member(&key(100 + seed), &mut node).await);
    }
    let (first, last) = (members[0].0.connection.clone(), WIDE);
    assert_eq!(first.close_reason(), None);
    let narrow = ahead(&mut members[0].1).await;
    assert!(
        (100 << 10..=128 << 10).contains(&narrow),
        "{narrow} bytes were taken of one who was asked nothing"
    );
    let mut asking = Vec::new();
    for (seed, (raw, ..)) in members.iter().enumerate() {
        let (transport, id) = (node.transport.clone(), key(100 + seed as u8).node_id());
        asking.push(tokio::spawn(async move {
            transport.fetch(&id, request(0)).await.map(|_| ())
        }));
        within(raw.connection.accept_bi()).await.unwrap();
    }
    let wide = narrow + ahead(&mut members[0].1).await;
    let stream = config.stream_receive_window as usize;
    assert!(
        (stream - (64 << 10)..=stream + (64 << 10)).contains(&wide),
        "{wide} bytes were taken of one who was asked"
    );
    let late = ahead(&mut members[last].1).await;
    assert!(late <= 128 << 10, "{late} bytes were taken of one too many");
    asking.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_message_that_no_frame_holds_is_refused_here() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.join(&mut b).await;
    let bits = Some(vec![0; MAX_MESSAGE]);
    let message = Message::Holding {
        blob: blob(),
        bits,
        wants: false,
        media_type: None,
        spare: false,
        zone: None,
        imports: false,
    };
    let error = a.transport.send(&b.id, message).unwrap_err();
    assert!(
        matches!(error, SendError::TooLong { limit: MAX_MESSAGE, .. }),
        "{error}"
    );
    a.transport.send(&b.id, gone(1)).unwrap();
    assert_eq!(b.message().await.1, gone(1));
}

#[tokio::test]
async fn a_silent_neighbour_is_lost_in_time() {
    let config = Config {
        idle_timeout: Duration::from_secs(1),
        keep_alive: Duration::from_millis(300),
        ..Config::default()
    };
    let mut node = Node::with_config(1, config);
    // A connection that is kept alive outlasts the timeout.
    let mut kept = Node::start(2);
    kept.join(&mut node).await;
    let mut cut_off = Node::start(3);
    let wire = Wire::to(&node).await;
    within(cut_off.transport.connect(node.id, wire.addr)).await.unwrap();
    cut_off.connected().await;
    assert_eq!(node.connected().await.0, cut_off.id);
    wire.cut();
    assert_eq!(node.disconnected().await, "nothing heard any more");
    assert_eq!(node.transport.status().connections, 1);
    node.transport.send(&kept.id, gone(1)).unwrap();
    assert_eq!(kept.message().await.1, gone(1));
}
