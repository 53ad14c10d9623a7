//! Every limit, over real sockets.
#![allow(clippy::unwrap_used, reason = "the line of a failed unwrap says all in a test")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use httpd::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(5);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

struct Server {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

/// What the handlers and the test tell each other.
#[derive(Clone, Default)]
struct Signals {
    /// `/slow` was asked for.
    entered: Arc<Notify>,
    /// `/slow` may answer.
    go: Arc<Notify>,
    /// The body of `/endless` was dropped.
    dropped: Arc<Notify>,
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// `/` answers at once, `/slow` when it may, `/endless` never stops.
async fn server(limits: Limits, signals: &Signals) -> Server {
    let Signals { entered, go, dropped } = signals.clone();
    let slow = move || async move {
        entered.notify_one();
        go.notified().await;
        "slow"
    };
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let endless = move || async move {
        let guard = OnDrop(dropped);
        Body::from_stream(futures::stream::repeat_with(move || {
            let _held = &guard;
            Ok::<_, std::io::Error>(chunk.clone())
        }))
    };
    let router = Router::new()
        .route("/", get("fast"))
        .route("/slow", get(slow))
        .route("/endless", get(endless));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, stopped) = oneshot::channel();
    let done = tokio::spawn(httpd::serve(listener, router, limits, async { drop(stopped.await) }));
    Server {
        address,
        shutdown,
        done,
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("this must happen soon")
}

async fn client(server: &Server, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

/// All that comes until `end`, or until the connection ends.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    soon(async {
        while !String::from_utf8_lossy(&text).ends_with(end) {
            match stream.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
    })
    .await;
    String::from_utf8(text).unwrap()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(soon(stream.read(&mut byte)).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_ends_when_idle() {
    let server = server(
        Limits {
            head: Duration::from_millis(100),
            ..Limits::default()
        },
        &Signals::default(),
    )
    .await;
    let mut stream = client(&server, GET).await;
    assert!(read_until(&mut stream, "fast").await.starts_with("HTTP/1.1 200"));
    stream.write_all(GET).await.unwrap();
    assert!(read_until(&mut stream, "fast").await.starts_with("HTTP/1.1 200"));
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut() {
    let server = server(
        Limits {
            head: Duration::from_millis(100),
            ..Limits::default()
        },
        &Signals::default(),
    )
    .await;
    let mut stream = client(&server, b"GET / HTTP/1.1\r\nhost:").await;
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_as_well() {
    let server = server(
        Limits {
            head: Duration::from_millis(200),
            ..Limits::default()
        },
        &Signals::default(),
    )
    .await;
    let mut stream = client(&server, b"GET / HTTP/1.1\r\nhost: x\r\na: ").await;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    // Never silent, never done.
    let written = soon(async {
        let mut bytes = 0;
        while stream.write_all(b"b").await.is_ok() {
            bytes += 1;
            pace.tick().await;
        }
        bytes
    })
    .await;
    assert!(written > 1, "it was cut for its length, not for its time");
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_and_count() {
    let limits = Limits {
        head_bytes: 8192,
        headers: 10,
        ..Limits::default()
    };
    let server = server(limits, &Signals::default()).await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(11));
    for head in [large, many] {
        let mut stream = client(&server, head.as_bytes()).await;
        assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 431"));
    }
}

#[tokio::test]
async fn garbage_behind_a_request_costs_its_sender_the_connection_only() {
    let server = server(Limits::default(), &Signals::default()).await;
    let two_lengths = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n";
    for garbage in [
        &b"\x00\xff\x16\x03\x01 not HTTP\r\n\r\n"[..],
        &[0x80; 4096],
        two_lengths,
    ] {
        let mut stream = client(&server, &[GET, garbage].concat()).await;
        assert!(read_until(&mut stream, "fast").await.starts_with("HTTP/1.1 200"));
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{answer}");
        assert!(is_closed(&mut stream).await);
    }
    let mut another = client(&server, GET).await;
    assert!(read_until(&mut another, "fast").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_read_to_its_end() {
    let server = server(Limits::default(), &Signals::default()).await;
    for length in ["content-length: 1000000000000", "transfer-encoding: chunked"] {
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
        let mut stream = client(&server, head.as_bytes()).await;
        assert!(read_until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 405"));
        let chunk = [&b"100000\r\n"[..], &[7; 1 << 20], b"\r\n"].concat();
        soon(async { while stream.write_all(&chunk).await.is_ok() {} }).await;
    }
}

#[tokio::test]
async fn requests_whose_answers_are_not_taken_pile_up_nowhere() {
    let server = server(
        Limits {
            stall: Duration::from_millis(200),
            ..Limits::default()
        },
        &Signals::default(),
    )
    .await;
    // As many as the two sockets hold are answered; then no more are read, and in time the connection ends.
    let mut stream = client(&server, GET).await;
    let requests = GET.repeat(1000);
    soon(async { while stream.write_all(&requests).await.is_ok() {} }).await;
    let mut another = client(&server, GET).await;
    assert!(read_until(&mut another, "fast").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_503() {
    let server = server(
        Limits {
            connections: 1,
            ..Limits::default()
        },
        &Signals::default(),
    )
    .await;
    let mut first = client(&server, GET).await;
    read_until(&mut first, "fast").await;
    let mut second = client(&server, GET).await;
    let answer = read_until(&mut second, "}]}").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("UNAVAILABLE"),
        "{answer}"
    );
    assert!(is_closed(&mut second).await);
    drop((first, second));
    soon(async {
        while !read_until(&mut client(&server, GET).await, "\r\n")
            .await
            .starts_with("HTTP/1.1 200")
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let signals = Signals::default();
    let server = server(
        Limits {
            stall: Duration::from_millis(100),
            ..Limits::default()
        },
        &signals,
    )
    .await;
    let mut stream = client(&server, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut stream, "\r\n\r\n").await;
    soon(signals.dropped.notified()).await;
    let mut rest = Vec::new();
    let ended = soon(stream.read_to_end(&mut rest)).await;
    assert!(
        ended.is_err() || !rest.ends_with(b"0\r\n\r\n"),
        "an endless body was completed"
    );
}

#[tokio::test]
async fn shutdown_finishes_what_is_under_way() {
    let signals = Signals::default();
    let server = server(Limits::default(), &signals).await;
    let mut idle = client(&server, GET).await;
    read_until(&mut idle, "fast").await;
    let mut busy = client(&server, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    soon(signals.entered.notified()).await;
    server.shutdown.send(()).unwrap();
    assert!(is_closed(&mut idle).await);
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "still listening while draining"
    );
    assert!(!server.done.is_finished());
    signals.go.notify_one();
    assert!(read_until(&mut busy, "slow").await.starts_with("HTTP/1.1 200"));
    soon(server.done).await.unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let signals = Signals::default();
    let server = server(
        Limits {
            drain: Duration::from_millis(50),
            ..Limits::default()
        },
        &signals,
    )
    .await;
    let mut busy = client(&server, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    soon(signals.entered.notified()).await;
    server.shutdown.send(()).unwrap();
    soon(server.done).await.unwrap();
    assert!(is_closed(&mut busy).await);
}
