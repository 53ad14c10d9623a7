//! HTTP/1.1 over a listener, with every wait and every count bounded.
//!
//! What a client can cost, whatever it sends: one connection slot, at most [`Limits::head_bytes`] of buffer each way,
//! and the time limits below. A body is asked for its next bytes only when the socket has taken the last ones, so a
//! client that reads slowly holds no memory; one that does not read at all is cut after [`Limits::stall`].
//!
//! The `axum` server has none of these limits, so this crate drives `hyper` itself.

mod error;
mod stall;

pub use error::error;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error as log_error, warn};

use crate::stall::StallLimit;

/// Connections beyond [`Limits::connections`] that are answered 503, so that a runtime moves on to its next host at
/// once. Beyond these, connections wait in the kernel's backlog.
const REFUSALS: usize = 64;
/// How long a refused connection may take to send its request: it holds one of few slots.
const REFUSAL_HEAD: Duration = Duration::from_secs(5);
/// After a failed accept. Out of file descriptors is the usual reason, and lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server lets its clients take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; each costs a file descriptor and about 16 KiB. Default 2048.
    pub connections: usize,
    /// From the start of a connection, or the end of the last response, to the end of the next request's head. So
    /// also how long an idle connection is kept. Default 60 s.
    pub head: Duration,
    /// Bytes of a request's head, at least 8192. Default 32 KiB: tokens of some registries have 8 KiB and more.
    pub head_bytes: usize,
    /// Headers of a request. Default 100.
    pub headers: usize,
    /// How long a client may take no byte of a response at all before it is cut. Default 5 min, the longest that
    /// container runtimes go without progress themselves.
    pub stall: Duration,
    /// How long requests under way may take to finish after shutdown began. Default 20 s: Kubernetes kills after 30.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            head: Duration::from_secs(60),
            head_bytes: 32 << 10,
            headers: 100,
            stall: Duration::from_secs(300),
            drain: Duration::from_secs(20),
        }
    }
}

/// Serves until `shutdown` resolves; then finishes what is under way, for at most [`Limits::drain`]. Dropping the
/// future closes every connection at once.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    let http = protocol(&limits, limits.head);
    let refusing = protocol(&limits, REFUSAL_HEAD);
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept(), if connections.len() < limits.connections + REFUSALS => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => {
                // Only a latency matter: a socket that refuses it serves just as well.
                drop(stream.set_nodelay(true));
                StallLimit::new(stream, limits.stall)
            }
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if connections.len() < limits.connections {
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(connection(
                http.serve_connection(TokioIo::new(stream), service),
                draining.clone(),
            ));
        } else {
            let service = service_fn(|_| std::future::ready(Ok::<_, Infallible>(refusal())));
            connections.spawn(connection(
                refusing.serve_connection(TokioIo::new(stream), service),
                draining.clone(),
            ));
        }
    }
    drop(listener);
    drain.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, finished).await.is_err() {
        warn!(
            connections = connections.len(),
            "closing HTTP connections that did not finish while draining"
        );
    }
}

fn protocol(limits: &Limits, head: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.headers);
    http
}

type Stream = TokioIo<StallLimit<TcpStream>>;

/// One connection to its end; from the time that draining begins, only the request under way.
async fn connection<S, B>(connection: http1::Connection<Stream, S>, mut draining: watch::Receiver<bool>)
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = begun(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection ended early");
    }
}

async fn begun(draining: &mut watch::Receiver<bool>) {
    // Fails only when the server is gone, and with it this connection.
    drop(draining.wait_for(|draining| *draining).await);
}

fn refusal() -> Response<Body> {
    let message = "this node serves as many connections as it may; try another mirror or the registry itself";
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message);
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        log_error!(%error, "an HTTP request's handler panicked; its connection is closed");
    }
}
