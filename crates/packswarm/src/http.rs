//! What the commands ask over HTTP: a node's mirror and its admin API.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::sentence;

/// Where a process serves its admin API unless told otherwise.
pub(crate) const ADMIN: &str = "http://127.0.0.1:7656";
/// For a TCP and TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of an answer of the admin API at most; a status lists every blob, at some 300 bytes each.
const MAX_ANSWER: usize = 256 << 20;
/// Bytes of an error's body that are looked at.
const MAX_ERROR: usize = 64 << 10;

/// Why a process did not do what it was asked over HTTP.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// Not an address.
    #[error("`{0}` is not an address: write http://HOST:PORT or HOST:PORT")]
    Address(String),
    /// The client cannot be made.
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
    /// Nobody answers there.
    #[error("nobody answers at {url}; does the process run, and is this its address? ({reason})")]
    Unreachable {
        /// What was asked.
        url: Url,
        /// What the system says.
        reason: String,
    },
    /// The connection broke.
    #[error("{url} was asked, but its answer broke off ({reason})")]
    Broken {
        /// What was asked.
        url: Url,
        /// What happened.
        reason: String,
    },
    /// It refused.
    #[error("{url} says {status}: {message}")]
    Refused {
        /// What was asked.
        url: Url,
        /// The status.
        status: StatusCode,
        /// The reason that it gave.
        message: String,
    },
    /// It wants credentials, and the user's cannot be had.
    #[error("{url} wants credentials for the registry, and yours cannot be used: {reason}")]
    Credentials {
        /// What was asked.
        url: Url,
        /// Why not.
        reason: String,
    },
    /// The answer is not what it should be.
    #[error("{url} gave an answer that makes no sense ({reason}); is it packswarm's?")]
    Nonsense {
        /// What was asked.
        url: Url,
        /// What is wrong with it.
        reason: String,
    },
}

/// A client without connections yet.
pub(crate) fn client(user_agent: &str) -> Result<reqwest::Client, HttpError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // One that rustls cannot use makes the others no worse.
        let _ = roots.add(certificate);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Setup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(user_agent)
        .connect_timeout(CONNECT)
        // These are this machine's and the cluster's own processes.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build();
    client.map_err(|error| HttpError::Setup(sentence(&error)))
}

/// The base address of a process: a URL, or `HOST:PORT`.
pub(crate) fn base(text: &str) -> Result<Url, HttpError> {
    let wrong = || HttpError::Address(text.to_owned());
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&url).map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    if plain { Ok(url) } else { Err(wrong()) }
}

/// Sends a request; anything but success is an error with the reason from its body.
pub(crate) async fn send(request: reqwest::RequestBuilder, url: &Url) -> Result<Response, HttpError> {
    accept(transmit(request, url).await?, url).await
}

/// Sends a request, whatever the answer.
pub(crate) async fn transmit(request: reqwest::RequestBuilder, url: &Url) -> Result<Response, HttpError> {
    request.send().await.map_err(|error| {
        let (url, connecting) = (url.clone(), error.is_connect());
        let reason = sentence(&error.without_url());
        if connecting {
            HttpError::Unreachable { url, reason }
        } else {
            HttpError::Broken { url, reason }
        }
    })
}

/// An answer that is a success; any other is an error with the reason from its body.
pub(crate) async fn accept(response: Response, url: &Url) -> Result<Response, HttpError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = read(response, url, MAX_ERROR).await.unwrap_or_default();
    Err(HttpError::Refused {
        url: url.clone(),
        status,
        message: reason(&body),
    })
}

/// A body of at most `limit` bytes.
pub(crate) async fn read(mut response: Response, url: &Url, limit: usize) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                let reason = format!("it has more than {limit} bytes");
                return Err(HttpError::Nonsense {
                    url: url.clone(),
                    reason,
                });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                let (url, reason) = (url.clone(), sentence(&error.without_url()));
                return Err(HttpError::Broken { url, reason });
            }
        }
    }
}

/// The admin API of a process.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    client: reqwest::Client,
    base: Url,
}

impl Admin {
    /// That of the process at this address.
    pub(crate) fn new(address: &str) -> Result<Self, HttpError> {
        let user_agent = concat!("packswarm/", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            client: client(user_agent)?,
            base: base(address)?,
        })
    }

    /// Asks something.
    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>, HttpError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Asks something, and understands the answer.
    pub(crate) async fn get_as<T: DeserializeOwned>(&self, path: &str) -> Result<T, HttpError> {
        let body = self.get(path).await?;
        self.understand(path, &body)
    }

    /// Has something done, with or without a body, and understands the answer.
    pub(crate) async fn act<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, HttpError> {
        let answer = self.ask(method, path, body).await?;
        self.understand(path, &answer)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Vec<u8>, HttpError> {
        let url = self.url(path);
        let mut request = self.client.request(method, url.clone());
        if let Some(body) = body {
            let json = serde_json::to_vec(body).expect("what is sent can be written as JSON");
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(json);
        }
        read(send(request, &url).await?, &url, MAX_ANSWER).await
    }

    fn understand<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, HttpError> {
        serde_json::from_slice(body).map_err(|error| HttpError::Nonsense {
            url: self.url(path),
            reason: error.to_string(),
        })
    }

    fn url(&self, path: &str) -> Url {
        let base = self.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path}")).unwrap_or_else(|_| self.base.clone())
    }
}

/// What an error's body says: all our ports, and registries, have the OCI form.
fn reason(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["errors"][0]["message"].as_str());
    match message {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body)
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_scheme() {
        assert_eq!(base("127.0.0.1:7656").unwrap().as_str(), "http://127.0.0.1:7656/");
        assert_eq!(base("https://node.example/").unwrap().as_str(), "https://node.example/");
        for wrong in ["", "ftp://a", "http://", "http://a?x=1"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_reason_of_an_error_is_found() {
        assert_eq!(reason(br#"{"errors":[{"code":"DENIED","message":"no"}]}"#), "no");
        assert_eq!(reason(b"<html>\nBad\n"), "<html>Bad");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = Admin::new(&free.to_string())
            .unwrap()
            .get("/api/v1/status")
            .await
            .unwrap_err();
        assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("http://{free}/api/v1/status")),
            "{error}"
        );
    }
}
