//! Which registry a request means, as the node sees it.

use reqwest::{Method, StatusCode};

use crate::node::{Mirror, code, header};

#[tokio::test]
async fn every_style_reaches_its_registry() {
    let mirror = Mirror::with(|config| {
        config.aliases.insert("hub".to_owned(), "docker.io".to_owned());
        config.registries.push("quay.io".to_owned());
    })
    .await;
    for (path, registry) in [
        (
            "/v2/org/model/manifests/v1?ns=localhost%3A5000",
            "localhost:5000 org/model",
        ),
        ("/v2/quay.io/org/model/manifests/v1", "quay.io org/model"),
        ("/v2/localhost__5000/org/model/manifests/v1", "localhost:5000 org/model"),
        ("/v2/hub/alpine/manifests/v1", "docker.io library/alpine"),
        ("/v2/org/model/manifests/v1", "registry.example.com org/model"),
    ] {
        mirror.get(path).send().await.unwrap();
        assert_eq!(mirror.node.asked(), [format!("resolve {registry} v1")], "{path}");
    }
}

#[tokio::test]
async fn ns_is_echoed_even_with_an_error() {
    let mirror = Mirror::start().await;
    mirror.node.tag("v1", "{}");
    for (tag, status) in [("v1", 200), ("v2", 404)] {
        let response = mirror
            .get(&format!("/v2/a/manifests/{tag}?ns=quay.io:443"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), header(&response, "oci-namespace")),
            (status, "quay.io:443")
        );
    }
    let response = mirror.get("/v2/a/manifests/v1").send().await.unwrap();
    assert!(response.headers().get("oci-namespace").is_none());
}

#[tokio::test]
async fn a_request_without_a_chance_is_answered_at_once() {
    let mirror = Mirror::with(|config| {
        config.allow = vec!["quay.io".to_owned()];
        config.default_registry = None;
    })
    .await;
    *mirror.node.is_stuck.lock().unwrap() = true;
    for (path, status, expected) in [
        ("/v2/org/model/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/org/model/manifests/v1?ns=docker.io", 404, "NAME_UNKNOWN"),
        ("/v2/ghcr.io/org/model/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/_catalog", 404, "NAME_UNKNOWN"),
        ("/v2/Org/model/manifests/v1?ns=quay.io", 400, "NAME_INVALID"),
        ("/v2/model/manifests/v1?ns=http://quay.io", 400, "NAME_INVALID"),
        (
            "/v2/quay.io/model/manifests/.INVALID_MANIFEST_NAME",
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            "/v2/quay.io/model/manifests/sha256:baddigeststring",
            400,
            "DIGEST_INVALID",
        ),
        ("/v2/quay.io/model/blobs/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("/v2/quay.io/model/referrers/md5:abc", 400, "DIGEST_INVALID"),
    ] {
        let response = mirror.get(path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(code(response).await, expected, "{path}");
    }
    assert!(mirror.node.asked().is_empty());
}

#[tokio::test]
async fn nothing_can_be_written() {
    let mirror = Mirror::start().await;
    for (method, path) in [
        (Method::POST, "/v2/org/model/blobs/uploads/"),
        (Method::PUT, "/v2/org/model/manifests/v1"),
        (Method::PATCH, "/v2/org/model/blobs/uploads/1"),
        (Method::DELETE, "/v2/org/model/manifests/v1"),
    ] {
        let url = format!("http://{}{path}", mirror.address);
        let response = mirror
            .client
            .request(method, url)
            .body("some bytes")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(header(&response, "allow"), "GET, HEAD");
        assert_eq!(code(response).await, "UNSUPPORTED");
    }
}
