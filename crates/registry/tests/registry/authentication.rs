//! Tokens, Basic, and whose content is public.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use piece::Digest;
use registry::{Client, Config, Credentials, Fault, RegistryConfig, RegistryError, RequestKind};
use wire::control::{Access, Kind};

use crate::scripted::{Counts, Reply, Request, Server, client, config, data, read_all};

const USER: &str = "Basic dXNlcjpoaWRkZW4="; // user:hidden

/// A client with `user:hidden` for `server`.
fn client_for(server: &Server, dir: &tempfile::TempDir) -> Client {
    let path = dir.path().join("config.json");
    std::fs::write(
        &path,
        format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpoaWRkZW4="}}}}}}"#, server.address),
    )
    .unwrap();
    Client::new(Config {
        docker_config: Some(path),
        ..config()
    })
    .unwrap()
}

fn host(request: &Request) -> &str {
    request.header("host").unwrap()
}

fn challenge(request: &Request) -> Reply {
    let scope = "repository:org/model:pull";
    let text = format!(
        r#"Bearer realm="http://{}/token",service="reg",scope="{scope}""#,
        host(request)
    );
    Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).with("www-authenticate", text)
}

fn token(text: &str) -> Reply {
    Reply::new(200, format!(r#"{{"token":"{text}","expires_in":300}}"#))
}

#[tokio::test]
async fn an_anonymous_token_keeps_content_public() {
    let server = Server::start(|request, _| match (request.path.as_str(), request.authorization()) {
        ("/token?service=reg&scope=repository%3Aorg%2Fmodel%3Apull", None) => token("anybody"),
        (path, Some("Bearer anybody")) if path.contains("manifests") => Reply::new(200, "{}"),
        _ => challenge(request),
    })
    .await;
    let client = client();
    for _ in 0..3 {
        assert_eq!(
            client.manifest(&server.repository(), "v1").await.unwrap().access,
            Access::Public
        );
    }
    assert_eq!(
        server.requests().len(),
        5,
        "refused, token, and then three times at once"
    );
}

#[tokio::test]
async fn credentials_are_used_only_after_anonymity_was_refused() {
    let server = Server::start(
        |request, _| match (request.path.starts_with("/token"), request.authorization()) {
            (true, None) => token("too-little"),
            (true, Some(USER)) => token("enough"),
            (false, Some("Bearer enough")) => Reply::new(200, "{}"),
            _ => challenge(request),
        },
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let client = client_for(&server, &dir);
    for _ in 0..2 {
        assert_eq!(
            client.manifest(&server.repository(), "v1").await.unwrap().access,
            Access::Private
        );
    }
    let sent: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.authorization().map(str::to_owned))
        .collect();
    let sent: Vec<_> = sent.iter().map(Option::as_deref).collect();
    let bearer = |text| Some(text);
    let (little, enough) = (bearer("Bearer too-little"), bearer("Bearer enough"));
    assert_eq!(sent, [None, None, little, Some(USER), enough, enough]);
}

#[tokio::test]
async fn a_token_endpoint_that_refuses_anonymity_gets_credentials() {
    let server = Server::start(
        |request, _| match (request.path.starts_with("/token"), request.authorization()) {
            (true, Some(USER)) => token("enough"),
            (true, _) => Reply::new(403, ""),
            (false, Some("Bearer enough")) => Reply::new(200, "{}"),
            _ => challenge(request),
        },
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let read = client_for(&server, &dir)
        .manifest(&server.repository(), "v1")
        .await
        .unwrap();
    assert_eq!(read.access, Access::Private);
    let failure = client()
        .manifest(&server.repository(), "v1")
        .await
        .unwrap_err()
        .to_failure();
    assert_eq!(failure.status, 401);
    assert!(
        failure
            .challenge
            .is_some_and(|challenge| challenge.starts_with("Bearer realm="))
    );
}

#[tokio::test]
async fn a_failing_token_endpoint_is_an_error_and_never_anonymity() {
    for (reply, status) in [
        (Reply::new(500, ""), 502),
        (Reply::new(503, ""), 503),
        (Reply::new(200, "{}"), 502),
        (Reply::new(200, "not json"), 502),
        (Reply::redirect(302, "http://elsewhere.example/"), 502),
    ] {
        let server = Server::start(move |request, _| {
            if request.path.starts_with("/token") {
                reply.clone()
            } else {
                challenge(request)
            }
        })
        .await;
        let error = client().manifest(&server.repository(), "v1").await.unwrap_err();
        assert!(matches!(error, RegistryError::Token { .. }), "{error}");
        assert_eq!(error.status(), status, "{error}");
        let anonymous = server
            .requests()
            .iter()
            .filter(|request| request.path.contains("manifests"))
            .count();
        assert_eq!(anonymous, 1, "only the request that learnt of the token endpoint");
    }
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_is_renewed() {
    let data = data(1000);
    let (digest, served) = (Digest::of(&data), data.clone());
    let valid = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&valid);
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/token") {
            return token(&format!("t{}", current.fetch_add(1, Ordering::Relaxed) + 1));
        }
        let right = format!("Bearer t{}", current.load(Ordering::Relaxed));
        if request.authorization() == Some(&right) {
            Reply::part(&served, request)
        } else {
            challenge(request)
        }
    })
    .await;
    let blob = client()
        .blob(&server.source(Kind::Blob), &digest, None, 0..500)
        .await
        .unwrap();
    assert_eq!(read_all(&blob, 0..500).await.unwrap(), data[..500]);
    // The registry forgets the token long before it should expire.
    valid.fetch_add(1, Ordering::Relaxed);
    assert_eq!(read_all(&blob, 500..1000).await.unwrap(), data[500..]);
    let tokens = server
        .requests()
        .iter()
        .filter(|request| request.path.starts_with("/token"))
        .count();
    assert_eq!((tokens, blob.access()), (2, Access::Public));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_by_one_request() {
    let life = Arc::new(AtomicU64::new(0));
    let seconds = Arc::clone(&life);
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/token") {
            let seconds = seconds.load(Ordering::Relaxed);
            return Reply::new(200, format!(r#"{{"access_token":"t","expires_in":{seconds}}}"#));
        }
        if request.authorization() == Some("Bearer t") {
            Reply::new(200, "{}")
        } else {
            challenge(request)
        }
    })
    .await;
    let counts = Arc::new(Counts::default());
    let client = client().with_meter(counts.clone());
    let tokens = || {
        counts
            .requests
            .lock()
            .unwrap()
            .iter()
            .filter(|kind| **kind == RequestKind::Token)
            .count()
    };
    client.manifest(&server.repository(), "v1").await.unwrap();
    life.store(3600, Ordering::Relaxed);
    client.manifest(&server.repository(), "v1").await.unwrap();
    assert_eq!(tokens(), 2, "the first one had no life");
    let repository = server.repository();
    let reads = (0..8).map(|_| client.manifest(&repository, "v1"));
    assert!(futures_join(reads).await.iter().all(Result::is_ok));
    assert_eq!(tokens(), 2);
}

