//! To object storage, and to where none should lead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use piece::Digest;
use registry::{Client, Config, Lie, RegistryError};
use wire::control::{Access, Kind};

use crate::scripted::{Reply, Request, Server, client, config, data, open, read_all};

const USER: &str = "Basic dXNlcjpoaWRkZW4=";

fn authorised(request: &Request) -> bool {
    request.authorization() == Some(USER)
}

/// Storage whose URLs work while `valid` says so, and a registry that wants Basic and redirects there.
async fn private(data: &[u8], valid: Arc<AtomicUsize>) -> (Server, Server) {
    let served = data.to_vec();
    let current = Arc::clone(&valid);
    let storage = Server::start(move |request, _| {
        let right = format!("/object?signature={}", current.load(Ordering::Relaxed));
        if request.path == right {
            Reply::part(&served, request)
        } else {
            Reply::new(403, "<Error/>")
        }
    })
    .await;
    let address = storage.address;
    let registry = Server::start(move |request, _| {
        let to = format!("http://{address}/object?signature={}", valid.load(Ordering::Relaxed));
        if authorised(request) {
            Reply::redirect(307, to)
        } else {
            Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\"")
        }
    })
    .await;
    (registry, storage)
}

fn with_credentials(registry: &Server, dir: &tempfile::TempDir) -> Client {
    let path = dir.path().join("config.json");
    std::fs::write(
        &path,
        format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, registry.address, &USER[6..]),
    )
    .unwrap();
    Client::new(Config {
        docker_config: Some(path),
        ..config()
    })
    .unwrap()
}

#[tokio::test]
async fn storage_is_resolved_once_and_told_no_secret() {
    let data = data(4000);
    let valid = Arc::new(AtomicUsize::new(1));
    let (registry, storage) = private(&data, Arc::clone(&valid)).await;
    let dir = tempfile::tempdir().unwrap();
    let blob = open(&with_credentials(&registry, &dir), &registry, &data, None, 0..1000)
        .await
        .unwrap();
    assert_eq!((blob.size(), blob.access()), (4000, Access::Private));
    for start in [0, 1000, 2000] {
        let range = start..start + 1000;
        assert_eq!(read_all(&blob, range).await.unwrap(), data[start as usize..][..1000]);
    }
    assert_eq!(
        registry.requests().len(),
        2,
        "the anonymous one, and the one that resolved"
    );
    assert_eq!(storage.requests().len(), 3);

    valid.store(2, Ordering::Relaxed);
    assert_eq!(read_all(&blob, 3000..4000).await.unwrap(), data[3000..]);
    assert_eq!(
        (registry.requests().len(), storage.requests().len()),
        (3, 5),
        "expired, resolved anew, read"
    );
    assert!(
        storage
            .requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
}

#[tokio::test]
async fn a_redirect_on_the_same_host_stays_authorised() {
    let data = data(100);
    let served = data.clone();
    let registry = Server::start(move |request, _| match (authorised(request), request.path.as_str()) {
        (true, "/data") => Reply::part(&served, request),
        (true, _) => Reply::redirect(302, "/data"),
        _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let blob = open(&with_credentials(&registry, &dir), &registry, &data, None, 0..100)
        .await
        .unwrap();
    assert_eq!(read_all(&blob, 0..100).await.unwrap(), data);
}

#[tokio::test]
async fn a_way_back_from_elsewhere_is_not_authorised() {
    let elsewhere = Server::start(|request, _| {
        let home = request.path.rsplit('=').next().unwrap();
        Reply::redirect(302, format!("http://{home}/stolen"))
    })
    .await;
    let address = elsewhere.address;
    let registry = Server::start(move |request, _| {
        let home = request.header("host").unwrap();
        match (request.path.as_str(), authorised(request)) {
            ("/stolen", _) => Reply::new(404, ""),
            (_, true) => Reply::redirect(302, format!("http://{address}/?home={home}")),
            _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let error = open(&with_credentials(&registry, &dir), &registry, b"x", None, 0..1)
        .await
        .unwrap_err();
    assert_eq!(error.status(), 502, "{error}");
    let stolen = registry
        .requests()
        .into_iter()
        .find(|request| request.path == "/stolen")
        .unwrap();
    assert_eq!(stolen.authorization(), None);
}

#[tokio::test]
async fn where_no_redirect_may_lead() {
    let registry = Server::start(|request, _| {
        let to = match request.path.rsplit('/').next().unwrap() {
            "loop" => "loop",
            "file" => "file:///etc/passwd",
            _ => "http://[nonsense",
        };
        Reply::redirect(307, to)
    })
    .await;
    for tag in ["loop", "file", "nonsense"] {
        let error = client().manifest(&registry.repository(), tag).await.unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::Misbehaved {
                    lie: Lie::Redirect(_),
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(
        registry.requests().len(),
        6 + 1 + 1,
        "a loop is left after five redirects"
    );
}

#[tokio::test]
async fn a_probe_stops_at_the_redirect() {
    let storage = Server::start(|_, _| Reply::new(403, "signed for GET")).await;
    let to = format!("http://{}/object", storage.address);
    let registry = Server::start(move |_, _| Reply::redirect(307, &to)).await;
    let digest = Digest::of(b"x");
    let head = client()
        .head(&registry.source(Kind::Blob), &digest.to_string())
        .await
        .unwrap();
    assert_eq!(
        (head.blob.digest, head.blob.size, head.access),
        (digest, 0, Access::Public)
    );
    assert_eq!(storage.requests().len(), 0);
}

#[tokio::test]
async fn storage_that_refuses_is_not_the_registrys_refusal() {
    let storage = Server::start(|_, _| Reply::new(403, "<StringToSign>hidden</StringToSign>")).await;
    let to = format!("http://{}/object?signature=hidden", storage.address);
    let registry = Server::start(move |_, _| Reply::redirect(307, &to)).await;
    let error = open(&client(), &registry, b"x", None, 0..1).await.unwrap_err();
    assert_eq!(error.to_failure().status, 502);
    assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
}
