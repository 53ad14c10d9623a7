//! Who is connected to whom, and what is said.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use identity::ClusterKeys;
use transport::{Config, ConnectError, Event, SendError, Transport};
use wire::exchange::{MAX_HAVE_RANGES, Message};

use crate::support::{KEY, Node, blob, gone, key, until, within};

#[tokio::test]
async fn messages_pass_both_ways_in_order() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.dial(&b).await.unwrap();
    assert_eq!(a.connected().await, (b.id, true));
    assert_eq!(b.connected().await, (a.id, false));
    let holding = Message::Holding {
        blob: blob(),
        bits: Some(vec![0xf0; 8192]),
        wants: true,
        media_type: Some("application/vnd.cncf.model.manifest.v1+json".to_owned()),
        spare: false,
        zone: None,
        imports: false,
    };
    let have = Message::Have {
        digest: blob().digest,
        ranges: vec![(u32::MAX - 1, 1); MAX_HAVE_RANGES],
        load: 3,
    };
    for message in [holding.clone(), have.clone(), gone(1)] {
        a.transport.send(&b.id, message).unwrap();
    }
    b.transport.send(&a.id, holding.clone()).unwrap();
    for message in [holding.clone(), have, gone(1)] {
        assert_eq!(b.message().await, (a.id, message));
    }
    assert_eq!(a.message().await, (b.id, holding));
}

#[tokio::test]
async fn a_second_dial_is_a_no_op() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.join(&mut b).await;
    a.dial(&b).await.unwrap();
    b.dial(&a).await.unwrap();
    a.transport.send(&b.id, gone(1)).unwrap();
    assert_eq!(b.message().await.1, gone(1), "nothing else happened in between");
    assert_eq!(
        (a.transport.status().connections, b.transport.status().connections),
        (1, 1)
    );
}

#[tokio::test]
async fn callers_share_one_dial() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    let dials = (0..10).map(|_| a.dial(&b));
    assert!(
        futures::future::join_all(dials)
            .await
            .into_iter()
            .all(|outcome| outcome.is_ok())
    );
    b.connected().await;
    a.connected().await;
    a.transport.send(&b.id, gone(1)).unwrap();
    assert_eq!(b.message().await.1, gone(1));
}

#[tokio::test]
async fn simultaneous_dials_end_in_one_connection() {
    for round in 0..5 {
        let [mut a, mut b] = [Node::start(10 + round), Node::start(20 + round)];
        let (ab, ba) = tokio::join!(a.dial(&b), b.dial(&a));
        assert_eq!((ab, ba), (Ok(()), Ok(())));
        let (a_dialled, b_dialled) = tokio::join!(settle(&mut a), settle(&mut b));
        assert_ne!(a_dialled, b_dialled, "both ends kept the same connection");
        a.transport.send(&b.id, gone(7)).unwrap();
        assert_eq!(b.message().await.1, gone(7));
        b.transport.send(&a.id, gone(8)).unwrap();
        assert_eq!(a.message().await.1, gone(8));
    }
}

