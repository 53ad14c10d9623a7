//! Reading blobs by ranges, with everything that goes wrong on the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use piece::Digest;
use registry::{Client, Config, Lie, RegistryError};
use wire::control::{Access, Kind};

use crate::scripted::{Counts, Reply, Request, Server, Then, client, config, data, drain, open, read_all};

async fn serve(data: &[u8]) -> Server {
    let served = data.to_vec();
    Server::start(move |request, _| Reply::part(&served, request)).await
}

fn ranges(server: &Server) -> Vec<std::ops::Range<u64>> {
    server.requests().iter().filter_map(Request::range).collect()
}

#[tokio::test]
async fn opening_is_the_first_read() {
    let data = data(10_000);
    let server = serve(&data).await;
    let counts = Arc::new(Counts::default());
    let client = client().with_meter(counts.clone());
    let blob = open(&client, &server, &data, None, 0..4000).await.unwrap();
    assert_eq!(
        (blob.size(), blob.access(), blob.supports_ranges()),
        (10_000, Access::Public, true)
    );
    assert_eq!(read_all(&blob, 0..4000).await.unwrap(), data[..4000]);
    assert_eq!(read_all(&blob, 4000..10_000).await.unwrap(), data[4000..]);
    assert_eq!(ranges(&server), [0..4000, 4000..10_000]);
    assert_eq!(counts.bytes.load(Ordering::Relaxed), 10_000);
}

#[tokio::test]
async fn reads_inside_the_opening_share_its_body() {
    let data = data(100_000);
    let server = serve(&data).await;
    let blob = open(&client(), &server, &data, None, 0..80_000).await.unwrap();
    // Polled last first: they still take their turns lowest first, and the last goes beyond the body.
    let reads = [60_000..100_000, 30_000..60_000, 0..30_000].map(|range| {
        let blob = blob.clone();
        async move { (range.start, drain(blob.read(range).await.unwrap()).await.unwrap()) }
    });
    let [a, b, c] = reads;
    let mut parts = <[_; 3]>::from(tokio::join!(a, b, c));
    parts.sort();
    assert_eq!(parts.map(|(_, bytes)| bytes).concat(), data);
    assert_eq!(ranges(&server), [0..80_000, 80_000..100_000], "no byte asked for twice");
}

