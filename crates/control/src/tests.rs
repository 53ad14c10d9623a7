//! Several nodes in one process, on loopback.

mod asking;
mod finding;
mod keys;
mod limits;

use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterKeys, NodeKey};
use piece::Digest;
use tokio::sync::mpsc;
use wire::control::{Request, Response, Swarm};

use crate::{AskError, Config, Control, ControlError, Event, Schedulers, To};

/// Within this, whatever is waited for must happen.
const DEADLINE: Duration = Duration::from_secs(20);
const KEY_A: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const KEY_B: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// A node under test; its events are taken by hand.
struct Node {
    control: Control,
    events: mpsc::Receiver<Event>,
    key: Arc<NodeKey>,
}

fn config() -> Config {
    Config::new("127.0.0.1:0".parse().unwrap())
}

fn config_with(schedulers: &[&Node]) -> Config {
    Config {
        schedulers: schedulers.iter().map(|node| node.address()).collect(),
        ..config()
    }
}

impl Node {
    async fn start(config: Config) -> Self {
        Self::start_as(config, Arc::new(NodeKey::generate()), &[KEY_A])
            .await
            .unwrap()
    }

    async fn start_as(config: Config, key: Arc<NodeKey>, cluster: &[&str]) -> Result<Self, ControlError> {
        let cluster = Arc::new(ClusterKeys::parse(&cluster.join("\n")).unwrap());
        let (control, events) = Control::start(config, Arc::clone(&key), cluster).await?;
        Ok(Self { control, events, key })
    }

    fn address(&self) -> String {
        self.control.local_addr().to_string()
    }

    fn id(&self) -> piece::NodeId {
        self.key.node_id()
    }

    /// The next event that `wanted` makes something of; others are passed over, requests among them refused.
    async fn event<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the control plane runs");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("the event comes")
    }

    async fn scheduler_up(&mut self) -> piece::NodeId {
        self.event(|event| {
            if let Event::SchedulerUp(node) = event {
                Some(node)
            } else {
                None
            }
        })
        .await
    }

    async fn scheduler_settled(&mut self) -> piece::NodeId {
        self.event(|event| {
            if let Event::SchedulerSettled(node) = event {
                Some(node)
            } else {
                None
            }
        })
        .await
    }

    async fn scheduler_down(&mut self) -> piece::NodeId {
        self.event(|event| {
            if let Event::SchedulerDown(node) = event {
                Some(node)
            } else {
                None
            }
        })
        .await
    }

    /// The next request, with its reply.
    async fn request(&mut self) -> (piece::NodeId, std::net::SocketAddr, Request, crate::Reply) {
        self.event(|event| match event {
            Event::Request {
                from,
                observed,
                request,
                reply,
            } => Some((from, observed, request, reply)),
            Event::Connected(..)
            | Event::Disconnected(_)
            | Event::SchedulerUp(_)
            | Event::SchedulerSettled(_)
            | Event::SchedulerDown(_) => None,
        })
        .await
    }

    /// From now on answers all requests with `Taken`; its other events are lost.
    fn serve(self) -> Control {
        let Self {
            control, mut events, ..
        } = self;
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Request { reply, .. } = event {
                    reply.send(Response::Taken);
                }
            }
        });
        control
    }
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

/// A small request.
fn lookup() -> Request {
    Request::Lookup { digest: digest(1) }
}

fn update() -> Request {
    Request::Update {
        digest: digest(1),
        swarm: Swarm {
            size: Some(7),
            ..Swarm::default()
        },
    }
}

/// A request that exceeds what a message may hold.
fn too_large() -> Request {
    Request::Report {
        holdings: Vec::new(),
        gone: vec![digest(1); 40_000],
        failed: Vec::new(),
        accusations: Vec::new(),
        lonely: Vec::new(),
    }
}

/// Repeats `attempt` until it succeeds.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let trying = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, trying)
        .await
        .unwrap_or_else(|_| panic!("{what}"))
}
