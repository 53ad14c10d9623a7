//! Bodies that arrive while they are sent, that fail, and clients that go away or take their time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node::{Mirror, Then, header, soon, until};

#[tokio::test]
async fn the_head_comes_before_any_byte_and_bytes_as_they_arrive() {
    let mirror = Mirror::start().await;
    let (digest, content) = mirror.node.add_arriving(Bytes::from(vec![5; 100_000]), None, 0);
    let mut response = soon(mirror.get(&format!("/v2/a/blobs/{digest}")).send()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-length"), "100000");
    let mut received = 0;
    for arrived in [1, 70_000, 99_999, 100_000] {
        content.arrive(arrived);
        while received < arrived {
            received += soon(response.chunk()).await.unwrap().unwrap().len() as u64;
        }
        assert_eq!(received, arrived);
    }
    assert!(soon(response.chunk()).await.unwrap().is_none());
    until(|| content.readers.load(Ordering::Relaxed) == 0).await;
    assert_eq!(mirror.node.metered_bytes.load(Ordering::Relaxed), 100_000);
}

#[tokio::test]
async fn a_body_that_fails_is_cut_and_never_completed() {
    let mirror = Mirror::start().await;
    for (number, then) in [Then::Fail, Then::End, Then::Overrun].into_iter().enumerate() {
        let (digest, content) = mirror
            .node
            .add_arriving(Bytes::from(vec![number as u8; 100_000]), None, 50_000);
        let response = mirror.get(&format!("/v2/a/blobs/{digest}")).send().await.unwrap();
        content.then(then);
        assert!(soon(response.bytes()).await.is_err());
        until(|| content.readers.load(Ordering::Relaxed) == 0).await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_cut() {
    let mirror = Mirror::with(|config| config.stall_timeout = Duration::from_millis(50)).await;
    let (digest, content) = mirror.node.add_arriving(Bytes::from(vec![5; 100_000]), None, 50_000);
    let response = mirror.get(&format!("/v2/a/blobs/{digest}")).send().await.unwrap();
    assert!(soon(response.bytes()).await.is_err());
    until(|| content.readers.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_only_its_own_stream() {
    let mirror = Mirror::start().await;
    let (digest, content) = mirror.node.add_arriving(Bytes::from(vec![5; 100_000]), None, 50_000);
    let path = format!("/v2/a/blobs/{digest}");
    let stays = mirror.get(&path).send().await.unwrap();
    let goes = mirror.get(&path).send().await.unwrap();
    until(|| content.readers.load(Ordering::Relaxed) == 2).await;
    drop(goes);
    until(|| content.readers.load(Ordering::Relaxed) == 1).await;
    content.arrive(100_000);
    assert_eq!(soon(stays.bytes()).await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_frees_its_place() {
    let mirror = Mirror::with(|config| config.max_requests = 1).await;
    mirror.node.tag("v1", "{}");
    *mirror.node.is_stuck.lock().unwrap() = true;
    let waiting = tokio::spawn(mirror.get("/v2/a/manifests/v1").send());
    soon(mirror.node.entered.notified()).await;
    *mirror.node.is_stuck.lock().unwrap() = false;
    waiting.abort();
    soon(async { while mirror.get("/v2/a/manifests/v1").send().await.unwrap().status() != StatusCode::OK {} }).await;
}

#[tokio::test]
async fn a_slow_client_holds_no_memory() {
    const SIZE: u64 = 64 << 20;
    let mirror = Mirror::start().await;
    let (digest, content) = mirror.node.add(vec![5; SIZE as usize], None);
    let mut stream = TcpStream::connect(mirror.address).await.unwrap();
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // Until nothing more fits into the sockets' buffers.
    let given = || content.given.load(Ordering::Relaxed);
    soon(async {
        let mut before = u64::MAX;
        while before != given() {
            before = given();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(
        given() > 0 && given() < SIZE / 2,
        "{} bytes were asked for that nobody took",
        given()
    );
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() as u64 > SIZE && given() == SIZE);
}

#[tokio::test]
async fn a_connection_is_used_again_after_every_kind_of_answer() {
    let mirror = Mirror::start().await;
    let (digest, _) = mirror.node.add(&b"0123456789"[..], None);
    let mut stream = TcpStream::connect(mirror.address).await.unwrap();
    for (request, end) in [
        (
            format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n"),
            "0123456789",
        ),
        (
            format!("HEAD /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n"),
            "\r\n\r\n",
        ),
        (
            format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\nrange: bytes=1-2\r\n\r\n"),
            "\r\n\r\n12",
        ),
        (
            format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\nrange: bytes=10-\r\n\r\n"),
            "\r\n\r\n",
        ),
        ("GET /v2/a/manifests/none HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "]}"),
        (
            "HEAD /v2/a/manifests/none HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            "\r\n\r\n",
        ),
        ("GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "{}"),
    ] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon(async {
            while !answer.ends_with(end.as_bytes()) {
                answer.push(stream.read_u8().await.unwrap());
            }
        })
        .await;
        assert!(
            answer.starts_with(b"HTTP/1.1 "),
            "{request}{}",
            String::from_utf8_lossy(&answer)
        );
    }
}
