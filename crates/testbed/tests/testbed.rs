//! The registry, as packswarm's own client sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use piece::{Blob, Digest};
use registry::{BlobReader, Client, Config, RegistryError};
use testbed::{Artifact, Fault, Options, Registry};
use tokio::net::TcpListener;
use wire::control::{Kind, Query, Repository, Source, Upstream, UpstreamAnswer};

async fn start(options: Options) -> Registry {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Registry::start(listener, options).unwrap()
}

fn client() -> Client {
    let backoff = Duration::from_millis(2);
    let read_timeout = Duration::from_millis(200);
    Client::new(Config {
        user_agent: "me".into(),
        backoff,
        read_timeout,
        ..Config::default()
    })
    .unwrap()
}

fn repository(registry: &Registry) -> Repository {
    Repository {
        registry: registry.address().to_string(),
        name: "org/model".into(),
    }
}

async fn open(registry: &Registry, blob: Blob) -> Result<BlobReader, RegistryError> {
    let source = Source {
        repository: repository(registry),
        kind: Kind::Blob,
    };
    client()
        .blob(&source, &blob.digest, Some(blob.size), 0..blob.size)
        .await
}

async fn pull(registry: &Registry, blob: Blob) -> Result<Vec<u8>, RegistryError> {
    let mut stream = open(registry, blob).await?.read(0..blob.size).await?;
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

fn largest(artifact: &Artifact) -> Blob {
    artifact.blobs().into_iter().max_by_key(|blob| blob.size).unwrap()
}

#[tokio::test]
async fn an_artifact_is_served_byte_for_byte_and_counted() {
    let registry = start(Options::default()).await;
    let artifact = Artifact::generate(1, 3_000_000);
    assert_eq!(registry.publish("org/model", "v1", &artifact), artifact.digest());
    let manifest = client().manifest(&repository(&registry), "v1").await.unwrap();
    assert_eq!(
        (&manifest.body[..], manifest.digest),
        (&artifact.manifest()[..], artifact.digest())
    );
    for blob in artifact
        .blobs()
        .into_iter()
        .filter(|blob| blob.digest != artifact.digest())
    {
        assert_eq!(Digest::of(&pull(&registry, blob).await.unwrap()), blob.digest);
    }
    let all: BTreeMap<_, _> = artifact
        .blobs()
        .into_iter()
        .map(|blob| (blob.digest, blob.size))
        .collect();
    assert_eq!(registry.served(), all, "each byte of each blob once");
    let log = registry.log();
    assert_eq!(log.len(), all.len());
    let first = &log[0];
    assert_eq!(
        (first.method.as_str(), first.path.as_str()),
        ("GET", "/v2/org/model/manifests/v1")
    );
    assert_eq!((first.status, first.user_agent.as_str()), (200, "me"));
    assert!(log.iter().any(|entry| entry.status == 206 && entry.range.is_some()));
    registry.clear_log();
    assert!(registry.log().is_empty() && registry.served().is_empty());
}

#[tokio::test]
async fn a_directory_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(dir.path().join("model.bin"), &data).unwrap();
    let registry = start(Options {
        without_ranges: true,
        ..Options::default()
    })
    .await;
    let artifact = Artifact::from_dir(dir.path()).unwrap();
    registry.publish("org/model", "v1", &artifact);
    assert!(!open(&registry, largest(&artifact)).await.unwrap().supports_ranges());
    assert_eq!(pull(&registry, largest(&artifact)).await.unwrap(), data);
}

#[tokio::test]
async fn what_goes_wrong_is_as_scripted() {
    let registry = start(Options::default()).await;
    let artifact = Artifact::generate(1, 2_000_000);
    registry.publish("org/model", "v1", &artifact);
    let blob = largest(&artifact);
    for fault in [
        Fault::CutAfter(1000),
        Fault::StallAfter(1000),
        Fault::Status(503, Some(0)),
        Fault::CutAfter(0),
    ] {
        registry.clear_log();
        registry.inject(move |seen| (seen.range.as_ref().is_some_and(|range| range.start == 0)).then_some(fault));
        if matches!(fault, Fault::Status(..) | Fault::CutAfter(0)) {
            let error = pull(&registry, blob).await.unwrap_err();
            assert!(error.is_retryable(), "{fault:?}: {error}");
            continue;
        }
        assert_eq!(
            Digest::of(&pull(&registry, blob).await.unwrap()),
            blob.digest,
            "{fault:?}"
        );
    }
    registry.inject(|_| Some(Fault::Corrupt(300_001)));
    let (wrong, mut right) = (pull(&registry, blob).await.unwrap(), vec![0; blob.size as usize]);
    let file = artifact
        .files()
        .iter()
        .find(|file| file.content.digest() == blob.digest)
        .unwrap();
    file.content.read_at(0, &mut right).unwrap();
    let differing: Vec<_> = (0..right.len()).filter(|&i| right[i] != wrong[i]).collect();
    assert_eq!(differing, [300_001]);
    registry.inject(|_| Some(Fault::NoRange));
    assert!(!open(&registry, blob).await.unwrap().supports_ranges());
    registry.inject(|_| Some(Fault::Delay(Duration::from_millis(100))));
    let begun = Instant::now();
    open(&registry, blob).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    registry.heal();
    assert_eq!(Digest::of(&pull(&registry, blob).await.unwrap()), blob.digest);
}

