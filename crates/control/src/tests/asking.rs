use super::*;

#[tokio::test]
async fn a_node_and_its_scheduler_ask_each_other_over_one_connection() {
    let mut scheduler = Node::start(config()).await;
    let mut node = Node::start(config_with(&[&scheduler])).await;
    assert_eq!(node.scheduler_up().await, scheduler.id());
    let schedulers = node.control.schedulers().borrow().clone();
    assert_eq!(schedulers.connected, [scheduler.id()]);
    assert!(node.control.is_scheduler(&scheduler.id()) && !node.control.is_scheduler(&node.id()));

    let asked = tokio::spawn({
        let control = node.control.clone();
        let to = To::Node(scheduler.id());
        async move { control.ask(to, lookup()).await }
    });
    let (from, observed, request, reply) = scheduler.request().await;
    assert_eq!((from, request), (node.id(), lookup()));
    assert!(
        observed.ip().is_loopback() && observed != node.control.local_addr(),
        "the connection's own port"
    );
    let answer = Response::Reported {
        known: true,
        swarms: vec![(digest(2), Swarm::default())],
    };
    reply.send(answer.clone());
    assert_eq!(asked.await.unwrap(), Ok(answer));

    let (to_node, dialled) = (To::Node(node.id()), scheduler.control.local_addr());
    let asked = tokio::spawn(async move { scheduler.control.ask(to_node, update()).await });
    let (_, observed, request, reply) = node.request().await;
    assert_eq!(request, update());
    assert_eq!(observed, dialled);
    reply.send(Response::Taken);
    assert_eq!(asked.await.unwrap(), Ok(Response::Taken));
}

#[tokio::test]
async fn whoever_listens_at_an_address_can_be_asked() {
    let server = Node::start(config()).await;
    let (address, id) = (server.address(), server.id());
    let _server = server.serve();
    let client = Node::start(config()).await.serve();
    let asks = (0..20).map(|_| client.ask(To::Address(address.clone()), lookup()));
    for answer in futures::future::join_all(asks).await {
        assert_eq!(answer, Ok(Response::Taken));
    }
    assert_eq!(
        client.ask(To::Node(id), lookup()).await,
        Ok(Response::Taken),
        "it is known by its id now"
    );
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_with_the_reason() {
    let node = Node::start(config()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ask = |to| node.control.ask(to, lookup());
    let refused = ask(To::Address(free.to_string())).await.unwrap_err().to_string();
    assert!(
        refused.contains(&free.to_string()) && refused.contains("refused"),
        "{refused}"
    );
    let unknown = ask(To::Address("no-such-host.invalid:1".into()))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("no-such-host.invalid:1: the name cannot be resolved"),
        "{unknown}"
    );
    let stranger = ask(To::Node(NodeKey::generate().node_id()))
        .await
        .unwrap_err()
        .to_string();
    assert!(stranger.contains("no address of it is known"), "{stranger}");
    let itself = ask(To::Address(node.address())).await.unwrap_err().to_string();
    assert!(itself.contains("this node itself"), "{itself}");
    assert!(
        ask(To::Node(node.id()))
            .await
            .unwrap_err()
            .to_string()
            .contains("this node itself")
    );
}

#[tokio::test]
async fn a_request_that_nobody_answers_is_refused_or_times_out() {
    let mut server = Node::start(config()).await;
    let client = Node::start(Config {
        request_timeout: Duration::from_millis(300),
        ..config()
    })
    .await
    .serve();
    let to = To::Address(server.address());
    let (asked, ()) = tokio::join!(client.ask(to.clone(), lookup()), async { drop(server.request().await) });
    assert!(matches!(asked, Err(AskError::Refused(_))), "a dropped reply: {asked:?}");

    let (asked, kept) = tokio::join!(client.ask(to.clone(), lookup()), server.request());
    assert!(
        matches!(asked, Err(AskError::Timeout { .. })),
        "a reply that is not sent: {asked:?}"
    );
    kept.3.send(Response::Taken);

    drop(server.events);
    let asked = client.ask(to, lookup()).await;
    assert!(
        matches!(asked, Err(AskError::Refused(_))),
        "nobody takes events: {asked:?}"
    );
}

#[tokio::test]
async fn a_node_that_accepts_and_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let node = Node::start(Config {
        handshake_timeout: Duration::from_millis(200),
        ..config()
    })
    .await;
    let asked = node
        .control
        .ask(To::Address(silent.local_addr().unwrap().to_string()), lookup())
        .await;
    let error = asked.unwrap_err().to_string();
    assert!(error.contains("handshake took more than 0.2 s"), "{error}");
}

