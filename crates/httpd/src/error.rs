//! The body of every error on every HTTP port, as the OCI distribution spec has it.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

/// Bytes of a message. Some come from registries, which may send pages of HTML.
const MAX_MESSAGE: usize = 1024;

/// `{"errors":[{"code":CODE,"message":MESSAGE}]}` with this status.
pub fn error(status: StatusCode, code: &'static str, message: &str) -> Response<Body> {
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_json_and_bounded() {
        let response = error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", &"\"ä".repeat(4096));
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = axum::body::to_bytes(response.into_body(), 8192).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], "BLOB_UNKNOWN");
        assert!(body["errors"][0]["message"].as_str().unwrap().len() <= MAX_MESSAGE);
    }
}