#[tokio::test]
async fn connections_keep_to_their_rates() {
    let artifact = Artifact::generate(1, 1_000_000);
    let blobs: Vec<_> = artifact
        .blobs()
        .into_iter()
        .filter(|blob| blob.size > 200_000)
        .collect();
    let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
    let rate = 2_000_000;
    for (options, least) in [
        (
            Options {
                per_connection: Some(rate),
                ..Options::default()
            },
            blobs[0].size,
        ),
        (
            Options {
                total: Some(rate),
                ..Options::default()
            },
            bytes,
        ),
    ] {
        let registry = start(options).await;
        registry.publish("org/model", "v1", &artifact);
        let begun = Instant::now();
        let pulls: Vec<_> = blobs.iter().map(|&blob| pull(&registry, blob)).collect();
        for pulled in join(pulls).await {
            pulled.unwrap();
        }
        // The first 20 ms are free, per rate.
        let least = Duration::from_secs_f64(least as f64 / rate as f64) - Duration::from_millis(40);
        assert!(begun.elapsed() >= least, "{:?} < {least:?}", begun.elapsed());
    }
}

/// Runs all at once.
async fn join<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(futures).await
}

#[tokio::test]
async fn private_repositories_want_basic() {
    let registry = start(Options::default()).await;
    let artifact = Artifact::generate(1, 0);
    registry.publish("org/model", "v1", &artifact);
    registry.require("org/model", "user", "password");
    let error = client().manifest(&repository(&registry), "v1").await.unwrap_err();
    assert_eq!(error.to_failure().challenge.as_deref(), Some("Basic realm=\"testbed\""));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let entry = r#"{"username":"user","password":"password"}"#;
    std::fs::write(&path, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.address())).unwrap();
    let client = Client::new(Config {
        docker_config: Some(path),
        ..Config::default()
    })
    .unwrap();
    assert_eq!(
        client.manifest(&repository(&registry), "v1").await.unwrap().digest,
        artifact.digest()
    );
}

#[tokio::test]
async fn discovery() {
    let registry = start(Options::default()).await;
    let artifact = Artifact::generate(1, 0);
    for tag in ["v3", "v1", "v2"] {
        registry.publish("org/model", tag, &artifact);
    }
    let ask = async |query| {
        client()
            .document(&Upstream {
                repository: repository(&registry),
                query,
            })
            .await
    };
    let page = ask(Query::Tags {
        query: "n=1&last=v1".into(),
    })
    .await
    .unwrap();
    let UpstreamAnswer::Document { body, link, .. } = page else {
        panic!("{page:?}")
    };
    assert_eq!(body, br#"{"name":"org/model","tags":["v2"]}"#);
    assert_eq!(
        link.as_deref(),
        Some("</v2/org/model/tags/list?n=1&last=v2>; rel=\"next\"")
    );
    let referrers = ask(Query::Referrers {
        digest: artifact.digest(),
        query: String::new(),
    })
    .await
    .unwrap();
    assert!(matches!(referrers, UpstreamAnswer::Document { .. }));
    let tag = ask(Query::Tag { tag: "v2".into() }).await.unwrap();
    let UpstreamAnswer::Content { blob, .. } = tag else {
        panic!("{tag:?}")
    };
    assert_eq!(
        blob,
        Blob {
            digest: artifact.digest(),
            size: artifact.manifest().len() as u64
        }
    );
    assert_eq!(ask(Query::Tag { tag: "none".into() }).await.unwrap_err().status(), 404);
    registry.stop().await;
}

#[tokio::test]
async fn a_stalled_answer_does_not_hold_up_the_stop() {
    let registry = start(Options::default()).await;
    let artifact = Artifact::generate(1, 0);
    registry.publish("org/model", "v1", &artifact);
    registry.inject(|_| Some(Fault::StallAfter(10)));
    let reader = open(&registry, largest(&artifact)).await.unwrap();
    let begun = Instant::now();
    registry.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(reader);
}
