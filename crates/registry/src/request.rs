//! One attempt at one request: authorised, redirected, and sorted into answer or error.

use std::error::Error as _;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use url::Url;
use wire::control::Access;

use crate::auth::Grant;
use crate::body;
use crate::client::{Asker, Client};
use crate::endpoint::{Endpoint, is_local_address};
use crate::error::{Lie, RegistryError};
use crate::meter::RequestKind;
use crate::{answer, challenge};

/// Open, anonymous token, credentials: three. The rest is for tokens that expire on the way.
const MAX_ROUNDS: usize = 6;
/// Object storage takes one or two.
const MAX_REDIRECTS: usize = 5;
/// Of an error's body.
const MAX_ERROR_BODY: u64 = 16 << 10;
/// An error's body is waited for only briefly: the status is what counts.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked of a registry.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) kind: RequestKind,
    pub(crate) accept: Option<&'static str>,
    pub(crate) range: Option<Range<u64>>,
}

impl Ask<'_> {
    /// As errors name it: without the query, which may be a client's.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{} {}", self.method, shown(&self.url));
        if let Some(range) = &self.range {
            write!(text, " (bytes {} to {})", range.start, range.end).expect("writing to a String cannot fail");
        }
        text
    }

    pub(crate) fn lie(&self, lie: Lie) -> RegistryError {
        RegistryError::Misbehaved {
            request: self.shown(),
            lie,
        }
    }
}

/// A 2xx, a 416, or the redirect of a probe.
pub(crate) struct Answered {
    pub(crate) response: Response,
    pub(crate) access: Access,
    /// Where the answer came from, when that is another host than the registry.
    pub(crate) storage: Option<Url>,
}

impl Client {
    /// Asks once: with a client's credential, or with whatever authorisation the repository turns out to want.
    pub(crate) async fn attempt(&self, ask: &Ask<'_>) -> Result<Answered, RegistryError> {
        match self.asker() {
            Asker::Node => self.attempt_as_node(ask).await,
            Asker::Client(authorization) => self.attempt_with(ask, &Grant::of_client(authorization)).await,
            Asker::Stranger => self.attempt_with(ask, &Grant::of_stranger()).await,
        }
    }

    async fn attempt_with(&self, ask: &Ask<'_>, grant: &Grant) -> Result<Answered, RegistryError> {
        let response = self.send(ask, ask.url.clone(), grant.header()).await?;
        self.settle(ask, response, grant).await
    }

    async fn attempt_as_node(&self, ask: &Ask<'_>) -> Result<Answered, RegistryError> {
        let session = self.session(ask.endpoint);
        let mut refusal: Option<RegistryError> = None;
        for _ in 0..MAX_ROUNDS {
            let grant = match session.grant(self, ask.endpoint).await {
                Ok(grant) => grant,
                Err(error) => return Err(prefer_challenge(refusal, error)),
            };
            let response = self.send(ask, ask.url.clone(), grant.header()).await?;
            if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                grant.accepted();
                return self.settle(ask, response, &grant).await;
            }
            let headers = response.headers().clone();
            refusal = Some(refused(ask, response, false).await);
            if !session.refused(self, ask.endpoint, &grant, &headers).await? {
                break;
            }
        }
        let refusal = refusal.expect("the loop has run, and went on only after a refusal");
        Err(as_to_strangers(refusal, session.challenge().await))
    }

    /// Asks the storage that a registry redirected to before. `None`: it no longer accepts that URL.
    pub(crate) async fn attempt_storage(&self, ask: &Ask<'_>, url: Url) -> Result<Option<Response>, RegistryError> {
        let response = self.send(ask, url, None).await?;
        match response.status().as_u16() {
            200..=299 | 416 => accept(ask, response).map(Some),
            // What signed URLs answer once they have expired, by cloud.
            400 | 401 | 403 | 404 | 410 => Ok(None),
            _ => Err(refused(ask, response, true).await),
        }
    }

    /// Follows redirects and sorts the last answer.
    async fn settle(&self, ask: &Ask<'_>, mut response: Response, grant: &Grant) -> Result<Answered, RegistryError> {
        let mut url = ask.url.clone();
        let mut own = true;
        for followed in 0.. {
            let Some(target) = redirect(ask, &url, &response)? else {
                let status = response.status();
                if !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE {
                    return Err(refused(ask, response, !own).await);
                }
                let response = accept(ask, response)?;
                return Ok(Answered {
                    response,
                    access: self.access(ask.endpoint, grant),
                    storage: (!own).then_some(url),
                });
            };
            if followed == MAX_REDIRECTS {
                break;
            }
            // Once away from the registry, never authorised again: not even if storage sends us back.
            own = own && target.origin() == ask.endpoint.base.origin();
            if !own && ask.method == Method::HEAD && ask.kind == RequestKind::Probe && is_blob(&ask.url) {
                // The registry has said yes. A URL signed for GET would answer a HEAD with 403.
                return Ok(Answered {
                    response,
                    access: self.access(ask.endpoint, grant),
                    storage: Some(target),
                });
            }
            url = target;
            response = self
                .send(ask, url.clone(), own.then(|| grant.header()).flatten())
                .await?;
        }
        Err(ask.lie(Lie::Redirect("more than five in a row")))
    }

    /// Only the node's own requests show its certificate.
    pub(crate) fn http<'e>(&self, endpoint: &'e Endpoint) -> &'e reqwest::Client {
        match self.asker() {
            Asker::Node => endpoint.certified.as_ref().unwrap_or(&endpoint.http),
            Asker::Client(_) | Asker::Stranger => &endpoint.http,
        }
    }

    /// What a success says about the content. Where the registry knows this node by its certificate, nobody else has asked.
    fn access(&self, endpoint: &Endpoint, grant: &Grant) -> Access {
        match (self.asker(), grant.access) {
            (Asker::Node, Access::Public) if endpoint.certified.is_some() => Access::Private,
            (_, access) => access,
        }
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        url: Url,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut request = self
            .http(ask.endpoint)
            .request(ask.method.clone(), url)
            .header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &ask.range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.meter().request(&ask.endpoint.repository.registry, ask.kind);
        let after = self.config().answer_timeout;
        match tokio::time::timeout(after, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_timeout() => {
                let after = self.config().connect_timeout;
                Err(RegistryError::TimedOut {
                    request: ask.shown(),
                    missing: "connection",
                    after,
                })
            }
            Ok(Err(error)) if error.is_connect() => Err(RegistryError::Unreachable {
                request: ask.shown(),
                reason: reason(error),
            }),
            Ok(Err(error)) => Err(RegistryError::Cut {
                request: ask.shown(),
                reason: reason(error),
            }),
            Err(_) => Err(RegistryError::TimedOut {
                request: ask.shown(),
                missing: "answer",
                after,
            }),
        }
    }
}

