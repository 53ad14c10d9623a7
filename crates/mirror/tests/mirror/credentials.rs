//! What clients show, and what becomes of it.

use piece::Digest;
use wire::control::Failure;

use crate::node::{Mirror, code, failure, header};

const SECRET: &str = "Basic aGlkZGVuOmhpZGRlbg==";

fn paths() -> [String; 5] {
    [
        "/v2/".to_owned(),
        "/v2/a/manifests/v1".to_owned(),
        format!("/v2/a/manifests/{}", Digest::EMPTY),
        format!("/v2/a/blobs/{}", Digest::EMPTY),
        "/v2/a/tags/list".to_owned(),
    ]
}

#[tokio::test]
async fn what_a_client_shows_goes_to_the_node_with_each_request() {
    let mirror = Mirror::with(|config| config.challenge = config.default_registry.clone()).await;
    for path in paths() {
        for (sent, shown) in [
            (None, None),
            (Some(SECRET), Some(SECRET)),
            (Some("Bearer t"), Some("Bearer t")),
            (Some("Basic Og=="), None),
            (Some("Negotiate YII="), None),
        ] {
            for request in [mirror.get(&path), mirror.head(&path)] {
                let request = sent
                    .into_iter()
                    .fold(request, |request, sent| request.header("authorization", sent));
                request.send().await.unwrap();
                let seen = mirror.node.shown.lock().unwrap().pop().unwrap();
                assert_eq!(seen.as_deref(), shown, "{path} {sent:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_refused_before_the_node_is_asked() {
    let mirror = Mirror::start().await;
    for path in paths() {
        let long = format!("Bearer {}", "hidden".repeat(4000));
        let twice = mirror
            .get(&path)
            .header("authorization", SECRET)
            .header("authorization", "Bearer t");
        for request in [mirror.get(&path).header("authorization", long), twice] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status().as_u16(), 431);
            let text = response.text().await.unwrap();
            assert!(text.contains("UNAUTHORIZED") && !text.contains("hidden"), "{text}");
        }
    }
    assert!(mirror.node.shown.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_ping_is_the_registrys_where_the_operator_names_one() {
    let challenge = "Bearer realm=\"https://auth.example/token\",service=\"registry\"";
    let refusing = |mirror: &Mirror| {
        *mirror.node.failure.lock().unwrap() = Some(Failure {
            challenge: Some(challenge.to_owned()),
            ..failure(401)
        });
    };
    let open = Mirror::start().await;
    refusing(&open);
    assert_eq!(open.get("/v2/").send().await.unwrap().status().as_u16(), 200);
    let named = Mirror::with(|config| config.challenge = Some("quay.io".to_owned())).await;
    assert_eq!(named.get("/v2/").send().await.unwrap().status().as_u16(), 200);
    refusing(&named);
    for path in ["/v2/", "/v2", "/v2/?ns=ghcr.io"] {
        let response = named.get(path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 401, "{path}");
        assert_eq!(header(&response, "www-authenticate"), challenge);
        assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(code(response).await, "UNAUTHORIZED");
    }
    assert!(named.node.asked().contains(&"ping quay.io".to_owned()));
}
