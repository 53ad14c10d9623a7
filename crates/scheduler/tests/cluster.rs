//! A scheduler and two nodes that speak to it over real connections.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for what it expects"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control::{Control, Event, To};
use identity::{ClusterKeys, NodeKey};
use piece::{Blob, Digest, Midstate, NodeId};
use scheduler::{Config, Listeners, Scheduler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::control::{
    Access, Address, Holding, Kind, Locality, Query, Reading, Repository, Request, Response, Role, Source, Swarm,
    Upstream, UpstreamAnswer,
};

/// Within this, whatever is waited for must happen.
const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1:0";

struct Node {
    id: NodeId,
    control: Control,
    events: mpsc::Receiver<Event>,
    scheduler: To,
}

fn keys() -> Arc<ClusterKeys> {
    Arc::new(ClusterKeys::parse(&"0123456789abcdef".repeat(4)).unwrap())
}

async fn start() -> Scheduler {
    let config = Config::new(control::Config::new(LOOPBACK.parse().unwrap()));
    let listeners = Listeners {
        admin: TcpListener::bind(LOOPBACK).await.unwrap(),
    };
    Scheduler::start(config, listeners, Arc::new(NodeKey::generate()), keys())
        .await
        .unwrap()
}

impl Node {
    /// A node that has registered.
    async fn start(scheduler: SocketAddr, role: Role) -> Self {
        let key = Arc::new(NodeKey::generate());
        let id = key.node_id();
        let mut config = control::Config::new(LOOPBACK.parse().unwrap());
        config.schedulers = vec![scheduler.to_string()];
        let (control, events) = Control::start(config, key, keys()).await.unwrap();
        let scheduler = To::Node(id);
        let mut node = Self {
            id,
            control,
            events,
            scheduler,
        };
        node.scheduler = node
            .event(|event| match event {
                Event::SchedulerUp(scheduler) => Some(To::Node(scheduler)),
                _ => None,
            })
            .await;
        let request = Request::Register {
            protocol: wire::PROTOCOL,
            role,
            data: Address("0.0.0.0:7654".parse().unwrap()),
            locality: Locality {
                host: None,
                rack: Some("r1".into()),
                zone: None,
            },
            holdings: vec![],
            more: false,
        };
        let registered = node.control.ask(node.scheduler.clone(), request).await.unwrap();
        assert_eq!(registered, Response::Registered { report_every: 1000 });
        node
    }

    async fn event<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap()
    }

    /// The next push about a blob that says what is looked for.
    async fn told<T>(&mut self, digest: Digest, wanted: impl Fn(&Swarm) -> Option<T>) -> T {
        self.event(|event| match event {
            Event::Request {
                request: Request::Update { digest: about, swarm },
                reply,
                ..
            } => {
                assert_eq!(about, digest);
                reply.send(Response::Taken);
                wanted(&swarm)
            }
            _ => None,
        })
        .await
    }

    async fn join(&self, digest: Digest) -> Swarm {
        let request = Request::Join {
            digest,
            size: None,
            source: source(),
            urgent: true,
        };
        match self.control.ask(self.scheduler.clone(), request).await.unwrap() {
            Response::Joined { swarm } => swarm,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&self, holding: Holding) -> Vec<(Digest, Swarm)> {
        let request = Request::Report {
            holdings: vec![holding],
            gone: vec![],
            failed: vec![],
            accusations: vec![],
            lonely: vec![],
        };
        match self.control.ask(self.scheduler.clone(), request).await.unwrap() {
            Response::Reported { known: true, swarms } => swarms,
            other => panic!("{other:?}"),
        }
    }
}

fn source() -> Source {
    let repository = Repository {
        registry: "registry.example".into(),
        name: "org/model".into(),
    };
    Source {
        repository,
        kind: Kind::Blob,
    }
}

fn blob() -> Blob {
    Blob {
        digest: Digest::of(b"a model"),
        size: 10 << 20,
    }
}

async fn get(scheduler: &Scheduler, path: &str) -> (u16, Value) {
    ask_admin(scheduler, |client, url| client.get(format!("{url}{path}"))).await
}

async fn ask_admin(
    scheduler: &Scheduler,
    request: impl Fn(&reqwest::Client, String) -> reqwest::RequestBuilder,
) -> (u16, Value) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let url = format!("http://{}", scheduler.addresses().admin);
    let response = request(&reqwest::Client::new(), url).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn a_blob_finds_its_reader_and_its_size_those_who_wait() {
    let scheduler = start().await;
    let at = scheduler.addresses().control;
    let (mut seed, mut peer) = (Node::start(at, Role::Seed).await, Node::start(at, Role::Peer).await);
    let blob = blob();

    let joined = peer.join(blob.digest).await;
    assert_eq!(joined.readers, [seed.id]);
    assert_eq!(joined.neighbours.len(), 1);
    assert_eq!(
        joined.neighbours[0].data,
        Address("127.0.0.1:7654".parse().unwrap()),
        "as it is seen"
    );
    let lease = seed.told(blob.digest, |swarm| swarm.lease.clone()).await;
    assert_eq!((&lease.source, lease.resume), (&source(), None));

    let reading = Reading {
        epoch: lease.epoch,
        boundary: 1,
        midstate: Some(Midstate::START),
        source: source(),
        access: Access::Public,
    };
    let holding = Holding {
        blob,
        pieces: 2,
        wants: true,
        media_type: None,
        reading: Some(reading),
    };
    seed.report(holding.clone()).await;
    let told = peer.told(blob.digest, |swarm| Some((swarm.size, swarm.access))).await;
    assert_eq!(told, (Some(blob.size), Some(Access::Public)));

    let (status, swarms) = get(&scheduler, "/api/v1/swarms").await;
    assert_eq!(status, 200);
    let reader = &swarms["swarms"][0]["reader"];
    assert_eq!(reader["peer_id"], identity::peer_id(seed.id).to_string());
    assert_eq!((&reader["published"], &reader["opened"]), (&json!(1), &json!(true)));

    // The seed dies: the lease goes to the peer, which goes on where others have followed.
    seed.control.close().await;
    let lease = peer.told(blob.digest, |swarm| swarm.lease.clone()).await;
    assert_eq!(lease.resume.map(|resume| resume.boundary), Some(1));
    scheduler.stop().await;
}

#[tokio::test]
async fn a_seed_is_asked_what_only_a_registry_knows() {
    let scheduler = start().await;
    let at = scheduler.addresses().control;
    let (mut seed, peer) = (Node::start(at, Role::Seed).await, Node::start(at, Role::Peer).await);
    let upstream = Upstream {
        repository: source().repository,
        query: Query::Tag { tag: "v1".into() },
    };
    let ask = peer.control.ask(
        peer.scheduler.clone(),
        Request::Upstream {
            upstream: upstream.clone(),
        },
    );
    let answer = UpstreamAnswer::Content {
        blob: blob(),
        media_type: "m".into(),
        access: Access::Public,
    };
    let serve = seed.event(|event| match event {
        Event::Request {
            request: Request::Upstream { upstream: asked },
            reply,
            ..
        } => {
            assert_eq!(asked, upstream);
            reply.send(Response::Upstream { answer: answer.clone() });
            Some(())
        }
        _ => None,
    });
    let (response, ()) = tokio::join!(ask, serve);
    assert_eq!(response.unwrap(), Response::Upstream { answer });
    assert_eq!(
        peer.join(blob().digest).await.size,
        Some(blob().size),
        "the seed holds the manifest now"
    );
    scheduler.stop().await;
}

#[tokio::test]
async fn operators_see_nodes_and_swarms_and_preheat() {
    let scheduler = start().await;
    let at = scheduler.addresses().control;
    let (mut seed, peer) = (Node::start(at, Role::Seed).await, Node::start(at, Role::Peer).await);
    peer.report(Holding {
        blob: blob(),
        pieces: 40,
        wants: false,
        media_type: Some("m".into()),
        reading: None,
    })
    .await;

    let (_, status) = get(&scheduler, "/api/v1/status").await;
    let expected = json!({
        "role": "scheduler",
        "peer_id": identity::peer_id(scheduler.node_id()).to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": status["uptime_seconds"],
        "seeds": 1, "peers": 1, "swarms": 1, "holdings": 1, "questions": 0, "preheats": 0, "banned": 0,
        "leases_granted": 0, "leases_failed": 0, "complaints_wrong_bytes": 0, "complaints_forged_midstates": 0,
        "refused": 0, "dropped": 0,
    });
    assert_eq!(status, expected);

    let (_, first) = get(&scheduler, "/api/v1/nodes?limit=1").await;
    let next = first["next"].as_str().unwrap();
    let (_, second) = get(&scheduler, &format!("/api/v1/nodes?limit=1&after={next}")).await;
    let mut listed = [&first, &second].map(|page| page["nodes"][0]["peer_id"].as_str().unwrap().to_owned());
    listed.sort();
    let mut expected = [seed.id, peer.id].map(|node| identity::peer_id(node).to_string());
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(first["nodes"][0]["rack"], "r1");
    let (_, swarms) = get(&scheduler, "/api/v1/swarms").await;
    let expected = json!({
        "swarms": [{
            "digest": blob().digest.to_string(), "size": blob().size, "media_type": "m",
            "nodes": 1, "whole": 1, "waiting": 0, "reader": null,
        }],
        "next": null,
    });
    assert_eq!(swarms, expected);
    let (status, error) = get(&scheduler, "/api/v1/swarms?after=nothing").await;
    assert_eq!(status, 400, "{error}");

    let wanted = json!({ "blobs": [{
        "digest": blob().digest.to_string(), "size": blob().size,
        "registry": "registry.example", "repository": "org/model",
    }]});
    let preheat = |body: Value| {
        move |client: &reqwest::Client, url: String| client.post(format!("{url}/api/v1/preheat")).body(body.to_string())
    };
    assert_eq!(
        ask_admin(&scheduler, preheat(wanted)).await,
        (200, json!({ "accepted": 1 }))
    );
    let blobs = seed
        .event(|event| match event {
            Event::Request {
                request: Request::Preheat { blobs, .. },
                reply,
                ..
            } => {
                reply.send(Response::Taken);
                Some(blobs)
            }
            _ => None,
        })
        .await;
    assert_eq!(blobs, [(blob(), source())]);
    let (status, error) = ask_admin(&scheduler, preheat(json!({ "blobs": [], "too": "peers" }))).await;
    assert_eq!(status, 400);
    assert!(error.to_string().contains("too"), "{error}");
    scheduler.stop().await;
}

#[tokio::test]
async fn metrics_count_what_is_asked() {
    let scheduler = start().await;
    let peer = Node::start(scheduler.addresses().control, Role::Peer).await;
    peer.join(blob().digest).await;
    drop(rustls::crypto::ring::default_provider().install_default());
    let url = format!("http://{}/metrics", scheduler.addresses().admin);
    let text = async || reqwest::get(&url).await.unwrap().text().await.unwrap();
    let shown = timeout(DEADLINE, async {
        loop {
            let text = text().await;
            if text.contains("packswarm_scheduler_nodes 1") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let text = shown.await.unwrap();
    assert!(text.contains("packswarm_scheduler_requests_total{kind=\"register\"} 1"));
    assert!(text.contains("packswarm_scheduler_requests_total{kind=\"join\"} 1"));
    scheduler.stop().await;
}
