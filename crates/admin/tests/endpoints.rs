//! Every endpoint, over real sockets.
#![allow(clippy::unwrap_used, reason = "the line of a failed unwrap says all in a test")]

use std::sync::{Arc, Mutex};

use admin::{Admin, ApiError, Limits, Metrics, Readiness};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Role {
    url: String,
    client: Client,
    ready: Arc<Mutex<Readiness>>,
    metrics: Metrics,
    shutdown: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<()>,
}

#[derive(serde::Deserialize)]
struct Preheat {
    reference: String,
}

async fn role() -> Role {
    drop(rustls::crypto::ring::default_provider().install_default());
    let ready = Arc::new(Mutex::new(Readiness::Ready));
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let readiness = Arc::clone(&ready);
    let admin = Admin::new(
        registry,
        || async { json!({ "role": "peer" }) },
        move || readiness.lock().unwrap().clone(),
    )
    .get("/api/v1/blobs", || async { Ok(["one", "two"]) })
    .post("/api/v1/preheat", |preheat: Preheat| async move {
        Ok(json!({ "got": preheat.reference }))
    })
    .post("/api/v1/gc", |(): ()| async { Ok(json!({ "freed": 3 })) })
    .post_blob("pin", |digest| async move { Ok(digest.to_string()) })
    .delete_blob(|digest| async move { Err::<(), _>(ApiError::Conflict(format!("{digest} is pinned"))) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (shutdown, stopped) = oneshot::channel();
    let done = tokio::spawn(admin.serve(listener, Limits::default(), async { drop(stopped.await) }));
    Role {
        url,
        client: Client::new(),
        ready,
        metrics,
        shutdown,
        done,
    }
}

impl Role {
    async fn ask(&self, method: Method, path: &str, body: &'static str) -> Response {
        self.client
            .request(method, format!("{}{path}", self.url))
            .body(body)
            .send()
            .await
            .unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, "").await
    }
}

async fn json(response: Response) -> Value {
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn health_readiness_metrics_and_status() {
    let role = role().await;
    assert_eq!(role.get("/healthz").await.status(), StatusCode::OK);
    assert_eq!(role.get("/readyz").await.status(), StatusCode::OK);
    *role.ready.lock().unwrap() = Readiness::NotReady("no scheduler answers".to_owned());
    let response = role.get("/readyz").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json(response).await["errors"][0]["message"], "no scheduler answers");
    role.metrics.sent_bytes(42);
    let response = role.get("/metrics").await;
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("packswarm_sent_bytes_total 42\n")
    );
    assert_eq!(json(role.get("/api/v1/status").await).await, json!({ "role": "peer" }));
}

#[tokio::test]
async fn operations_take_and_give_json() {
    let role = role().await;
    assert_eq!(json(role.get("/api/v1/blobs").await).await, json!(["one", "two"]));
    let response = role
        .ask(Method::POST, "/api/v1/preheat", r#"{"reference":"a/b:c"}"#)
        .await;
    assert_eq!(json(response).await, json!({ "got": "a/b:c" }));
    assert_eq!(
        json(role.ask(Method::POST, "/api/v1/gc", "").await).await,
        json!({ "freed": 3 })
    );
    let response = role.ask(Method::POST, &format!("/api/v1/blobs/{DIGEST}/pin"), "").await;
    assert_eq!(json(response).await, json!(DIGEST));
}

#[tokio::test]
async fn errors_are_json_with_the_right_status() {
    let role = role().await;
    let cases = [
        (
            Method::DELETE,
            format!("/api/v1/blobs/{DIGEST}"),
            "",
            StatusCode::CONFLICT,
        ),
        (
            Method::POST,
            "/api/v1/blobs/sha256:abc/pin".to_owned(),
            "",
            StatusCode::BAD_REQUEST,
        ),
        (Method::POST, "/api/v1/preheat".to_owned(), "{", StatusCode::BAD_REQUEST),
        (Method::POST, "/api/v1/preheat".to_owned(), "", StatusCode::BAD_REQUEST),
        (Method::GET, "/api/v1/nothing".to_owned(), "", StatusCode::NOT_FOUND),
        (
            Method::PUT,
            "/api/v1/status".to_owned(),
            "",
            StatusCode::METHOD_NOT_ALLOWED,
        ),
    ];
    for (method, path, body, status) in cases {
        let response = role.ask(method, &path, body).await;
        assert_eq!(response.status(), status, "{path}");
        assert!(json(response).await["errors"][0]["message"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let role = role().await;
    let gc = format!("{}/api/v1/gc", role.url);
    for (origin, status) in [("http://evil.example", 403), ("null", 403), (role.url.as_str(), 200)] {
        let response = role.client.post(&gc).header("origin", origin).send().await.unwrap();
        assert_eq!(response.status(), status, "{origin}");
    }
}

#[tokio::test]
async fn shutdown_ends_it() {
    let role = role().await;
    assert_eq!(role.get("/healthz").await.status(), StatusCode::OK);
    role.shutdown.send(()).unwrap();
    role.done.await.unwrap();
    assert!(role.client.get(format!("{}/healthz", role.url)).send().await.is_err());
}
