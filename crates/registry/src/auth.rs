//! How far a repository had to be convinced, remembered per repository.
//!
//! A session starts open. A refusal moves it on: to an anonymous token, then to the operator's credentials (as Basic or
//! for a token), never further; with credentials the content counts as private. One request at a time fetches a token,
//! the others wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use wire::Authorization;
use wire::control::{Access, Repository};
use zeroize::Zeroizing;

use crate::challenge::{self, Bearer, Challenge};
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::token;

/// The most repositories remembered; the least recently used one is forgotten, and costs one refused request later.
const MAX_SESSIONS: usize = 1024;

/// The sessions of a client.
#[derive(Default)]
pub(crate) struct Sessions {
    by_repository: Mutex<HashMap<Repository, Arc<Session>>>,
    clock: AtomicU64,
}

impl Sessions {
    pub(crate) fn of(&self, repository: &Repository) -> Arc<Session> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut sessions = self.by_repository.lock().unwrap_or_else(PoisonError::into_inner);
        if !sessions.contains_key(repository) && sessions.len() >= MAX_SESSIONS {
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| session.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(repository, _)| repository.clone()) {
                sessions.remove(&oldest);
            }
        }
        let session = sessions.entry(repository.clone()).or_default();
        session.used.store(now, Ordering::Relaxed);
        Arc::clone(session)
    }
}

/// What one repository wants.
#[derive(Default)]
pub(crate) struct Session {
    state: tokio::sync::Mutex<State>,
    used: AtomicU64,
}

#[derive(Default)]
struct State {
    stage: Stage,
    pass: Option<Arc<Pass>>,
    /// Raised with every change, so that a refusal of an older grant changes nothing.
    generation: u64,
    /// When credentials were first used.
    private_since: Option<Instant>,
    /// What the registry says to those who have nothing to show.
    challenge: Option<String>,
}

#[derive(Default, Clone, PartialEq, Eq)]
enum Stage {
    /// Nothing was refused yet.
    #[default]
    Open,
    /// A token that anybody gets.
    Anonymous(Bearer),
    /// The operator's credentials, shown to the registry.
    Basic,
    /// A token got with the operator's credentials.
    Bearer(Bearer),
}

/// What goes into `Authorization`.
struct Pass {
    header: Zeroizing<String>,
    renew_at: Option<Instant>,
    /// The registry has accepted it: a refusal then means that it has expired, not that it is too little.
    proven: AtomicBool,
}

/// What a request is sent with.
pub(crate) struct Grant {
    pass: Option<Arc<Pass>>,
    generation: u64,
    /// What a success says about the content.
    pub(crate) access: Access,
}

impl Grant {
    /// A client's credential, as it came. Nothing is known of what others may read.
    pub(crate) fn of_client(authorization: &Authorization) -> Self {
        let pass = Pass {
            header: Zeroizing::new(authorization.expose().to_owned()),
            renew_at: None,
            proven: AtomicBool::new(false),
        };
        Self {
            pass: Some(Arc::new(pass)),
            generation: 0,
            access: Access::Personal,
        }
    }

    /// Nothing.
    pub(crate) const fn of_stranger() -> Self {
        Self {
            pass: None,
            generation: 0,
            access: Access::Public,
        }
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.pass.as_ref()?.header).expect("passes are made of visible ASCII");
        value.set_sensitive(true);
        Some(value)
    }

    /// The registry accepted it.
    pub(crate) fn accepted(&self) {
        if let Some(pass) = &self.pass {
            pass.proven.store(true, Ordering::Relaxed);
        }
    }

    fn is_proven(&self) -> bool {
        self.pass
            .as_ref()
            .is_some_and(|pass| pass.proven.load(Ordering::Relaxed))
    }
}

impl Session {
    /// What to send the next request with. Fetches a token if there is none, or soon none that is valid.
    pub(crate) async fn grant(&self, client: &Client, endpoint: &Endpoint) -> Result<Grant, RegistryError> {
        let mut state = self.state.lock().await;
        if state
            .private_since
            .is_some_and(|since| since.elapsed() >= client.config().reprobe)
        {
            state.move_to(Stage::Open);
        }
        let fresh = state.stage == Stage::Open || state.pass.as_ref().is_some_and(|pass| pass.is_fresh());
        if !fresh && let Err(error) = state.renew(client, endpoint).await {
            if !error.is_retryable() {
                state.move_to(Stage::Open);
            }
            return Err(error);
        }
        Ok(state.grant())
    }