#[tokio::test]
async fn a_scheduler_that_comes_back_is_dialled_again() {
    let mut scheduler = Node::start(config()).await;
    let mut node = Node::start(config_with(&[&scheduler])).await;
    node.scheduler_up().await;
    for new_key in [false, true] {
        let old = scheduler.id();
        scheduler.control.close().await;
        assert_eq!(node.scheduler_down().await, old);
        assert_eq!(*node.control.schedulers().borrow(), Schedulers::default());
        let key = if new_key {
            Arc::new(NodeKey::generate())
        } else {
            Arc::clone(&scheduler.key)
        };
        let same_port = Config::new(scheduler.control.local_addr());
        scheduler = Node::start_as(same_port, key, &[KEY_A]).await.unwrap();
        assert_eq!(node.scheduler_up().await, scheduler.id());
    }
    let control = node.control.clone();
    let (asked, ()) = tokio::join!(control.ask(To::Node(scheduler.id()), lookup()), async {
        scheduler.request().await.3.send(Response::Taken)
    });
    assert_eq!(asked, Ok(Response::Taken));
}

#[tokio::test]
async fn all_schedulers_are_kept_connected_and_settle_together() {
    let schedulers = [Node::start(config()).await, Node::start(config()).await];
    let mut node = Node::start(config_with(&[&schedulers[0], &schedulers[1]])).await;
    let [lost, left] = schedulers;
    let ids = [lost.id(), left.id()];
    let mut settled = Vec::new();
    while settled.len() < 2 {
        settled.push(node.scheduler_settled().await);
    }
    settled.sort_unstable_by_key(|id| *id != ids[0]);
    assert_eq!(settled, ids);
    assert_eq!(
        node.control.schedulers().borrow().settled,
        ids,
        "in the order of configuration"
    );
    let _left = left.serve();
    lost.control.close().await;
    assert_eq!(node.scheduler_down().await, ids[0]);
    assert_eq!(node.control.schedulers().borrow().settled, [ids[1]]);
    assert_eq!(node.control.ask(To::Node(ids[1]), lookup()).await, Ok(Response::Taken));
}

#[tokio::test]
async fn only_connections_to_schedulers_outlive_idleness() {
    let idle = Duration::from_millis(100);
    let mut scheduler = Node::start(Config { idle, ..config() }).await;
    let other = Node::start(Config { idle, ..config() }).await;
    let (other_id, other_address) = (other.id(), other.address());
    let _other = other.serve();
    // Without Kademlia, which would use the connection now and then.
    let mut node = Node::start(Config {
        idle,
        kad: false,
        ..config_with(&[&scheduler])
    })
    .await;
    node.scheduler_up().await;
    for _ in 0..3 {
        assert_eq!(
            node.control.ask(To::Address(other_address.clone()), lookup()).await,
            Ok(Response::Taken)
        );
        let lost = node
            .event(|event| {
                if let Event::Disconnected(id) = event {
                    Some(id)
                } else {
                    None
                }
            })
            .await;
        assert_eq!(lost, other_id, "the older connection to the scheduler stays");
    }
    while let Ok(event) = scheduler.events.try_recv() {
        assert!(
            !matches!(event, Event::Disconnected(_)),
            "nor does the scheduler let go of it"
        );
    }
}

#[tokio::test]
async fn closing_frees_the_port_and_ends_the_events() {
    let mut node = Node::start(config()).await;
    let taken = Node::start_as(Config::new(node.control.local_addr()), Arc::clone(&node.key), &[KEY_A]).await;
    let taken = taken.err().unwrap().to_string();
    assert!(
        taken.contains("cannot listen on 127.0.0.1") && taken.contains("in use"),
        "{taken}"
    );
    node.control.close().await;
    node.control.close().await;
    assert!(node.events.recv().await.is_none());
    let nobody = To::Node(NodeKey::generate().node_id());
    assert_eq!(node.control.ask(nobody, lookup()).await, Err(AskError::Closed));
    assert_eq!(node.control.providers(&digest(1), 1).await, []);
    let Node {
        control, mut events, ..
    } = Node::start(Config::new(node.control.local_addr())).await;
    drop(control);
    assert!(events.recv().await.is_none(), "the last handle is gone");
}

#[tokio::test]
async fn an_unspecified_ipv6_address_accepts_ipv4_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return; // No IPv6 on this machine.
    }
    let server = Node::start(Config::new("[::]:0".parse().unwrap())).await;
    let port = server.control.local_addr().port();
    let _server = server.serve();
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        let client = Node::start(config()).await;
        let asked = client
            .control
            .ask(To::Address(format!("{host}:{port}")), lookup())
            .await;
        assert_eq!(asked, Ok(Response::Taken), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_asks_at_once_are_all_answered() {
    const ASKS: usize = 4000;
    let scheduler = Node::start(config()).await;
    let mut node = Node::start(config_with(&[&scheduler])).await;
    let to = To::Node(scheduler.id());
    let _scheduler = scheduler.serve();
    node.scheduler_up().await;
    let start = std::time::Instant::now();
    let control = &node.control;
    let answered = futures::StreamExt::collect::<Vec<_>>(futures::StreamExt::buffer_unordered(
        futures::stream::iter((0..ASKS).map(|_| control.ask(to.clone(), lookup()))),
        256,
    ))
    .await;
    println!(
        "{:.0} asks/s between two nodes",
        ASKS as f64 / start.elapsed().as_secs_f64()
    );
    assert!(
        answered.iter().all(|answer| *answer == Ok(Response::Taken)),
        "{answered:?}"
    );
}
