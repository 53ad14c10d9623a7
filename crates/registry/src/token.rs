//! Bearer tokens: fetched from the endpoint that a registry's challenge names.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::answer;
use crate::body;
use crate::challenge::Bearer;
use crate::client::Client;
use crate::credentials::Credential;
use crate::endpoint::{Endpoint, is_local_address};
use crate::error::{Lie, RegistryError};
use crate::meter::RequestKind;
use crate::request::shown;

/// A token's life when the endpoint names none (token specification of CNCF Distribution).
const DEFAULT_LIFE: u64 = 60;
/// Clouds' tokens list every group of their owner; they still fit a request's headers.
const MAX_ANSWER: u64 = 256 << 10;

/// A token as it goes into `Authorization`, and when to have a new one.
pub struct Token {
    /// `Bearer ...`.
    pub header: Zeroizing<String>,
    /// A little before it ends.
    pub renew_at: Instant,
}

impl Token {
    /// The token in a token endpoint's answer, which came `now`.
    ///
    /// # Errors
    /// What is wrong with the answer, without the answer.
    pub fn read(json: &[u8], now: Instant) -> Result<Self, &'static str> {
        let answer: Answer = serde_json::from_slice(json).map_err(|_| "the answer is not the JSON of a token")?;
        answer.token(now).ok_or("the answer holds no token")
    }
}

/// Where tokens for `endpoint` come from, if its challenge names a place that may be told a credential.
pub(crate) fn realm(endpoint: &Endpoint, bearer: &Bearer) -> Result<Url, RegistryError> {
    let refused = |reason| RegistryError::Misbehaved {
        request: shown(&endpoint.base),
        lie: Lie::Realm(reason),
    };
    let mut url = Url::parse(&bearer.realm).map_err(|_| refused("not a URL"))?;
    if url.set_username("").and_then(|()| url.set_password(None)).is_err() || !matches!(url.scheme(), "http" | "https")
    {
        return Err(refused("not an http or https URL"));
    }
    if url.scheme() == "http" && endpoint.base.scheme() == "https" {
        return Err(refused("plain HTTP, though the registry is HTTPS"));
    }
    if is_local_address(&url) && !is_local_address(&endpoint.base) {
        return Err(refused(
            "a loopback or link-local address, though the registry is elsewhere",
        ));
    }
    Ok(url)
}

/// A token for what `bearer` asks; anonymous without a credential.
pub(crate) async fn fetch(
    client: &Client,
    endpoint: &Endpoint,
    bearer: &Bearer,
    credential: Option<&Credential>,
) -> Result<Token, RegistryError> {
    let realm = realm(endpoint, bearer)?;
    let failed = Failed {
        endpoint,
        realm: shown(&realm),
    };
    let response = send(client, endpoint, request(realm, endpoint, bearer, credential), &failed).await?;
    let status = response.status();
    if !status.is_success() {
        let retry_after = answer::retry_after(response.headers(), SystemTime::now());
        let transient = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        let reason = format!("answered {status}");
        return Err(failed.with(reason, Some(status.as_u16()), retry_after, transient));
    }
    let read_timeout = client.config().read_timeout;
    let collected = body::collect(response, MAX_ANSWER, read_timeout, &failed.realm, |_| ()).await;
    // The answer holds the token: it is wiped once read.
    let mut text = match collected {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) => return Err(failed.with(error.to_string(), None, None, error.is_retryable())),
    };
    let read = Token::read(&text, Instant::now());
    text.zeroize();
    read.map_err(|reason| failed.with(reason.to_owned(), None, None, false))
}

/// What the endpoint is asked: a `GET`, or for a refresh token OAuth2's `POST`.
struct Request {
    method: Method,
    url: Url,
    authorization: Option<Zeroizing<String>>,
    form: Option<Zeroizing<String>>,
}