#[tokio::test]
async fn a_read_that_is_dropped_hands_the_body_on() {
    let data = data(100_000);
    let server = serve(&data).await;
    let blob = open(&client(), &server, &data, None, 0..100_000).await.unwrap();
    let mut first = blob.read(0..50_000).await.unwrap();
    let got = first.next().await.unwrap().unwrap().len() as u64;
    let rest = blob.read(got..100_000).await.unwrap();
    drop(first);
    assert_eq!(drain(rest).await.unwrap(), data[got as usize..]);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn many_ranges_at_once() {
    let data = data(200_000);
    let server = serve(&data).await;
    let blob = open(&client(), &server, &data, Some(200_000), 100_000..110_000)
        .await
        .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for start in (0..200_000_u64).step_by(10_000) {
        let blob = blob.clone();
        tasks.spawn(async move { (start, read_all(&blob, start..start + 10_000).await.unwrap()) });
    }
    let mut parts = tasks.join_all().await;
    parts.sort();
    assert_eq!(parts.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>(), data);
    assert_eq!(server.requests().len(), 20);
}

#[tokio::test]
async fn a_cut_or_stalled_body_is_resumed_where_it_stood() {
    for then in [Then::Close, Then::Stall] {
        let data = data(50_000);
        let served = data.clone();
        let server = Server::start(move |request, before| match before {
            1 => Reply::part(&served, request).cut(7_000, then),
            2 => Reply::new(503, ""),
            3 => Reply::part(&served, request).cut(5_000, then),
            _ => Reply::part(&served, request),
        })
        .await;
        let counts = Arc::new(Counts::default());
        let client = client().with_meter(counts.clone());
        let blob = open(&client, &server, &data, None, 0..10_000).await.unwrap();
        assert_eq!(read_all(&blob, 0..50_000).await.unwrap(), data);
        assert_eq!(
            ranges(&server),
            [
                0..10_000,
                10_000..50_000,
                17_000..50_000,
                17_000..50_000,
                22_000..50_000
            ]
        );
        assert_eq!(counts.bytes.load(Ordering::Relaxed), 50_000, "{then:?}: no byte twice");
    }
}

#[tokio::test]
async fn the_opening_body_is_resumed_too() {
    let data = data(50_000);
    let served = data.clone();
    let server = Server::start(move |request, before| match before {
        0 => Reply::part(&served, request).cut(7_000, Then::Close),
        _ => Reply::part(&served, request),
    })
    .await;
    let blob = open(&client(), &server, &data, None, 0..40_000).await.unwrap();
    let (first, second) = tokio::join!(read_all(&blob, 0..20_000), read_all(&blob, 20_000..50_000));
    assert_eq!([first.unwrap(), second.unwrap()].concat(), data);
    assert_eq!(ranges(&server), [0..40_000, 7_000..20_000, 20_000..50_000]);
}

#[tokio::test]
async fn a_registry_that_keeps_cutting_is_given_up() {
    let data = data(50_000);
    let served = data.clone();
    let server = Server::start(move |request, _| Reply::part(&served, request).cut(1, Then::Close)).await;
    let blob = open(&client(), &server, &data, None, 0..50_000).await.unwrap();
    let error = read_all(&blob, 0..50_000).await.unwrap_err();
    assert!(matches!(error, RegistryError::Cut { .. }), "{error}");
    assert_eq!((error.is_retryable(), server.requests().len()), (true, 4));
}

#[tokio::test]
async fn enough_bytes_earn_new_attempts() {
    let data = data(50_000);
    let served = data.clone();
    let server = Server::start(move |request, _| Reply::part(&served, request).cut(5_000, Then::Close)).await;
    let client = Client::new(Config {
        progress: 5_000,
        ..config()
    })
    .unwrap();
    let blob = open(&client, &server, &data, None, 0..50_000).await.unwrap();
    assert_eq!(read_all(&blob, 0..50_000).await.unwrap(), data);
    assert_eq!(server.requests().len(), 10);
}

#[tokio::test]
async fn an_answer_shorter_than_asked_is_continued() {
    let data = data(1_000);
    let served = data.clone();
    let server = Server::start(move |request, _| {
        let range = request.range().unwrap();
        let end = range.end.min(range.start + 400);
        let said = format!("bytes {}-{}/1000", range.start, end - 1);
        Reply::new(206, &served[range.start as usize..end as usize]).with("content-range", said)
    })
    .await;
    let blob = open(&client(), &server, &data, None, 0..1_000).await.unwrap();
    assert_eq!(read_all(&blob, 0..1_000).await.unwrap(), data);
    assert_eq!(ranges(&server), [0..1_000, 400..1_000, 800..1_000]);
}

#[tokio::test]
async fn lies_about_ranges_and_lengths_are_errors() {
    type Change = fn(Reply) -> Reply;
    type Case = (&'static str, Change, fn(&Lie) -> bool);
    fn said(mut reply: Reply, range: &str) -> Reply {
        reply.headers = vec![("content-range", range.to_owned())];
        reply
    }
    let cases: [Case; 7] = [
        (
            "another start",
            |r| said(r, "bytes 1-400/1000"),
            |lie| matches!(lie, Lie::ContentRange(_)),
        ),
        (
            "another end",
            |r| said(r, "bytes 0-500/1000"),
            |lie| matches!(lie, Lie::ContentRange(_)),
        ),
        (
            "no range",
            |mut r| {
                r.headers.clear();
                r
            },
            |lie| matches!(lie, Lie::ContentRange(_)),
        ),
        (
            "another size",
            |r| said(r, "bytes 0-399/999"),
            |lie| {
                matches!(
                    lie,
                    Lie::Size {
                        expected: 1000,
                        actual: 999
                    }
                )
            },
        ),
        (
            "too few announced",
            |mut r| {
                r.body.pop();
                r
            },
            |lie| {
                matches!(
                    lie,
                    Lie::ContentLength {
                        expected: 400,
                        actual: 399
                    }
                )
            },
        ),
        (
            "too many announced",
            |mut r| {
                r.body.push(0);
                r
            },
            |lie| {
                matches!(
                    lie,
                    Lie::ContentLength {
                        expected: 400,
                        actual: 401
                    }
                )
            },
        ),
        (
            "too many sent",
            |mut r| {
                r.body.push(0);
                r.length = Some(None);
                r.then = Then::Close;
                r
            },
            |lie| matches!(lie, Lie::TooManyBytes(400)),
        ),
    ];
    let data = data(1_000);
    for (name, change, expected) in cases {
        let served = data.clone();
        let server = Server::start(move |request, _| change(Reply::part(&served, request))).await;
        let result = match open(&client(), &server, &data, Some(1_000), 0..400).await {
            Ok(blob) => read_all(&blob, 0..400).await,
            Err(error) => Err(error),
        };
        let error = result.expect_err(name);
        assert!(
            matches!(&error, RegistryError::Misbehaved { lie, .. } if expected(lie)),
            "{name}: {error}"
        );
        assert_eq!(
            (error.status(), server.requests().len()),
            (502, 1),
            "{name}: a liar is not asked again"
        );
    }
}

#[tokio::test]
async fn a_size_that_nobody_tells_is_an_error() {
    let server = Server::start(|_, _| Reply {
        length: Some(None),
        then: Then::Close,
        ..Reply::new(200, "abc")
    })
    .await;
    let error = open(&client(), &server, b"abc", None, 0..10).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Misbehaved { lie: Lie::NoSize, .. }),
        "{error}"
    );
    let blob = open(&client(), &server, b"abc", Some(3), 0..3).await.unwrap();
    assert_eq!(read_all(&blob, 0..3).await.unwrap(), b"abc");
}