/// A URL as errors show it: queries and user info may be secrets.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// What an HTTP error says, with its causes and without the URL.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("writing to a String cannot fail");
        cause = error.source();
    }
    text
}

/// The registry's own 401, which carries the challenge for the client, says more than the token endpoint's.
fn prefer_challenge(refusal: Option<RegistryError>, error: RegistryError) -> RegistryError {
    match (refusal, &error) {
        (
            Some(refusal),
            RegistryError::Token {
                status: Some(401 | 403),
                ..
            },
        ) => refusal,
        _ => error,
    }
}

/// A client is told how to do better in the words that the registry has for those who come with nothing: what it says of
/// this node's own token is not about the client, and a 403 to one that it gives to anybody says nothing at all.
fn as_to_strangers(refusal: RegistryError, to_strangers: Option<String>) -> RegistryError {
    match (refusal, to_strangers) {
        (
            RegistryError::Refused {
                request,
                status: 401 | 403,
                detail,
                retry_after,
                challenge: _,
                redirected: false,
            },
            Some(challenge),
        ) => RegistryError::Refused {
            request,
            status: 401,
            detail,
            retry_after,
            challenge: Some(challenge),
            redirected: false,
        },
        (refusal, _) => refusal,
    }
}

fn is_blob(url: &Url) -> bool {
    url.path().rsplit('/').nth(1) == Some("blobs")
}

/// Where `response` sends us, if it does.
fn redirect(ask: &Ask<'_>, from: &Url, response: &Response) -> Result<Option<Url>, RegistryError> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| redirects) else {
        return Ok(None);
    };
    let refused = |reason| ask.lie(Lie::Redirect(reason));
    let mut to = location
        .to_str()
        .ok()
        .and_then(|location| from.join(location).ok())
        .filter(|to| matches!(to.scheme(), "http" | "https"))
        .ok_or_else(|| refused("its Location is not an http or https URL"))?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(refused("from HTTPS to plain HTTP"));
    }
    if is_local_address(&to) && !is_local_address(&ask.endpoint.base) {
        return Err(refused(
            "to a loopback or link-local address, though the registry is elsewhere",
        ));
    }
    // User info would become an `Authorization`.
    to.set_username("")
        .and_then(|()| to.set_password(None))
        .map_err(|()| refused("its Location has no host"))?;
    Ok(Some(to))
}

fn accept(ask: &Ask<'_>, response: Response) -> Result<Response, RegistryError> {
    answer::identity(response.headers()).map_err(|lie| ask.lie(lie))?;
    Ok(response)
}

async fn refused(ask: &Ask<'_>, response: Response, redirected: bool) -> RegistryError {
    let status = response.status().as_u16();
    let retry_after = answer::retry_after(response.headers(), SystemTime::now());
    let challenge = if status == 401 {
        challenge::verbatim(response.headers())
    } else {
        None
    };
    let rate_limit = answer::rate_limit(response.headers()).filter(|_| status == 429);
    // Only the registry's own words: a storage's error may quote the signed request.
    let mut detail = None;
    if !redirected && ask.method != Method::HEAD {
        let body = body::collect(response, MAX_ERROR_BODY, ERROR_BODY_TIMEOUT, "error", |_| ()).await;
        detail = body.ok().and_then(|body| answer::error_detail(&body));
    }
    if let Some(limit) = rate_limit {
        detail = Some(detail.map_or_else(|| limit.clone(), |detail| format!("{detail} ({limit})")));
    }
    RegistryError::Refused {
        request: ask.shown(),
        status,
        detail,
        retry_after,
        challenge,
        redirected,
    }
}
