//! What clients do when all is well.

use bytes::Bytes;
use mirror::{Document, RequestKind};
use piece::Digest;
use reqwest::StatusCode;

use crate::node::{MANIFEST_TYPE, Mirror, header};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

#[tokio::test]
async fn ping() {
    let mirror = Mirror::start().await;
    for path in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        let response = mirror.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(response.text().await.unwrap(), "{}");
    }
    assert_eq!(mirror.node.metered.lock().unwrap()[0], (RequestKind::Ping, 200));
}

#[tokio::test]
async fn a_manifest_by_tag_and_by_digest() {
    let mirror = Mirror::start().await;
    let digest = mirror.node.tag("v1", MANIFEST);
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/org/model/manifests/{reference}");
        let head = mirror.head(&path).send().await.unwrap();
        let get = mirror.get(&path).send().await.unwrap();
        for response in [&head, &get] {
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header(response, "docker-content-digest"), digest.to_string());
            assert_eq!(header(response, "content-length"), MANIFEST.len().to_string());
            assert_eq!(header(response, "content-type"), MANIFEST_TYPE);
            assert_eq!(header(response, "etag"), format!("\"{digest}\""));
            assert!(response.headers().get("content-encoding").is_none());
        }
        assert_eq!(get.text().await.unwrap(), MANIFEST);
        assert_eq!(head.bytes().await.unwrap(), "");
    }
    assert_eq!(
        mirror.node.metered.lock().unwrap().as_slice(),
        [(RequestKind::Manifest, 200); 4]
    );
}

#[tokio::test]
async fn head_of_a_tag_opens_nothing() {
    let mirror = Mirror::start().await;
    mirror.node.tag("v1", MANIFEST);
    mirror.head("/v2/org/model/manifests/v1").send().await.unwrap();
    assert_eq!(mirror.node.asked(), ["resolve registry.example.com org/model v1"]);
}

#[tokio::test]
async fn head_of_a_tag_whose_size_the_registry_kept_to_itself_opens_it() {
    let mirror = Mirror::start().await;
    mirror.node.tag("v1", MANIFEST);
    mirror.node.tags.lock().unwrap().get_mut("v1").unwrap().blob.size = 0;
    let head = mirror.head("/v2/org/model/manifests/v1").send().await.unwrap();
    assert_eq!(header(&head, "content-length"), MANIFEST.len().to_string());
}

#[tokio::test]
async fn head_by_digest_probes_and_opens_nothing() {
    let mirror = Mirror::start().await;
    *mirror.node.has_probe.lock().unwrap() = true;
    for collection in ["blobs", "manifests"] {
        let head = mirror
            .head(&format!("/v2/a/{collection}/{}", Digest::of(b"x")))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (head.status(), header(&head, "content-length")),
            (StatusCode::OK, "12345")
        );
    }
    assert!(mirror.node.asked().is_empty());
}

#[tokio::test]
async fn a_manifest_without_a_type_has_the_one_that_it_names() {
    let mirror = Mirror::start().await;
    let (digest, _) = mirror.node.add(r#"{"mediaType":"application/vnd.example+json"}"#, None);
    let path = format!("/v2/a/manifests/{digest}");
    for request in [mirror.get(&path), mirror.head(&path)] {
        assert_eq!(
            header(&request.send().await.unwrap(), "content-type"),
            "application/vnd.example+json"
        );
    }
}

#[tokio::test]
async fn what_a_client_accepts_does_not_matter() {
    let mirror = Mirror::start().await;
    mirror.node.tag("v1", MANIFEST);
    let skopeo = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        MANIFEST_TYPE,
    ];
    for accepted in [&skopeo[..], &skopeo[..1], &["*/*"], &[]] {
        let request = mirror.get("/v2/a/manifests/v1");
        let request = accepted
            .iter()
            .fold(request, |request, media_type| request.header("accept", *media_type));
        let response = request.header("accept-encoding", "gzip, zstd").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-encoding"), "");
        assert_eq!(response.text().await.unwrap(), MANIFEST);
    }
}

#[tokio::test]
async fn a_blob_whole_and_empty() {
    let mirror = Mirror::start().await;
    let bytes = Bytes::from((0..3_000_000u32).map(|number| number as u8).collect::<Vec<_>>());
    for bytes in [bytes, Bytes::new()] {
        let (digest, _) = mirror.node.add(bytes.clone(), Some("text/html"));
        let path = format!("/v2/org/model/blobs/{digest}");
        for request in [mirror.head(&path), mirror.get(&path)] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
            assert_eq!(header(&response, "content-length"), bytes.len().to_string());
            assert_eq!(header(&response, "content-type"), "application/octet-stream");
            assert_eq!(header(&response, "accept-ranges"), "bytes");
        }
        assert_eq!(mirror.get(&path).send().await.unwrap().bytes().await.unwrap(), bytes);
    }
    assert!(
        mirror
            .node
            .asked()
            .iter()
            .all(|call| call == "open registry.example.com org/model Blob")
    );
}