fn request(mut url: Url, endpoint: &Endpoint, bearer: &Bearer, credential: Option<&Credential>) -> Request {
    let default = format!("repository:{}:pull", endpoint.repository.name);
    let scope = bearer
        .scope
        .as_deref()
        .filter(|scope| !scope.trim().is_empty())
        .unwrap_or(&default);
    if let Some(Credential::Identity(refresh)) = credential {
        // Reserved at once: growing would leave copies of the secret behind.
        let room = 3 * (refresh.len() + scope.len() + bearer.service.as_ref().map_or(0, String::len)) + 128;
        let mut form = Serializer::new(String::with_capacity(room));
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "packswarm");
        if let Some(service) = &bearer.service {
            form.append_pair("service", service);
        }
        form.append_pair("scope", scope).append_pair("refresh_token", refresh);
        return Request {
            method: Method::POST,
            url,
            authorization: None,
            form: Some(Zeroizing::new(form.finish())),
        };
    }
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(bearer.service.iter().map(|service| ("service", service)));
        query.extend_pairs(scope.split_whitespace().map(|scope| ("scope", scope)));
    }
    Request {
        method: Method::GET,
        url,
        authorization: credential.and_then(Credential::basic),
        form: None,
    }
}

async fn send(
    client: &Client,
    endpoint: &Endpoint,
    request: Request,
    failed: &Failed<'_>,
) -> Result<reqwest::Response, RegistryError> {
    let mut builder = client
        .http(endpoint)
        .request(request.method, request.url)
        .header(ACCEPT_ENCODING, "identity");
    if let Some(authorization) = &request.authorization {
        let mut value = HeaderValue::from_str(authorization).expect("base64 is fit for a header");
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    if let Some(form) = &request.form {
        builder = builder
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.as_bytes().to_vec());
    }
    client
        .meter()
        .request(&endpoint.repository.registry, RequestKind::Token);
    let timeout = client.config().answer_timeout;
    match tokio::time::timeout(timeout, builder.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(failed.with(crate::request::reason(error), None, None, true)),
        Err(_) => Err(failed.with(format!("no answer for {timeout:?}"), Some(504), None, true)),
    }
}

/// Names the endpoint in errors.
struct Failed<'a> {
    endpoint: &'a Endpoint,
    realm: String,
}

impl Failed<'_> {
    fn with(&self, reason: String, status: Option<u16>, retry_after: Option<u32>, transient: bool) -> RegistryError {
        let repository = &self.endpoint.repository;
        let request = format!("{}/{}", repository.registry, repository.name);
        RegistryError::Token {
            request,
            realm: self.realm.clone(),
            reason,
            status,
            retry_after,
            transient,
        }
    }
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Answer {
    fn token(&self, now: Instant) -> Option<Token> {
        let given = [&self.token, &self.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())?;
        let fit = given.bytes().all(|b| b.is_ascii_graphic());
        // An absurd life must not overflow the clock.
        let life = Duration::from_secs(self.expires_in.unwrap_or(DEFAULT_LIFE).min(30 * 86_400));
        // Renewed a little early: a request is on its way for a while.
        let renew_at = now + (life - (life / 4).min(Duration::from_secs(15)));
        fit.then(|| Token {
            header: Zeroizing::new(format!("Bearer {given}")),
            renew_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Option<(String, Duration)> {
        let now = Instant::now();
        let answer: Answer = serde_json::from_str(text).unwrap();
        answer
            .token(now)
            .map(|token| (token.header.to_string(), token.renew_at - now))
    }

    #[test]
    fn tokens_and_their_lives() {
        let seconds = Duration::from_secs;
        assert_eq!(
            answer(r#"{"token":"a","access_token":"b"}"#),
            Some(("Bearer a".into(), seconds(45)))
        );
        assert_eq!(
            answer(r#"{"access_token":"b","expires_in":300}"#),
            Some(("Bearer b".into(), seconds(285)))
        );
        assert_eq!(
            answer(r#"{"token":"a","expires_in":0}"#),
            Some(("Bearer a".into(), seconds(0)))
        );
        assert!(answer(&format!(r#"{{"token":"a","expires_in":{}}}"#, u64::MAX)).is_some());
        assert_eq!(answer(r#"{"token":""}"#), None);
        assert_eq!(answer(r#"{"token":"a\nb"}"#), None);
    }
}
