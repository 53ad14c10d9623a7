//! What clients see when the node or the registry fails, or there is too much to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mirror::{Config, ConfigError, RequestKind};
use piece::Digest;
use wire::control::Failure;

use crate::node::{Mirror, Node, NodeMeter, code, failure, header, soon, until};

#[tokio::test]
async fn failures_have_the_registrys_status_and_the_right_code() {
    let mirror = Mirror::start().await;
    let blob = format!("/v2/a/blobs/{}", Digest::EMPTY);
    let referrers = format!("/v2/a/referrers/{}", Digest::EMPTY);
    let manifest = "/v2/a/manifests/v1";
    for (status, path, expected, expected_code) in [
        (401, manifest, 401, "UNAUTHORIZED"),
        (403, manifest, 403, "DENIED"),
        (404, manifest, 404, "MANIFEST_UNKNOWN"),
        (404, &blob, 404, "BLOB_UNKNOWN"),
        (404, "/v2/a/tags/list", 404, "NAME_UNKNOWN"),
        (404, &referrers, 404, "MANIFEST_UNKNOWN"),
        (405, &blob, 405, "UNSUPPORTED"),
        (408, &blob, 504, "UNAVAILABLE"),
        (429, &blob, 503, "TOOMANYREQUESTS"),
        (500, &blob, 500, "UNAVAILABLE"),
        (503, manifest, 503, "UNAVAILABLE"),
        (599, manifest, 599, "UNAVAILABLE"),
        (200, manifest, 502, "UNAVAILABLE"),
        (0, manifest, 502, "UNAVAILABLE"),
        (65535, manifest, 502, "UNAVAILABLE"),
    ] {
        *mirror.node.failure.lock().unwrap() = Some(failure(status));
        let response = mirror.get(path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{status} {path}");
        assert_eq!(code(response).await, expected_code, "{status} {path}");
        let head = mirror.head(path).send().await.unwrap();
        assert_eq!(head.status().as_u16(), expected, "HEAD {status} {path}");
    }
}

#[tokio::test]
async fn challenges_and_pauses_are_relayed() {
    let mirror = Mirror::start().await;
    let challenge = r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a:pull""#;
    let with = |status, retry_after, challenge: Option<&str>| {
        let challenge = challenge.map(str::to_owned);
        *mirror.node.failure.lock().unwrap() = Some(Failure {
            retry_after,
            challenge,
            ..failure(status)
        });
        mirror.get("/v2/a/manifests/v1").send()
    };
    let response = with(401, None, Some(challenge)).await.unwrap();
    assert_eq!(header(&response, "www-authenticate"), challenge);
    let response = with(429, Some(17), None).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), header(&response, "retry-after")),
        (503, "17")
    );
    let response = with(401, None, Some("Basic\r\nset-cookie: x=y")).await.unwrap();
    assert!(response.headers().get("www-authenticate").is_none() && response.headers().get("set-cookie").is_none());
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_a_timeout() {
    let mirror = Mirror::with(|config| config.answer_timeout = Duration::from_millis(50)).await;
    *mirror.node.is_stuck.lock().unwrap() = true;
    let response = soon(mirror.get("/v2/a/manifests/v1").send()).await.unwrap();
    assert_eq!(response.status().as_u16(), 504);
    assert_eq!(code(response).await, "UNAVAILABLE");
}

#[tokio::test]
async fn under_load_new_pulls_are_refused_before_blobs_of_old_ones() {
    let mirror = Mirror::with(|config| config.max_requests = 2).await;
    mirror.node.tag("v1", "{}");
    let (digest, content) = mirror.node.add_arriving(Bytes::from(vec![1; 4096]), None, 1);
    let blob = format!("/v2/a/blobs/{digest}");
    let mut pulls = Vec::new();
    for number in 0..4 {
        let manifest = mirror.get("/v2/a/manifests/v1").send().await.unwrap();
        assert_eq!(manifest.status().as_u16(), if number < 2 { 200 } else { 503 });
        drop(manifest.bytes().await.unwrap());
        pulls.push(mirror.get(&blob).send().await.unwrap());
        assert_eq!(pulls[number].status().as_u16(), 200);
    }
    let response = mirror.get(&blob).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(code(response).await, "UNAVAILABLE");
    content.arrive(4096);
    for pull in pulls {
        assert_eq!(pull.bytes().await.unwrap().len(), 4096);
    }
    soon(async { while mirror.get("/v2/a/manifests/v1").send().await.unwrap().status().as_u16() != 200 {} }).await;
    let metered = mirror.node.metered.lock().unwrap();
    assert_eq!(
        metered
            .iter()
            .filter(|request| **request == (RequestKind::Blob, 503))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_page_that_cannot_be_followed_is_not_passed_on() {
    let mirror = Mirror::start().await;
    *mirror.node.document.lock().unwrap() = Some(mirror::Document {
        body: Bytes::from_static(b"{}"),
        media_type: "application/json".to_owned(),
        link: Some("</v2/a/tags/list/page/2>; rel=\"next\"".to_owned()),
        filters: None,
    });
    let response = mirror.get("/v2/a/tags/list").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 502);
    assert_eq!(code(response).await, "UNAVAILABLE");
}

#[tokio::test]
async fn documents_which_are_held_in_memory_are_few_at_a_time() {
    let mirror = Mirror::start().await;
    *mirror.node.is_stuck.lock().unwrap() = true;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..32 {
        waiting.spawn(mirror.get("/v2/a/tags/list").send());
    }
    until(|| mirror.node.asked.lock().unwrap().len() == 32).await;
    let response = mirror.get("/v2/a/tags/list").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 503);
    waiting.abort_all();
    *mirror.node.is_stuck.lock().unwrap() = false;
    soon(async { while mirror.get("/v2/a/tags/list").send().await.unwrap().status().as_u16() != 404 {} }).await;
}

#[tokio::test]
async fn a_mirror_that_could_serve_nothing_does_not_start() {
    let config = Config {
        max_requests: 0,
        ..Config::default()
    };
    let node = Arc::new(Node::default());
    let router = mirror::router(&config, Arc::clone(&node), Arc::new(NodeMeter(node)));
    assert_eq!(router.err(), Some(ConfigError::NoRequests));
}
