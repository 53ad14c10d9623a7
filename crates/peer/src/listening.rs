//! Events of the two planes, on their way to the machine or to an answer.

use std::sync::Arc;
use std::time::Instant;

use piece::NodeId;
use swarm::node::Input;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use wire::control::{Address, Request, Response, Role};

use crate::parts::Parts;
use crate::upstream;

/// Questions to the registry answered at the same time for others; more wait, as many as the control plane lets wait.
const UPSTREAM_ANSWERS: usize = 64;

/// Takes events of the control plane until it closes.
pub(crate) async fn control(parts: Arc<Parts>, mut events: mpsc::Receiver<control::Event>, stop: CancellationToken) {
    let answering = Arc::new(Semaphore::new(UPSTREAM_ANSWERS));
    while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
        match event {
            control::Event::Connected(node, address) => parts.seen_at.connected(node, address),
            control::Event::Disconnected(node) => parts.seen_at.disconnected(&node),
            control::Event::SchedulerUp(node) => {
                tracing::info!(scheduler = %identity::peer_id(node), "connected to a scheduler");
                parts.engine.tell(Input::SchedulerUp { scheduler: node }).await;
            }
            control::Event::SchedulerSettled(node) => {
                parts.engine.tell(Input::SchedulerSettled { scheduler: node }).await;
            }
            control::Event::SchedulerDown(node) => {
                let next = if parts.control.schedulers().borrow().connected.is_empty() {
                    parts.registered.send_replace(false);
                    "new pulls find holders through Kademlia"
                } else {
                    "the others take its blobs over"
                };
                let scheduler = identity::peer_id(node);
                tracing::warn!(%scheduler, "a scheduler is gone; transfers go on, and {next}");
                parts.engine.tell(Input::SchedulerDown { scheduler: node }).await;
            }
            control::Event::Request {
                from, request, reply, ..
            } => match not_from(&parts, &from, &request) {
                Some(reason) => reply.send(Response::Refused { reason }),
                None => take(&parts, &answering, from, request, reply).await,
            },
        }
    }
}

/// Why a request is not for this sender to make. Members of the cluster are trusted with what they hold, not with what others
/// believe or do: who reads a blob, who may have it and what is fetched is the schedulers' to say. Where there is none, peers
/// turn to seeds, which exist to be asked.
fn not_from(parts: &Parts, from: &NodeId, request: &Request) -> Option<String> {
    let is_for_anybody = match request {
        Request::Update { .. } | Request::Expelled { .. } => false,
        Request::Upstream { .. } | Request::Preheat { .. } => parts.role == Role::Seed,
        Request::Lookup { .. } | Request::Register { .. } | Request::Join { .. } | Request::Report { .. } => true,
        // Peers turn to seeds themselves with their clients' credentials, which schedulers never see.
        Request::Authorised { .. } | Request::Lend { .. } => true,
    };
    if is_for_anybody || parts.control.is_scheduler(from) {
        return None;
    }
    tracing::debug!(node = %identity::peer_id(*from), "refused what only this node's schedulers may ask");
    Some("only this node's schedulers may ask that of it".to_owned())
}

async fn take(parts: &Arc<Parts>, answering: &Arc<Semaphore>, from: NodeId, request: Request, reply: control::Reply) {
    match request {
        Request::Expelled { nodes } => {
            parts.engine.tell(Input::Expelled { by: Some(from), nodes }).await;
            reply.send(Response::Taken);
        }
        Request::Update { digest, swarm } => {
            parts.told(from, digest, swarm).await;
            reply.send(Response::Taken);
        }
        Request::Upstream { upstream } => {
            let (parts, answering) = (Arc::clone(parts), Arc::clone(answering));
            // As many tasks as the control plane lets requests wait.
            tokio::spawn(async move {
                let _turn = answering.acquire().await;
                let answer = upstream::answer(&parts, &upstream).await;
                reply.send(Response::Upstream { answer });
            });
        }
        Request::Authorised { .. } if parts.role != Role::Seed => {
            reply.send(Response::Refused {
                reason: format!("this node is a {}; credentials are for seeds", parts.role.name()),
            });
        }
        Request::Authorised {
            upstream,
            authorization,
        } => {
            let (parts, answering) = (Arc::clone(parts), Arc::clone(answering));
            tokio::spawn(async move {
                let _turn = answering.acquire().await;
                let answer = upstream::answer_for_client(&parts, &upstream, authorization.as_ref()).await;
                reply.send(Response::Upstream { answer });
            });
        }
        Request::Lend {
            digest,
            source,
            authorization,
        } => {
            parts.lent.keep(Instant::now(), digest, source, authorization);
            reply.send(Response::Taken);
        }
        Request::Lookup { digest } => {
            let parts = Arc::clone(parts);
            tokio::spawn(async move {
                let holding = parts.engine.lookup(digest).await;
                reply.send(Response::Found {
                    data: Address(parts.advertised),
                    role: parts.role,
                    holding,
                });
            });
        }
        Request::Preheat { blobs, .. } => {
            for (blob, source) in blobs {
                parts.engine.want(blob.digest, Some(blob.size), source, false).await;
            }
            reply.send(Response::Taken);
        }
        Request::Register { .. } | Request::Join { .. } | Request::Report { .. } => {
            let role = parts.role.name();
            reply.send(Response::Refused {
                reason: format!("this node is a {role}, not a scheduler"),
            });
        }
    }
}

/// Takes events of the data plane until it closes.
pub(crate) async fn data(parts: Arc<Parts>, mut events: mpsc::Receiver<transport::Event>, stop: CancellationToken) {
    while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
        match event {
            transport::Event::Connected { remote, .. } => {
                parts.engine.tell(Input::Connected { node: remote.node }).await;
                parts.note_usage();
            }
            transport::Event::Disconnected { node, reason } => {
                tracing::debug!(?node, reason, "a connection has ended");
                parts.engine.tell(Input::Disconnected { node }).await;
                parts.note_usage();
            }
            transport::Event::Message { node, message } => {
                parts.engine.tell(Input::Message { from: node, message }).await;
            }
            transport::Event::Fetch(request) => parts.engine.asked(request).await,
            transport::Event::Refused { .. } => {}
        }
    }
}
