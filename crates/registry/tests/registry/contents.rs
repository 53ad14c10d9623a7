//! Manifests, probes, and documents that are passed through.

use std::sync::Arc;
use std::time::Instant;

use piece::{Blob, Digest};
use registry::{Config, Fault, Lie, RegistryError, RequestKind};
use wire::control::{Access, Kind, Query, Upstream, UpstreamAnswer};

use crate::scripted::{Counts, Reply, Server, Then, client, config};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest() -> Reply {
    Reply::new(200, MANIFEST)
        .with("content-type", format!("{MANIFEST_TYPE}; charset=utf-8"))
        .with("docker-content-digest", Digest::of(MANIFEST))
}

#[tokio::test]
async fn a_manifest_is_one_request() {
    let server = Server::start(|_, _| manifest()).await;
    let counts = Arc::new(Counts::default());
    let client = client().with_meter(counts.clone());
    let read = client.manifest(&server.repository(), "v1").await.unwrap();
    assert_eq!((read.body.as_slice(), read.digest), (MANIFEST, Digest::of(MANIFEST)));
    assert_eq!((read.media_type.as_str(), read.access), (MANIFEST_TYPE, Access::Public));
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", "/v2/org/model/manifests/v1")
    );
    assert_eq!(request.header("user-agent"), Some("packswarm/test (seed; me)"));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    let accept = request.header("accept").unwrap();
    assert!(accept.contains(MANIFEST_TYPE) && accept.contains("application/vnd.oci.image.index.v1+json"));
    assert_eq!(*counts.requests.lock().unwrap(), [RequestKind::Manifest]);
    assert_eq!(
        counts.bytes.load(std::sync::atomic::Ordering::Relaxed),
        MANIFEST.len() as u64
    );
}