#[tokio::test]
async fn ranges_of_a_blob() {
    let mirror = Mirror::start().await;
    let (digest, content) = mirror.node.add(&b"0123456789"[..], None);
    let path = format!("/v2/a/blobs/{digest}");
    for (range, status, content_range, body) in [
        ("bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("bytes=5-", 206, "bytes 5-9/10", "56789"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=8-100", 206, "bytes 8-9/10", "89"),
        ("bytes=0-1,3-4", 200, "", "0123456789"),
        ("lines=1-2", 200, "", "0123456789"),
        ("bytes=10-", 416, "bytes */10", ""),
    ] {
        let response = mirror.get(&path).header("range", range).send().await.unwrap();
        assert_eq!(response.status(), status, "{range}");
        assert_eq!(header(&response, "content-range"), content_range, "{range}");
        assert_eq!(header(&response, "content-length"), body.len().to_string(), "{range}");
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        assert_eq!(response.text().await.unwrap(), body, "{range}");
    }
    let given = content.given.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(given, 1 + 5 + 3 + 2 + 10 + 10, "no more was read than was asked for");
    let head = mirror.head(&path).header("range", "bytes=0-0").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10"));
    let asked = mirror.node.asked();
    assert!(
        asked[1].ends_with(" Blob from 5"),
        "what is waited for comes first: {asked:?}"
    );
}

#[tokio::test]
async fn many_ranges_at_a_time_over_few_connections() {
    let mirror = Mirror::start().await;
    let bytes = Bytes::from((0..1_000_000u32).map(|number| (number / 7) as u8).collect::<Vec<_>>());
    let (digest, _) = mirror.node.add(bytes.clone(), None);
    let path = format!("/v2/a/blobs/{digest}");
    let parts = (0..50usize).map(|number| {
        let request = mirror.get(&path).header(
            "range",
            format!("bytes={}-{}", number * 20_000, number * 20_000 + 19_999),
        );
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
            response.bytes().await.unwrap()
        }
    });
    assert_eq!(futures::future::join_all(parts).await.concat(), bytes);
}

#[tokio::test]
async fn who_has_it_is_told_so() {
    let mirror = Mirror::start().await;
    let (digest, _) = mirror.node.add(&b"0123456789"[..], None);
    mirror.node.tag("v1", MANIFEST);
    for path in [format!("/v2/a/blobs/{digest}"), "/v2/a/manifests/v1".to_owned()] {
        let tag = header(&mirror.head(&path).send().await.unwrap(), "etag").to_owned();
        for request in [mirror.get(&path), mirror.head(&path)] {
            let response = request.header("if-none-match", &tag).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(header(&response, "etag"), tag);
        }
        let response = mirror
            .get(&path)
            .header("if-none-match", "\"other\"")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn tags_lead_back_to_us() {
    let mirror = Mirror::start().await;
    *mirror.node.document.lock().unwrap() = Some(Document {
        body: Bytes::from_static(br#"{"name":"org/model","tags":["a"]}"#),
        media_type: "application/json; charset=utf-8".to_owned(),
        link: Some("</v2/org/model/tags/list?n=1&last=a>; rel=\"next\"".to_owned()),
        filters: None,
    });
    let response = mirror
        .get("/v2/org/model/tags/list?n=1&ns=localhost:5000")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        header(&response, "link"),
        "</v2/org/model/tags/list?n=1&last=a&ns=localhost%3A5000>; rel=\"next\""
    );
    assert_eq!(header(&response, "content-type"), "application/json; charset=utf-8");
    assert_eq!(response.text().await.unwrap(), r#"{"name":"org/model","tags":["a"]}"#);
    assert_eq!(
        mirror.node.asked(),
        ["document localhost:5000 org/model Tags { query: \"n=1\" }"]
    );
    let next = mirror.get("/v2/quay.io__443/org/model/tags/list").send().await.unwrap();
    assert_eq!(
        header(&next, "link"),
        "</v2/quay.io__443/org/model/tags/list?n=1&last=a>; rel=\"next\""
    );
    let head = mirror.head("/v2/org/model/tags/list").send().await.unwrap();
    assert_eq!(header(&head, "content-length"), "33");
}

#[tokio::test]
async fn referrers_are_passed_on() {
    let mirror = Mirror::start().await;
    *mirror.node.document.lock().unwrap() = Some(Document {
        body: Bytes::from_static(b"{\"manifests\":[]}"),
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        link: None,
        filters: Some("artifactType".to_owned()),
    });
    let path = format!("/v2/a/referrers/{}?artifactType=x%2Fy", Digest::EMPTY);
    let response = mirror.get(&path).send().await.unwrap();
    assert_eq!(header(&response, "oci-filters-applied"), "artifactType");
    assert_eq!(
        header(&response, "content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(response.text().await.unwrap(), "{\"manifests\":[]}");
    assert!(mirror.node.asked()[0].contains("artifactType=x%2Fy"));
    assert_eq!(
        mirror.node.metered.lock().unwrap().as_slice(),
        [(RequestKind::Referrers, 200)]
    );
}