/// Waits until a node's connections have sorted themselves out; returns whether it dialled the one that stayed.
async fn settle(node: &mut Node) -> bool {
    let mut dialled = None;
    loop {
        match tokio::time::timeout(Duration::from_millis(200), node.events.recv()).await {
            Ok(Some(Event::Connected { dialled: this, .. })) => {
                assert_eq!(dialled.replace(this), None, "two connections at once");
            }
            Ok(Some(Event::Disconnected { .. })) => assert!(dialled.take().is_some()),
            Ok(other) => panic!("{other:?}, though nobody said anything"),
            Err(_) => {
                if let Some(dialled) = dialled {
                    return dialled;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_restarted_node_is_let_in_again() {
    // The greater id restarts and dials, against the rule for simultaneous dials; the old connection is old enough.
    let patient = Config {
        handshake_timeout: Duration::from_millis(400),
        ..Config::default()
    };
    let (one, two) = if key(1).node_id() < key(2).node_id() {
        (1, 2)
    } else {
        (2, 1)
    };
    let mut smaller = Node::with_config(one, patient.clone());
    let mut greater = Node::with_config(two, patient.clone());
    smaller.join(&mut greater).await;
    let mut restarted = Node::with_config(two, patient);
    // Until then the two dials could have been simultaneous, and the dial fails.
    within(async { while restarted.dial(&smaller).await.is_err() {} }).await;
    restarted.connected().await;
    assert_eq!(
        smaller.disconnected().await,
        "replaced by another connection between the two nodes"
    );
    assert_eq!(smaller.connected().await, (restarted.id, false));
    restarted.transport.send(&smaller.id, gone(3)).unwrap();
    assert_eq!(smaller.message().await.1, gone(3));
}

#[tokio::test]
async fn a_disconnect_is_explained_at_both_ends() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.join(&mut b).await;
    a.transport.disconnect(&b.id, "no blob in common");
    assert_eq!(a.disconnected().await, "no blob in common");
    assert_eq!(b.disconnected().await, "closed by the other end: no blob in common");
    assert_eq!(a.transport.send(&b.id, gone(1)), Err(SendError::NotConnected));
    assert_eq!(b.transport.path(&a.id), None);
    a.join(&mut b).await;
}

#[tokio::test]
async fn three_nodes_are_kept_apart() {
    let [mut a, mut b, mut c] = [Node::start(1), Node::start(2), Node::start(3)];
    a.join(&mut b).await;
    a.join(&mut c).await;
    b.transport.send(&a.id, gone(2)).unwrap();
    assert_eq!(a.message().await, (b.id, gone(2)));
    c.transport.send(&a.id, gone(3)).unwrap();
    assert_eq!(a.message().await, (c.id, gone(3)));
    b.transport.disconnect(&a.id, "enough");
    a.disconnected().await;
    c.transport.send(&a.id, gone(4)).unwrap();
    assert_eq!(a.message().await, (c.id, gone(4)));
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let a = Node::with_config(
        1,
        Config {
            handshake_timeout: Duration::from_millis(200),
            ..Config::default()
        },
    );
    let error = within(a.transport.connect(key(2).node_id(), silent.local_addr().unwrap()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Timeout { .. }) && error.to_string().contains("UDP passes"),
        "{error}"
    );
    assert_eq!(a.transport.status().dialling, 0);
    let myself = a.dial(&a).await.unwrap_err();
    assert_eq!(myself, ConnectError::Myself { node: a.id });
    let nowhere = within(a.transport.connect(key(2).node_id(), "127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap_err();
    assert!(matches!(nowhere, ConnectError::Address { .. }), "{nowhere}");
}

#[tokio::test]
async fn ipv4_reaches_a_dual_stack_socket() {
    let cluster = Arc::new(ClusterKeys::parse(KEY).unwrap());
    let socket = UdpSocket::bind("[::]:0").unwrap();
    let (dual, mut events) = Transport::bind(Config::default(), socket, Arc::new(key(1)), cluster).unwrap();
    let a = Node::start(2);
    let addr = ([127, 0, 0, 1], dual.local_addr().port()).into();
    within(a.transport.connect(key(1).node_id(), addr)).await.unwrap();
    match within(events.recv()).await.unwrap() {
        Event::Connected { addr, .. } => assert_eq!(addr, a.addr),
        other => panic!("{other:?} instead of Connected"),
    }
}

#[tokio::test]
async fn the_path_is_probed_up_to_the_bound() {
    for bound in [1200, 6500, 32_000] {
        let config = Config {
            max_udp_payload: bound,
            mtu_upper_bound: bound,
            ..Config::default()
        };
        let [mut a, mut b] = [Node::with_config(1, config.clone()), Node::with_config(2, config)];
        a.join(&mut b).await;
        // Discovery stops when it is within 20 bytes of the bound.
        until(|| {
            let path = a.transport.path(&b.id).unwrap();
            assert!(path.mtu <= bound && path.addr == b.addr);
            path.mtu + 20 >= bound && path.rtt < Duration::from_secs(1)
        })
        .await;
    }
}

#[tokio::test]
async fn closing_ends_everything_in_order() {
    let hasty = Config {
        handshake_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let [mut a, mut b] = [Node::start(1), Node::with_config(2, hasty)];
    a.join(&mut b).await;
    within(a.transport.close()).await;
    assert_eq!(a.disconnected().await, "shutting down");
    assert!(within(a.events.recv()).await.is_none(), "the events end");
    assert_eq!(b.disconnected().await, "closed by the other end: shutting down");
    assert_eq!(a.dial(&b).await, Err(ConnectError::Closing));
    assert!(b.dial(&a).await.is_err());
}

#[tokio::test]
async fn dropping_the_events_closes_everything() {
    let [mut a, mut b] = [Node::start(1), Node::start(2)];
    a.join(&mut b).await;
    drop(a.events);
    assert!(b.disconnected().await.starts_with("closed by the other end"));
    until(|| a.transport.status().connections == 0).await;
}