#[tokio::test]
async fn a_manifest_must_have_the_digest_that_is_asked_for_and_said() {
    let server = Server::start(|_, before| match before {
        0 => manifest().with("content-type", MANIFEST_TYPE),
        _ => Reply::new(200, MANIFEST).with("docker-content-digest", Digest::EMPTY),
    })
    .await;
    let other = Digest::of(b"other");
    let asked = client()
        .manifest(&server.repository(), &other.to_string())
        .await
        .unwrap_err();
    let said = client().manifest(&server.repository(), "v1").await.unwrap_err();
    for (error, wrong) in [(asked, other), (said, Digest::EMPTY)] {
        assert_eq!(
            (error.fault(), error.status(), error.is_retryable()),
            (Fault::Registry, 502, false)
        );
        let RegistryError::Misbehaved {
            lie: Lie::Digest { expected, actual },
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((expected, actual), (wrong, Digest::of(MANIFEST)));
    }
}

#[tokio::test]
async fn a_manifest_is_bounded() {
    let server = Server::start(|_, before| {
        let mut reply = Reply::new(200, vec![b' '; 2000]);
        if before == 1 {
            reply.length = Some(None);
            reply.then = Then::Close;
        }
        reply
    })
    .await;
    let client = registry::Client::new(Config {
        max_manifest: 1000,
        ..config()
    })
    .unwrap();
    for _ in 0..2 {
        let error = client.manifest(&server.repository(), "v1").await.unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::Misbehaved {
                    lie: Lie::TooLarge(1000),
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_registrys_status_is_the_clients() {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let server = Server::start(move |_, _| Reply::new(404, body)).await;
    let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
    let failure = error.to_failure();
    assert_eq!(
        (failure.status, failure.retry_after, failure.challenge),
        (404, None, None)
    );
    assert!(
        failure.message.contains("/v2/org/model/manifests/v1"),
        "{}",
        failure.message
    );
    assert!(
        failure.message.contains("404: MANIFEST_UNKNOWN manifest unknown"),
        "{}",
        failure.message
    );
    assert_eq!(server.requests().len(), 1, "a 404 is not asked again");
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    let server = Server::start(|_, before| match before {
        0 => Reply::new(503, ""),
        1 => Reply::new(500, ""),
        2 => manifest().cut(10, Then::Close),
        _ => manifest(),
    })
    .await;
    assert_eq!(
        client().manifest(&server.repository(), "v1").await.unwrap().body,
        MANIFEST
    );
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn retry_after_is_kept_to_or_passed_up() {
    let server = Server::start(|request, before| match (request.path.ends_with("soon"), before) {
        (true, 0) => Reply::new(429, "").with("retry-after", 1),
        (true, _) => manifest(),
        (false, _) => Reply::new(429, "").with("retry-after", 3600),
    })
    .await;
    let begun = Instant::now();
    client().manifest(&server.repository(), "soon").await.unwrap();
    assert!(begun.elapsed().as_millis() >= 1000, "{:?}", begun.elapsed());
    let failure = client()
        .manifest(&server.repository(), "late")
        .await
        .unwrap_err()
        .to_failure();
    assert_eq!((failure.status, failure.retry_after), (429, Some(3600)));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_spent_quota_is_told_as_docker_hub_tells_it() {
    let server = Server::start(|_, _| {
        Reply::new(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#,
        )
        .with("ratelimit-limit", "100;w=21600")
        .with("ratelimit-remaining", "0;w=21600")
        .with("retry-after", 3600)
    })
    .await;
    let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
    let failure = error.to_failure();
    assert_eq!((failure.status, failure.retry_after), (429, Some(3600)));
    for part in ["TOOMANYREQUESTS pull rate limit", "rate limit 100 in 21600 s, 0 left"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(server.requests().len(), 1, "it is not asked again before its time");
}

#[tokio::test]
async fn attempts_are_counted() {
    let server = Server::start(|_, _| Reply::new(503, "")).await;
    let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
    assert_eq!((error.to_failure().status, error.is_retryable()), (503, true));
    assert_eq!(server.requests().len(), 4, "one attempt and three more");
}

#[tokio::test]
async fn a_silent_registry_is_504_and_an_absent_one_502() {
    let server = Server::start(|_, _| Reply {
        then: Then::Stall,
        ..manifest().cut(0, Then::Stall)
    })
    .await;
    let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
    assert_eq!((error.status(), error.fault()), (504, Fault::Network));
    let repository = server.repository();
    drop(server);
    let error = client().manifest(&repository, "v1").await.unwrap_err();
    assert_eq!((error.status(), error.fault()), (502, Fault::Network));
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let server = Server::start(|_, _| manifest().with("content-encoding", "gzip")).await;
    let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Misbehaved {
                lie: Lie::Encoded(_),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_tag_is_resolved_by_head() {
    let server = Server::start(|_, _| manifest()).await;
    let head = client().head(&server.source(Kind::Manifest), "v1").await.unwrap();
    assert_eq!(
        head.blob,
        Blob {
            digest: Digest::of(MANIFEST),
            size: MANIFEST.len() as u64
        }
    );
    assert_eq!((head.media_type.as_str(), head.access), (MANIFEST_TYPE, Access::Public));
    assert_eq!(server.requests()[0].method, "HEAD");
}

#[tokio::test]
async fn a_registry_without_head_is_asked_by_get() {
    for first in [Reply::new(405, ""), Reply::new(200, "")] {
        let server = Server::start(move |request, _| {
            if request.method == "HEAD" {
                first.clone()
            } else {
                manifest()
            }
        });
        let server = server.await;
        let head = client().head(&server.source(Kind::Manifest), "v1").await.unwrap();
        assert_eq!(
            head.blob,
            Blob {
                digest: Digest::of(MANIFEST),
                size: MANIFEST.len() as u64
            }
        );
    }
}

#[tokio::test]
async fn documents_are_passed_through() {
    let server = Server::start(|request, _| match request.path.as_str() {
        "/v2/org/model/tags/list?n=2&last=a" => Reply::new(200, r#"{"tags":["b","c"]}"#)
            .with("content-type", "application/json; charset=utf-8")
            .with("link", "</v2/org/model/tags/list?n=2&last=c>; rel=\"next\""),
        path if path.contains("/referrers/") => Reply::new(200, "{}")
            .with("content-type", "application/vnd.oci.image.index.v1+json")
            .with("oci-filters-applied", "artifactType"),
        path if path.contains("/blobs/") => Reply::new(200, "12345"),
        _ => Reply::new(404, ""),
    })
    .await;
    let client = client();
    let ask = |query| {
        client.document(Box::leak(Box::new(Upstream {
            repository: server.repository(),
            query,
        })))
    };
    let tags = ask(Query::Tags {
        query: "n=2&last=a".into(),
    })
    .await
    .unwrap();
    let UpstreamAnswer::Document {
        body,
        media_type,
        link,
        filters,
        access,
    } = tags
    else {
        panic!("{tags:?}")
    };
    assert_eq!(
        (body.as_slice(), media_type.as_str()),
        (&br#"{"tags":["b","c"]}"#[..], "application/json")
    );
    assert_eq!(
        link.as_deref(),
        Some("</v2/org/model/tags/list?n=2&last=c>; rel=\"next\"")
    );
    assert_eq!((filters, access), (None, Access::Public));

    let digest = Digest::of(b"x");
    let referrers = ask(Query::Referrers {
        digest,
        query: String::new(),
    })
    .await
    .unwrap();
    let UpstreamAnswer::Document { filters, .. } = referrers else {
        panic!("{referrers:?}")
    };
    assert_eq!(filters.as_deref(), Some("artifactType"));
    assert_eq!(server.requests()[1].path, format!("/v2/org/model/referrers/{digest}"));

    let probe = ask(Query::Probe {
        digest,
        kind: Kind::Blob,
    })
    .await
    .unwrap();
    let UpstreamAnswer::Content { blob, .. } = probe else {
        panic!("{probe:?}")
    };
    assert_eq!(blob, Blob { digest, size: 5 });
    assert_eq!(ask(Query::Tag { tag: "gone".into() }).await.unwrap_err().status(), 404);
}

#[tokio::test]
async fn every_request_can_run_in_a_task_of_its_own() {
    let server = Server::start(|_, _| manifest()).await;
    let (client, repository, digest) = (client(), server.repository(), Digest::of(MANIFEST));
    let source = server.source(Kind::Manifest);
    let task = tokio::spawn(async move {
        client.manifest(&repository, "v1").await?;
        client.head(&source, "v1").await?;
        client
            .document(&Upstream {
                repository,
                query: Query::Tag { tag: "v1".into() },
            })
            .await?;
        client.blob(&source, &digest, None, 0..10).await
    });
    assert_eq!(task.await.unwrap().unwrap().size(), MANIFEST.len() as u64);
}
