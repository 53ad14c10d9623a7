use std::collections::BTreeSet;

use futures::StreamExt;
use libp2p::request_response::{self, Message, ProtocolSupport};
use libp2p::swarm::{SwarmEvent, dial_opts::DialOpts};
use libp2p::{Swarm, Transport};

use super::*;
use crate::address::to_multiaddr;
use crate::codec::{self, ControlCodec, Packet};
use crate::transport::SecureTcp;

#[tokio::test]
async fn messages_over_the_limit_are_refused_where_they_arise() {
    let mut server = Node::start(config()).await;
    let client = Node::start(config()).await;
    let to = To::Address(server.address());
    let sent = client.control.ask(to.clone(), too_large()).await;
    assert!(matches!(sent, Err(AskError::TooLarge { .. })), "{sent:?}");
    let (asked, ()) = tokio::join!(client.control.ask(to, lookup()), async {
        server.request().await.3.send(Response::Refused {
            reason: "r".repeat(2 << 20),
        });
    });
    let Err(AskError::Refused(reason)) = asked else {
        panic!("{asked:?}")
    };
    assert!(reason.contains("exceeds the limit of 1048576"), "{reason}");
}

#[tokio::test]
async fn an_expelled_node_is_cut_off_and_not_let_in_again_until_it_may() {
    let mut server = Node::start(config()).await;
    let client = Node::start(config()).await;
    let (to, expelled) = (To::Address(server.address()), client.id());
    let ask = || client.control.ask(to.clone(), lookup());
    let (asked, ()) = tokio::join!(ask(), async { server.request().await.3.send(Response::Taken) });
    assert_eq!(asked, Ok(Response::Taken));
    server.control.expel(BTreeSet::from([expelled]));
    let gone = |event| matches!(event, Event::Disconnected(node) if node == expelled).then_some(());
    server.event(gone).await;
    ask().await.unwrap_err();
    server.control.expel(BTreeSet::new());
    let again = async {
        // The list reaches the driver when it is next looked at.
        while ask().await.is_err() {}
    };
    let serve = async { server.request().await.3.send(Response::Taken) };
    tokio::join!(again, serve);
}

#[tokio::test]
async fn requests_beyond_those_in_flight_are_refused() {
    let mut server = Node::start(Config {
        max_requests_in_flight: 2,
        ..config()
    })
    .await;
    let client = Node::start(config()).await.control;
    let to = To::Address(server.address());
    let ask = || {
        let (client, to) = (client.clone(), to.clone());
        tokio::spawn(async move { client.ask(to, lookup()).await })
    };
    let first_two = [ask(), ask()];
    let replies = [server.request().await.3, server.request().await.3];
    assert_eq!(ask().await.unwrap(), Err(AskError::Overloaded));
    for (reply, asked) in replies.into_iter().zip(first_two) {
        reply.send(Response::Taken);
        assert_eq!(asked.await.unwrap(), Ok(Response::Taken));
    }
    let again = ask();
    server.request().await.3.send(Response::Taken);
    assert_eq!(again.await.unwrap(), Ok(Response::Taken), "there is room again");
}

#[tokio::test]
async fn a_nodes_own_asks_wait_their_turn() {
    let server = Node::start(config()).await;
    let to = To::Address(server.address());
    let _server = server.serve();
    let one_at_a_time = Config {
        max_requests_in_flight: 1,
        ..config()
    };
    let client = Node::start(Config {
        request_timeout: Duration::from_millis(200),
        ..one_at_a_time
    })
    .await
    .control;
    let turn = client.in_flight.clone().acquire_owned().await.unwrap();
    assert_eq!(
        client.ask(to.clone(), lookup()).await,
        Err(AskError::Overloaded),
        "its turn did not come"
    );
    let asked = tokio::spawn(async move { client.ask(to, lookup()).await });
    drop(turn);
    assert_eq!(asked.await.unwrap(), Ok(Response::Taken));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let server = Node::start(Config {
        max_connections: 1,
        ..config()
    })
    .await;
    let to = To::Address(server.address());
    let _server = server.serve();
    let first = Node::start(config()).await;
    assert_eq!(first.control.ask(to.clone(), lookup()).await, Ok(Response::Taken));
    let second = Node::start(config()).await;
    let refused = second.control.ask(to.clone(), lookup()).await;
    assert!(matches!(refused, Err(AskError::Unreachable { .. })), "{refused:?}");
    assert_eq!(
        first.control.ask(to.clone(), lookup()).await,
        Ok(Response::Taken),
        "who is in stays in"
    );
    first.control.close().await;
    eventually("there is room again", || async {
        second.control.ask(to.clone(), lookup()).await.ok()
    })
    .await;
}

/// A node that speaks the protocol and sends what it likes.
struct RawNode {
    swarm: Swarm<request_response::Behaviour<ControlCodec>>,
    server: libp2p::PeerId,
}

impl RawNode {
    fn connect(server: &Node) -> Self {
        let key = NodeKey::generate().keypair();
        let cluster = ClusterKeys::parse(KEY_A).unwrap();
        let keys = cluster.pnet_keys().map(libp2p::pnet::PreSharedKey::new).collect();
        let transport = SecureTcp::new(&key, keys, DEADLINE).unwrap().boxed();
        let behaviour = request_response::Behaviour::with_codec(
            ControlCodec::new(),
            [(codec::PROTOCOL, ProtocolSupport::Full)],
            request_response::Config::default(),
        );
        let settings =
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
        let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), settings);
        let server_id = identity::peer_id(server.id());
        let address = to_multiaddr(server.control.local_addr());
        swarm
            .dial(DialOpts::peer_id(server_id).addresses(vec![address]).build())
            .unwrap();
        Self {
            swarm,
            server: server_id,
        }
    }

    /// Sends a frame and waits for the response; fails if the connection closes.
    async fn send(&mut self, frame: Vec<u8>) -> Response {
        self.swarm
            .behaviour_mut()
            .send_request(&self.server, Packet::Leaving(frame));
        let response = async {
            loop {
                let event = self.swarm.select_next_some().await;
                assert!(
                    !matches!(event, SwarmEvent::ConnectionClosed { .. }),
                    "the connection is kept"
                );
                let SwarmEvent::Behaviour(event) = event else { continue };
                let request_response::Event::Message {
                    message: Message::Response { response, .. },
                    ..
                } = event
                else {
                    panic!("no response: {event:?}")
                };
                let Packet::Arrived { message, .. } = response else {
                    panic!("it arrived")
                };
                return message.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, response).await.unwrap()
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

#[tokio::test]
async fn a_request_that_is_not_known_is_refused_and_the_connection_kept() {
    let server = Node::start(config()).await;
    let mut raw = RawNode::connect(&server);
    let _server = server.serve();
    // `[99, []]`: a request of a kind that a later release may add; then garbage; then nothing; then a false length.
    let too_long = (u32::try_from(wire::control::MAX_CONTROL).unwrap() + 1)
        .to_be_bytes()
        .to_vec();
    let unknown = [
        frame(&[0x82, 0x18, 99, 0x80]),
        frame(&[0xff; 100]),
        frame(&[]),
        too_long,
    ];
    for bytes in unknown {
        let response = raw.send(bytes.clone()).await;
        assert!(matches!(response, Response::Refused { .. }), "{bytes:?}: {response:?}");
        assert_eq!(raw.send(wire::encode_frame(&lookup())).await, Response::Taken);
    }
}
