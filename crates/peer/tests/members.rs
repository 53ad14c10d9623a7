//! What a member of the cluster can make a node do, if it is not the node's scheduler.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node;

use std::sync::Arc;

use control::{AskError, Control, To};
use identity::{ClusterKeys, NodeKey};
use piece::{Blob, Digest};
use wire::control::{Access, Kind, Query, Repository, Request, Response, Role, Source, Swarm, Upstream};

use node::{LOOPBACK, start};

fn source() -> Source {
    let repository = Repository {
        registry: "127.0.0.1:1".to_owned(),
        name: "org/model".to_owned(),
    };
    Source {
        repository,
        kind: Kind::Blob,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_no_scheduler() {
    let keys = Arc::new(ClusterKeys::parse(&ClusterKeys::generate()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let [peer, seed] = [
        start(Role::Peer, &dir, Vec::new(), &keys).await,
        start(Role::Seed, &dir, Vec::new(), &keys).await,
    ];
    let member = Arc::new(NodeKey::generate());
    let (member, _events) = Control::start(control::Config::new(LOOPBACK), member, keys)
        .await
        .unwrap();
    let ask = async |of: &peer::Peer, request| {
        let to = To::Address(of.addresses().control.to_string());
        member.ask(to, request).await
    };
    let digest = Digest::of(b"private");
    // What would open a private content to whoever asks for it, or name a forger as its reader.
    let update = Request::Update {
        digest,
        swarm: Swarm {
            access: Some(Access::Public),
            about: Some(source()),
            ..Swarm::default()
        },
    };
    let fetch = Request::Preheat {
        blobs: vec![(Blob { digest, size: 7 }, source())],
        to: None,
    };
    let read = Request::Upstream {
        upstream: Upstream {
            repository: source().repository,
            query: Query::Tag { tag: "v1".to_owned() },
        },
    };
    for request in [&update, &fetch, &read] {
        let refused = ask(&peer, request.clone()).await;
        assert!(
            matches!(&refused, Err(AskError::Refused(reason)) if reason.contains("only this node's scheduler")),
            "{request:?}: {refused:?}"
        );
    }
    assert!(matches!(ask(&seed, update).await, Err(AskError::Refused(_))));
    // Seeds serve whoever finds no scheduler, and anybody may ask what a node holds.
    assert!(matches!(ask(&seed, read).await, Ok(Response::Upstream { .. })));
    assert_eq!(ask(&seed, fetch).await, Ok(Response::Taken));
    let found = ask(&peer, Request::Lookup { digest }).await;
    assert!(matches!(found, Ok(Response::Found { holding: None, .. })), "{found:?}");
    for node in [peer, seed] {
        node.stop().await;
    }
}