    /// The registry refused `grant` with these headers. Whether another try, with another grant, makes sense.
    pub(crate) async fn refused(
        &self,
        client: &Client,
        endpoint: &Endpoint,
        grant: &Grant,
        headers: &HeaderMap,
    ) -> Result<bool, RegistryError> {
        let mut state = self.state.lock().await;
        if state.generation != grant.generation {
            return Ok(true);
        }
        let offered = challenge::best(headers);
        if state.stage == Stage::Open {
            state.challenge = challenge::verbatim(headers);
        }
        let next = match (state.stage.clone(), offered) {
            (Stage::Open, Some(Challenge::Bearer(bearer))) => Some(Stage::Anonymous(bearer)),
            (Stage::Open, Some(Challenge::Basic) | None) => Some(Stage::Basic),
            (stage, _) if grant.is_proven() => Some(stage),
            (Stage::Anonymous(_), Some(Challenge::Bearer(bearer))) => Some(Stage::Bearer(bearer)),
            (Stage::Anonymous(bearer), None) => Some(Stage::Bearer(bearer)),
            (Stage::Anonymous(_), Some(Challenge::Basic)) => Some(Stage::Basic),
            (Stage::Basic | Stage::Bearer(_), _) => None,
        };
        match next {
            None => {
                state.move_to(Stage::Open);
                Ok(false)
            }
            Some(next) if next.is_private() && client.credential(endpoint).await?.is_none() => Ok(false),
            Some(next) => {
                state.move_to(next);
                Ok(true)
            }
        }
    }

    /// The registry's challenge to those who have nothing to show, if it has refused one.
    pub(crate) async fn challenge(&self) -> Option<String> {
        self.state.lock().await.challenge.clone()
    }
}

impl State {
    fn move_to(&mut self, stage: Stage) {
        self.private_since = if stage.is_private() {
            self.private_since.or_else(|| Some(Instant::now()))
        } else {
            None
        };
        self.stage = stage;
        self.pass = None;
        self.generation += 1;
    }

    fn grant(&self) -> Grant {
        let access = if self.stage.is_private() {
            Access::Private
        } else {
            Access::Public
        };
        Grant {
            pass: self.pass.clone(),
            generation: self.generation,
            access,
        }
    }

    /// A new pass for the stage; on to credentials where the token endpoint refuses anonymity.
    async fn renew(&mut self, client: &Client, endpoint: &Endpoint) -> Result<(), RegistryError> {
        if let Stage::Anonymous(bearer) = self.stage.clone() {
            match token::fetch(client, endpoint, &bearer, None).await {
                Ok(token) => {
                    self.take(Pass::token(token));
                    return Ok(());
                }
                Err(error) => {
                    let refused = matches!(
                        error,
                        RegistryError::Token {
                            status: Some(401 | 403),
                            ..
                        }
                    );
                    if !refused || client.credential(endpoint).await?.is_none() {
                        return Err(error);
                    }
                    self.move_to(Stage::Bearer(bearer));
                }
            }
        }
        let Some(credential) = client.credential(endpoint).await? else {
            // The operator took it away: as if it had never been.
            self.move_to(Stage::Open);
            return Ok(());
        };
        match (self.stage.clone(), credential.basic()) {
            (Stage::Bearer(bearer), _) => {
                let token = token::fetch(client, endpoint, &bearer, Some(&credential)).await?;
                self.take(Pass::token(token));
            }
            (Stage::Basic, Some(header)) => {
                self.take(Pass {
                    header,
                    renew_at: None,
                    proven: AtomicBool::new(false),
                });
            }
            // An identity token is for token endpoints; a registry that wants Basic cannot use it.
            (Stage::Basic, None) => self.move_to(Stage::Open),
            (Stage::Open | Stage::Anonymous(_), _) => {}
        }
        Ok(())
    }

    fn take(&mut self, pass: Pass) {
        self.pass = Some(Arc::new(pass));
        self.generation += 1;
    }
}

impl Stage {
    const fn is_private(&self) -> bool {
        matches!(self, Self::Basic | Self::Bearer(_))
    }
}

impl Pass {
    fn token(token: token::Token) -> Self {
        Self {
            header: token.header,
            renew_at: Some(token.renew_at),
            proven: AtomicBool::new(false),
        }
    }

    fn is_fresh(&self) -> bool {
        self.renew_at.is_none_or(|at| Instant::now() < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repositories_remembered_are_bounded_and_the_latest_kept() {
        let sessions = Sessions::default();
        let repository = |n: usize| Repository {
            registry: "registry.example".to_owned(),
            name: n.to_string(),
        };
        let first = sessions.of(&repository(0));
        for n in 1..=MAX_SESSIONS {
            sessions.of(&repository(n));
            assert!(
                Arc::ptr_eq(&first, &sessions.of(&repository(0))),
                "used again and again: {n}"
            );
        }
        let kept = sessions.by_repository.lock().unwrap();
        assert_eq!(kept.len(), MAX_SESSIONS);
        assert!(!kept.contains_key(&repository(1)), "the one that was used longest ago");
    }
}