#[tokio::test]
async fn another_digest_than_asked_for_is_an_error() {
    let server = Server::start(|request, _| Reply::part(b"abc", request).with("docker-content-digest", Digest::EMPTY));
    let error = open(&client(), &server.await, b"abc", None, 0..3).await.unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Misbehaved {
                lie: Lie::Digest { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_blob_is_404() {
    let server = Server::start(|_, _| Reply::new(404, "")).await;
    let error = open(&client(), &server, b"abc", None, 0..3).await.unwrap_err();
    assert_eq!((error.to_failure().status, server.requests().len()), (404, 1));
}

#[tokio::test]
async fn empty_blobs_and_ranges() {
    let server = serve(b"").await;
    let unknown = open(&client(), &server, b"", None, 0..1_000).await.unwrap();
    let known = open(&client(), &server, b"", Some(0), 0..0).await.unwrap();
    for blob in [unknown, known] {
        assert_eq!((blob.size(), read_all(&blob, 0..0).await.unwrap()), (0, vec![]));
        assert_eq!(blob.read(0..1).await.unwrap_err().status(), 400);
    }
    assert_eq!(
        open(&client(), &server, b"abc", Some(3), 3..5)
            .await
            .unwrap_err()
            .status(),
        400
    );
}

#[tokio::test]
async fn a_first_range_beyond_the_end_still_tells_the_size() {
    let data = data(100);
    let server = serve(&data).await;
    let blob = open(&client(), &server, &data, None, 500..600).await.unwrap();
    assert_eq!((blob.size(), read_all(&blob, 0..100).await.unwrap()), (100, data));
}

#[tokio::test]
async fn without_ranges_a_blob_is_one_stream() {
    let data = data(100_000);
    let served = data.clone();
    let server = Server::start(move |_, _| Reply::new(200, served.clone())).await;
    let counts = Arc::new(Counts::default());
    let client = client().with_meter(counts.clone());
    let blob = open(&client, &server, &data, None, 10_000..20_000).await.unwrap();
    assert_eq!((blob.size(), blob.supports_ranges()), (100_000, false));
    let (second, first) = tokio::join!(read_all(&blob, 60_000..100_000), read_all(&blob, 10_000..50_000));
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (data[10_000..50_000].to_vec(), data[60_000..].to_vec())
    );
    assert_eq!(
        (server.requests().len(), counts.bytes.load(Ordering::Relaxed)),
        (1, 100_000)
    );
    let error = blob.read(0..10).await.unwrap_err();
    assert!(matches!(error, RegistryError::OutOfOrder { wanted: 0, .. }), "{error}");
}

#[tokio::test]
async fn without_ranges_a_cut_costs_the_beginning_again() {
    let data = data(100_000);
    let served = data.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::new(200, served.clone()).cut(30_000, Then::Close),
        _ => Reply::new(200, served.clone()),
    })
    .await;
    let blob = open(&client(), &server, &data, None, 0..1_000).await.unwrap();
    let (first, second) = tokio::join!(read_all(&blob, 0..50_000), read_all(&blob, 50_000..100_000));
    assert_eq!([first.unwrap(), second.unwrap()].concat(), data);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn ranges_that_stop_being_served_are_asked_for_again() {
    let data = data(1_000);
    let served = data.clone();
    let server = Server::start(move |request, before| match before {
        1 => Reply::new(200, served.clone()),
        _ => Reply::part(&served, request),
    })
    .await;
    let blob = open(&client(), &server, &data, None, 0..500).await.unwrap();
    assert_eq!(read_all(&blob, 500..1_000).await.unwrap(), data[500..]);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_manifest_can_be_read_as_a_blob() {
    let data = data(500);
    let served = data.clone();
    let server = Server::start(move |_, _| Reply::new(200, served.clone()).with("content-type", "a/b")).await;
    let source = server.source(Kind::Manifest);
    let blob = client()
        .blob(&source, &Digest::of(&data), None, 0..1_000)
        .await
        .unwrap();
    assert_eq!(
        (blob.media_type(), read_all(&blob, 0..500).await.unwrap()),
        (Some("a/b"), data.clone())
    );
    assert_eq!(
        server.requests()[0].path,
        format!("/v2/org/model/manifests/{}", Digest::of(&data))
    );
    assert!(server.requests()[0].header("accept").is_some());
}
