//! On whose behalf a registry is asked: the node's, a client's, or a stranger's.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use piece::Digest;
use registry::{Client, Config};
use wire::Authorization;
use wire::control::{Access, Kind, Query, Upstream, UpstreamAnswer};

use crate::scripted::{Reply, Request, Server, client, config, data, open, read_all};

const CHALLENGE: &str = "Bearer realm=\"https://auth.example/token\",service=\"reg\"";

fn refused() -> Reply {
    Reply::new(401, "").with("www-authenticate", CHALLENGE)
}

fn bearer(token: &str) -> Authorization {
    Authorization::from_header(&format!("Bearer {token}")).unwrap().unwrap()
}

fn sent(server: &Server) -> Vec<Option<String>> {
    let requests = server.requests();
    requests
        .iter()
        .map(|request| request.authorization().map(str::to_owned))
        .collect()
}

/// The node's own credentials, as if the operator had given some.
fn client_of_an_operator(server: &Server, dir: &tempfile::TempDir) -> Client {
    let path = dir.path().join("config.json");
    let entry = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpoaWRkZW4="}}}}}}"#, server.address);
    std::fs::write(&path, entry).unwrap();
    Client::new(Config {
        docker_config: Some(path),
        ..config()
    })
    .unwrap()
}

#[tokio::test]
async fn a_clients_credential_is_shown_as_it_came_and_no_other() {
    let server = Server::start(|request, _| match request.authorization() {
        Some("bEaReR  right") => Reply::new(200, "{}").with("content-type", "a/b"),
        _ => refused(),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let node = client_of_an_operator(&server, &dir);
    let right = Authorization::from_header("bEaReR  right").unwrap().unwrap();
    let found = node
        .on_behalf(right)
        .head(&server.source(Kind::Manifest), &Digest::of(b"{}").to_string())
        .await;
    assert_eq!(found.unwrap().access, Access::Personal, "it says nothing of others");
    let wrong = node.on_behalf(bearer("wrong"));
    let upstream = Upstream {
        repository: server.repository(),
        query: Query::Tags { query: String::new() },
    };
    let failure = wrong.document(&upstream).await.unwrap_err().to_failure();
    assert_eq!((failure.status, failure.challenge.as_deref()), (401, Some(CHALLENGE)));
    assert!(!failure.message.contains("wrong") && !format!("{wrong:?}").contains("wrong"));
    let (right, wrong) = ("bEaReR  right".to_owned(), "Bearer wrong".to_owned());
    assert_eq!(
        sent(&server),
        [Some(right), Some(wrong)],
        "asked once each, with nothing else"
    );
}

#[tokio::test]
async fn a_stranger_is_told_what_the_registry_tells_strangers() {
    let server = Server::start(|request, _| match request.authorization() {
        Some(_) => Reply::new(200, "{}"),
        None => refused(),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let stranger = client_of_an_operator(&server, &dir).as_stranger();
    let error = stranger.head(&server.source(Kind::Manifest), "v1").await.unwrap_err();
    assert_eq!(error.to_failure().challenge.as_deref(), Some(CHALLENGE));
    assert_eq!(sent(&server), [None]);
}

#[tokio::test]
async fn a_403_to_an_anonymous_token_is_told_as_the_challenge_before_it() {
    let challenge = |request: &Request| {
        let host = request.header("host").unwrap();
        format!("Bearer realm=\"http://{host}/token\",service=\"reg\"")
    };
    let server = Server::start(move |request, _| match request.authorization() {
        _ if request.path.starts_with("/token") => Reply::new(200, r#"{"token":"anybody"}"#),
        Some(_) => Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
        None => Reply::new(401, "").with("www-authenticate", challenge(request)),
    })
    .await;
    let client = client();
    for _ in 0..2 {
        let error = client.manifest(&server.repository(), "v1").await.unwrap_err();
        let failure = error.to_failure();
        assert_eq!(failure.status, 401);
        assert!(
            failure.challenge.unwrap().contains("/token"),
            "a client learns where tokens come from"
        );
        assert!(failure.message.contains("DENIED"), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_token_that_may_end_is_used_once_for_a_whole_blob() {
    let bytes = data(300_000);
    let served = bytes.clone();
    let server = Server::start(move |request, before| match request.authorization() {
        Some("Bearer passing") if before == 0 => Reply::part(&served, request),
        Some("Basic dTpw") => Reply::part(&served, request),
        _ => refused(),
    })
    .await;
    let passing = client().on_behalf(bearer("passing"));
    for size in [None, Some(bytes.len() as u64)] {
        if size.is_some() {
            // By now the token has ended: there is no second answer.
            assert!(open(&passing, &server, &bytes, size, 0..1000).await.is_err());
            continue;
        }
        let blob = open(&passing, &server, &bytes, size, 0..1000).await.unwrap();
        assert_eq!((blob.size(), blob.access()), (bytes.len() as u64, Access::Personal));
        for part in [0..1000, 1000..150_000, 150_000..300_000] {
            let read = read_all(&blob, part.start as u64..part.end as u64).await.unwrap();
            assert_eq!(read, bytes[part]);
        }
    }
    let lasting = Authorization::from_header("Basic dTpw").unwrap().unwrap();
    let blob = open(&client().on_behalf(lasting), &server, &bytes, None, 0..1000)
        .await
        .unwrap();
    assert_eq!(read_all(&blob, 1000..2000).await.unwrap(), bytes[1000..2000]);
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.range().unwrap())
        .collect();
    assert_eq!(ranges.len(), 4);
    assert!(ranges[0].end > bytes.len() as u64, "as far as there is anything");
    assert_eq!(ranges[2..], [0..1000, 1000..2000], "a password lasts");
}

#[tokio::test]
async fn documents_of_a_client_are_its_own() {
    let server = Server::start(|request, _| match request.authorization() {
        Some("Basic dTpw") => Reply::new(200, r#"{"tags":[]}"#),
        _ => refused(),
    })
    .await;
    let client = client().on_behalf(Authorization::from_header("Basic dTpw").unwrap().unwrap());
    let upstream = Upstream {
        repository: server.repository(),
        query: Query::Tags { query: "n=1".into() },
    };
    let answer = client.document(&upstream).await.unwrap();
    assert!(
        matches!(
            answer,
            UpstreamAnswer::Document {
                access: Access::Personal,
                ..
            }
        ),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_operators_credentials_answer_whoever_speaks_in_the_registrys_name() {
    let server = Server::start(|request, _| match request.authorization() {
        Some("Basic dXNlcjpoaWRkZW4=") => Reply::new(200, r#"{"token":"for-the-user"}"#),
        _ => refused(),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (with, without) = (client_of_an_operator(&server, &dir), client());
    let found = async |client: &Client, challenge: &str| {
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap())]);
        let found = client.credential_for(&server.repository(), &headers).await;
        found.map(|found| found.map(|found| found.expose().to_owned()))
    };
    let bearer = format!("Bearer realm=\"http://{}/token\",service=\"reg\"", server.address);
    for (challenge, header) in [
        ("Basic realm=\"r\"", Some("Basic dXNlcjpoaWRkZW4=")),
        (bearer.as_str(), Some("Bearer for-the-user")),
        ("Negotiate", None),
    ] {
        assert_eq!(found(&with, challenge).await.unwrap().as_deref(), header, "{challenge}");
        assert_eq!(found(&without, challenge).await.unwrap(), None, "{challenge}");
    }
    let elsewhere = found(&with, "Bearer realm=\"ftp://elsewhere.example/\"")
        .await
        .unwrap_err();
    assert!(!elsewhere.to_string().contains("hidden"), "{elsewhere}");
}