/// Runs all at once.
async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in running.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn basic_from_a_file() {
    let server = Server::start(|request, _| match request.authorization() {
        Some(USER) => Reply::new(200, "{}"),
        _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, "user:hidden\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let registry = RegistryConfig {
        credentials: Some(Credentials::File(path.clone())),
        ..RegistryConfig::default()
    };
    let registries = [(server.address.to_string(), registry)].into();
    let client = Client::new(Config {
        registries,
        reprobe: Duration::from_secs(3600),
        ..config()
    })
    .unwrap();
    for _ in 0..2 {
        assert_eq!(
            client.manifest(&server.repository(), "v1").await.unwrap().access,
            Access::Private
        );
    }
    assert_eq!(server.requests().len(), 3, "the first one anonymous");

    // A password that is no longer right is the registry's 401, with its challenge; a file that is gone, the operator's.
    std::fs::write(&path, "user:wrong").unwrap();
    let fresh = Client::new(client_config(&server, &path)).unwrap();
    let failure = fresh
        .manifest(&server.repository(), "v1")
        .await
        .unwrap_err()
        .to_failure();
    assert_eq!(
        (failure.status, failure.challenge.as_deref()),
        (401, Some("Basic realm=\"r\""))
    );
    std::fs::remove_file(&path).unwrap();
    let error = fresh.manifest(&server.repository(), "v1").await.unwrap_err();
    assert_eq!((error.fault(), error.status()), (Fault::Operator, 502));
}

fn client_config(server: &Server, path: &std::path::Path) -> Config {
    let credentials = Some(Credentials::File(path.to_path_buf()));
    let registry = RegistryConfig {
        credentials,
        ..RegistryConfig::default()
    };
    Config {
        registries: [(server.address.to_string(), registry)].into(),
        ..config()
    }
}

#[tokio::test]
async fn without_credentials_the_challenge_goes_up() {
    let server = Server::start(|_, _| Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\"")).await;
    let failure = client()
        .manifest(&server.repository(), "v1")
        .await
        .unwrap_err()
        .to_failure();
    assert_eq!(
        (failure.status, failure.challenge.as_deref()),
        (401, Some("Basic realm=\"r\""))
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_private_repository_is_tried_anonymously_again_after_a_while() {
    let server = Server::start(|request, before| match request.authorization() {
        None if before == 0 => Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
        _ => Reply::new(200, "{}"),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(
        &path,
        format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpoaWRkZW4="}}}}}}"#, server.address),
    )
    .unwrap();
    let config = Config {
        docker_config: Some(path),
        reprobe: Duration::ZERO,
        ..config()
    };
    let client = Client::new(Config {
        reprobe: Duration::from_secs(3600),
        ..config.clone()
    })
    .unwrap();
    assert_eq!(
        client.manifest(&server.repository(), "v1").await.unwrap().access,
        Access::Private
    );
    assert_eq!(
        client.manifest(&server.repository(), "v1").await.unwrap().access,
        Access::Private
    );
    let forgetful = Client::new(config).unwrap();
    assert_eq!(
        forgetful.manifest(&server.repository(), "v1").await.unwrap().access,
        Access::Public
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let server = Server::start(|request, _| match (request.method.as_str(), request.authorization()) {
        ("POST", None) if request.body.contains("refresh_token=hidden%2Btoken") => token("enough"),
        ("GET", Some("Bearer enough")) => Reply::new(200, "{}"),
        _ if request.path.starts_with("/token") => Reply::new(401, ""),
        _ => challenge(request),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let entry = r#"{"auth":"MDAwMDo=","identitytoken":"hidden+token"}"#;
    std::fs::write(&path, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, server.address)).unwrap();
    let client = Client::new(Config {
        docker_config: Some(path),
        ..config()
    })
    .unwrap();
    assert_eq!(
        client.manifest(&server.repository(), "v1").await.unwrap().access,
        Access::Private
    );
    let post = server
        .requests()
        .into_iter()
        .find(|request| request.method == "POST")
        .unwrap();
    assert!(
        post.body.contains("grant_type=refresh_token") && post.body.contains("service=reg"),
        "{}",
        post.body
    );
}

#[tokio::test]
async fn no_error_holds_a_secret() {
    let realm = "https://user:hidden@elsewhere.example/token?key=hidden";
    let bearer = format!(r#"Bearer realm="{realm}",service="reg""#);
    let server =
        Server::start(
            move |request, _| match (request.path.rsplit('/').next().unwrap(), request.authorization()) {
                ("refused", Some(USER)) => Reply::new(403, "{\"hidden\":1}"),
                ("storage", Some(USER)) => Reply::redirect(307, "http://127.0.0.1:1/object?signature=hidden"),
                ("loop", Some(USER)) => Reply::redirect(307, "loop"),
                ("bearer", None) => Reply::new(401, "").with("www-authenticate", bearer.clone()),
                _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
            },
        )
        .await;
    let dir = tempfile::tempdir().unwrap();
    let client = client_for(&server, &dir);
    for tag in ["refused", "storage", "loop", "bearer"] {
        let error = client.manifest(&server.repository(), tag).await.unwrap_err();
        for text in [
            error.to_string(),
            format!("{error:?}"),
            error.to_failure().message,
            format!("{client:?}"),
        ] {
            assert!(!text.contains("hidden") && !text.contains(&USER[6..]), "{text}");
        }
    }
}
