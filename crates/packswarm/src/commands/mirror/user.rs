//! The user's own credentials, for a mirror that asks for them in its registry's name.
//!
//! They are read when the mirror has refused a request without, and are shown to mirrors of this machine only, which pass
//! them to the registry inside the cluster's encrypted planes. The way to any other would carry them in the clear.

use std::net::IpAddr;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Url};
use wire::Authorization;
use wire::control::Repository;

use crate::commands::docker_config;
use crate::http::HttpError;

/// Whose credentials for one repository are asked for.
#[derive(Debug)]
pub(super) struct User {
    registry: registry::Client,
    repository: Repository,
    /// What the mirror took last.
    shown: tokio::sync::Mutex<Option<Authorization>>,
}

impl User {
    /// The user who runs this. These registries speak plain HTTP, so that a token may be fetched in such a way.
    pub(super) fn new(user_agent: &str, repository: &Repository, insecure: &[String]) -> Result<Self, HttpError> {
        let config = registry::Config {
            user_agent: user_agent.to_owned(),
            insecure: insecure.to_vec(),
            docker_config: docker_config::find(),
            ..registry::Config::default()
        };
        let registry = registry::Client::new(config).map_err(|error| HttpError::Setup(error.to_string()))?;
        Ok(Self {
            registry,
            repository: repository.clone(),
            shown: tokio::sync::Mutex::default(),
        })
    }

    /// What to show with the next request.
    pub(super) async fn shown(&self) -> Option<Authorization> {
        self.shown.lock().await.clone()
    }

    /// What to show after the mirror has refused `refused` with these headers; none if there is nothing better.
    pub(super) async fn better_than(
        &self,
        refused: Option<&Authorization>,
        headers: &HeaderMap,
        url: &Url,
    ) -> Result<Option<Authorization>, HttpError> {
        let mut shown = self.shown.lock().await;
        // Another request of this pull was refused as well, and has the answer already.
        if shown.as_ref() != refused {
            return Ok(shown.clone());
        }
        let found = self.registry.credential_for(&self.repository, headers).await;
        let found = found.map_err(|error| HttpError::Credentials {
            url: url.clone(),
            reason: error.to_string(),
        })?;
        let better = found.filter(|found| Some(found) != refused);
        shown.clone_from(&better);
        Ok(better)
    }
}

/// The request, with this credential if there is one.
pub(super) fn showing(request: RequestBuilder, authorization: Option<&Authorization>) -> RequestBuilder {
    let Some(authorization) = authorization else {
        return request;
    };
    let mut value = HeaderValue::from_str(authorization.expose()).expect("credentials are visible ASCII");
    value.set_sensitive(true);
    request.header(AUTHORIZATION, value)
}

/// Whether a mirror at this address runs on this machine.
pub(super) fn is_here(mirror: &Url) -> bool {
    let Some(host) = mirror.host_str() else {
        return false;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_on_this_machine() {
        for (mirror, here) in [
            ("http://127.0.0.1:7655", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:7655", true),
            ("http://localhost:7655", true),
            ("http://10.0.0.1:7655", false),
            ("http://[::]:7655", false),
            ("https://localhost.example", false),
            ("https://mirror.example", false),
        ] {
            assert_eq!(is_here(&mirror.parse().unwrap()), here, "{mirror}");
        }
    }
}
