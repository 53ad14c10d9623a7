//! What a registry may send at most, each gone past. `a_manifest_is_bounded` and `where_no_redirect_may_lead` are elsewhere.

use registry::RegistryError;
use wire::control::{MAX_RELAYED_BODY, Query, Upstream};

use crate::scripted::{Reply, Server, Then, client};

/// What `client` makes of one such reply to the question for all tags.
async fn tags(reply: Reply) -> Result<wire::control::UpstreamAnswer, RegistryError> {
    let server = Server::start(move |_, _| reply.clone()).await;
    let upstream = Upstream {
        repository: server.repository(),
        query: Query::Tags { query: String::new() },
    };
    client().document(&upstream).await
}

#[tokio::test]
async fn heads_of_answers_are_bounded_in_bytes_and_count() {
    let many = (0..200).fold(Reply::new(200, "{}"), |reply, n| reply.with("x-many", n));
    let long = Reply::new(200, "{}").with("x-long", "x".repeat(1 << 20));
    let endless = (0..90).fold(Reply::new(200, "{}"), |reply, _| {
        reply.with("x-some", "x".repeat(10_000))
    });
    for (what, reply) in [("many", many), ("long", long), ("endless", endless)] {
        let error = tags(reply).await.unwrap_err();
        assert_eq!(error.status(), 502, "{what}: {error}");
        let told = error.to_string();
        assert!(told.len() < 1000, "{what}: an error of {} bytes", told.len());
    }
    assert!(
        tags(Reply::new(200, "{}").with("x-long", "x".repeat(20_000)))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn documents_are_bounded_whether_announced_or_not() {
    let long = vec![b' '; MAX_RELAYED_BODY + 1];
    let announced = Reply::new(200, long.clone());
    let mut unannounced = Reply::new(200, long);
    (unannounced.length, unannounced.then) = (Some(None), Then::Close);
    for reply in [announced, unannounced] {
        let error = tags(reply).await.unwrap_err();
        assert!(error.to_string().contains("exceeds the 786432 bytes"), "{error}");
        assert_eq!(error.status(), 502);
    }
    assert!(tags(Reply::new(200, vec![b' '; MAX_RELAYED_BODY])).await.is_ok());
}

#[tokio::test]
async fn headers_that_are_passed_on_are_bounded() {
    let link = |length| Reply::new(200, "{}").with("link", "x".repeat(length));
    assert!(tags(link(8 << 10)).await.is_ok());
    assert_eq!(tags(link((8 << 10) + 1)).await.unwrap_err().status(), 502);
    let refused = |length| {
        let challenge = format!("Basic realm=\"{}\"", "x".repeat(length - "Basic realm=\"\"".len()));
        Reply::new(401, "").with("www-authenticate", challenge)
    };
    let challenge = async |length| tags(refused(length)).await.unwrap_err().to_failure().challenge;
    assert_eq!(challenge(1024).await.map(|text| text.len()), Some(1024));
    assert_eq!(challenge(1025).await, None, "too long to be passed on");
}

#[tokio::test]
async fn an_error_is_told_whatever_its_body() {
    let endless = Reply::new(404, vec![b'x'; 1 << 20]);
    let stalled = Reply::new(404, vec![b'x'; 100]).cut(10, Then::Stall);
    let message = r#"{"errors":[{"code":"C","message":"MESSAGE"}]}"#.replace("MESSAGE", &"m".repeat(10_000));
    for reply in [endless, stalled, Reply::new(404, message)] {
        let failure = tags(reply).await.unwrap_err().to_failure();
        assert_eq!(failure.status, 404);
        assert!(
            failure.message.len() < 1000,
            "a message of {} bytes",
            failure.message.len()
        );
    }
}

#[tokio::test]
async fn the_answer_of_a_token_endpoint_is_bounded() {
    for (length, works) in [(200 << 10, true), (256 << 10, false)] {
        let server = Server::start(move |request, _| {
            if request.path.starts_with("/token") {
                return Reply::new(200, format!(r#"{{"token":"t","of":"{}"}}"#, "g".repeat(length)));
            }
            if request.authorization() == Some("Bearer t") {
                return Reply::new(200, "{}");
            }
            let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
            Reply::new(401, "").with("www-authenticate", realm)
        })
        .await;
        let read = client().manifest(&server.repository(), "v1").await;
        match read {
            Ok(_) => assert!(works),
            Err(error) => {
                assert!(!works && matches!(error, RegistryError::Token { .. }), "{error}");
                assert!(error.to_string().contains("exceeds the 262144 bytes"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_registry_that_is_never_content_is_left_in_time() {
    // Each refusal names another token endpoint, and each token is refused: there is always something left to try.
    let server = Server::start(|request, before| {
        if request.path.starts_with("/token") {
            return Reply::new(200, format!(r#"{{"token":"t{before}"}}"#));
        }
        let realm = format!("http://{}/token/{before}", request.header("host").unwrap());
        Reply::new(401, "").with("www-authenticate", format!("Bearer realm=\"{realm}\""))
    })
    .await;
    let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
    assert_eq!(error.status(), 401, "{error}");
    let asked = server.requests().len();
    assert!(asked <= 12, "{asked} requests");
}
