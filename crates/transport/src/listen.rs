//! Takes up the connections that others open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use identity::{Direction, peer_id};
use piece::NodeId;
use quinn::{Connection, Incoming};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::Event;
use crate::admission::{AdmissionError, Greeter, remote_node};
use crate::connection::{Admitted, canonical};
use crate::error::{CloseCode, words, wrong_key};
use crate::table::TurnedAway;
use crate::transport::Inner;

/// Runs until the endpoint is closed, or nobody reads the events.
pub(crate) async fn run(inner: Arc<Inner>, events: mpsc::Sender<Event>) {
    let limit = inner.config.max_handshakes;
    let places = Arc::new(Semaphore::new(limit));
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            incoming = inner.endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let is_crowded = places.available_permits() < limit.div_ceil(2);
                let Ok(place) = places.clone().try_acquire_owned() else {
                    incoming.refuse();
                    continue;
                };
                if is_crowded && !incoming.remote_address_validated() && incoming.may_retry() {
                    // Not under a false address: the caller must come back with what is sent to it.
                    let _ = incoming.retry();
                    continue;
                }
                let (inner, events) = (inner.clone(), events.clone());
                handshakes.spawn(async move {
                    let addr = canonical(incoming.remote_address());
                    if let Err(why) = admit(&inner, incoming).await {
                        report(&inner, &events, addr, why);
                    }
                    drop(place);
                });
            }
            Some(_) = handshakes.join_next() => {}
            () = events.closed() => {
                inner.endpoint.close(CloseCode::Done.var_int(), b"shutting down");
                return;
            }
        }
    }
}

/// Tells the operator, in the log, and the consumer, if it keeps up.
fn report(inner: &Inner, events: &mpsc::Sender<Event>, addr: SocketAddr, why: String) {
    if inner.refusals.allows(addr, Instant::now()) {
        tracing::warn!(%addr, "refused a connection: {why}");
        let _ = events.try_send(Event::Refused { addr, why });
    }
}

/// Lets a caller in, or says in words why not.
async fn admit(inner: &Arc<Inner>, incoming: Incoming) -> Result<(), String> {
    let addr = canonical(incoming.remote_address());
    let handshake = async {
        let connection = incoming.accept().map_err(|e| words(&e))?.await.map_err(|e| words(&e))?;
        let node = remote_node(&connection).map_err(|e| e.to_string())?;
        greet(inner, &connection, node, addr).await
    };
    tokio::time::timeout(inner.config.handshake_timeout, handshake)
        .await
        .unwrap_or_else(|_| Err(format!("{addr} did not finish its handshake in time")))
}

async fn greet(inner: &Arc<Inner>, connection: &Connection, node: NodeId, addr: SocketAddr) -> Result<(), String> {
    if inner.table().bans.contains(&node) {
        let (code, reason) = TurnedAway::Banned.close();
        connection.close(code.var_int(), reason.as_bytes());
        return Err(format!("node {} at {addr} is banned here", peer_id(node)));
    }
    let greeter = Greeter {
        connection,
        keys: &inner.cluster,
        direction: Direction::Listener,
    };
    let (send, recv, remote) = greeter.listen(node).await.map_err(|error| {
        let why = refusal(node, addr, &error);
        turn_away(connection, &error);
        why
    })?;
    let greeting = greeter.hello(&inner.me);
    let admitted = Admitted {
        connection: connection.clone(),
        send,
        recv,
        remote,
        dialled: false,
        greeting,
    };
    match admitted.settle(inner) {
        Ok(()) | Err(TurnedAway::Duplicate | TurnedAway::Closing) => Ok(()),
        Err(TurnedAway::Banned) => Err(format!("node {} at {addr} is banned here", peer_id(node))),
        Err(TurnedAway::Full) => {
            let limit = inner.config.max_connections;
            Err(format!(
                "node {} at {addr} was turned away: all {limit} connections are taken",
                peer_id(node)
            ))
        }
    }
}

/// Closes a connection whose other end did not get through the greeting.
pub(crate) fn turn_away(connection: &Connection, error: &AdmissionError) {
    let code = match error {
        AdmissionError::WrongKey => CloseCode::WrongKey,
        AdmissionError::Version { .. } | AdmissionError::Malformed(_) | AdmissionError::Connection(_) => {
            CloseCode::Protocol
        }
    };
    connection.close(code.var_int(), error.to_string().as_bytes());
}

fn refusal(node: NodeId, addr: SocketAddr, error: &AdmissionError) -> String {
    match error {
        AdmissionError::WrongKey => wrong_key(node, addr),
        AdmissionError::Connection(error) => format!("node {} at {addr}: {}", peer_id(node), words(error)),
        AdmissionError::Version { .. } | AdmissionError::Malformed(_) => {
            format!("node {} at {addr}: {error}", peer_id(node))
        }
    }
}
