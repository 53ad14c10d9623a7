//! Bodies: read to their end, or as part of a blob.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use crate::error::{Lie, RegistryError};
use crate::meter::{Meter, RequestKind};
use crate::request::reason;

/// The whole body, if it stays within `limit`. `arrived` is told of every chunk's length.
pub(crate) async fn collect(
    mut response: Response,
    limit: u64,
    read_timeout: Duration,
    request: &str,
    arrived: impl Fn(u64),
) -> Result<Vec<u8>, RegistryError> {
    let announced = response.content_length().unwrap_or(0);
    let too_large = || RegistryError::Misbehaved {
        request: request.to_owned(),
        lie: Lie::TooLarge(limit),
    };
    if announced > limit {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(usize::try_from(announced).map_err(|_| too_large())?);
    while let Some(chunk) = next(&mut response, read_timeout, request).await? {
        arrived(chunk.len() as u64);
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn next(response: &mut Response, read_timeout: Duration, request: &str) -> Result<Option<Bytes>, RegistryError> {
    match tokio::time::timeout(read_timeout, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(RegistryError::Cut {
            request: request.to_owned(),
            reason: reason(error),
        }),
        Err(_) => {
            let request = request.to_owned();
            Err(RegistryError::TimedOut {
                request,
                missing: "further bytes",
                after: read_timeout,
            })
        }
    }
}

/// A part of a blob on its way: bytes `at..end`.
pub(crate) struct Body {
    response: Response,
    at: u64,
    end: u64,
    /// Arrived, but not taken yet.
    surplus: Bytes,
    request: String,
    account: Account,
}

/// Whom arriving bytes are counted for, and how long they are waited for.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) meter: Arc<dyn Meter>,
    pub(crate) registry: String,
    pub(crate) kind: RequestKind,
    pub(crate) read_timeout: Duration,
}

impl Body {
    /// The body of `response`, which has announced bytes `at..end`.
    pub(crate) const fn new(response: Response, at: u64, end: u64, request: String, account: Account) -> Self {
        Self {
            response,
            at,
            end,
            surplus: Bytes::new(),
            request,
            account,
        }
    }

    /// Which byte comes next.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Where it ends.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// The next bytes, none at or behind `limit`. `None` at the announced end.
    pub(crate) async fn next(&mut self, limit: u64) -> Result<Option<Bytes>, RegistryError> {
        while self.surplus.is_empty() {
            let Some(chunk) = next(&mut self.response, self.account.read_timeout, &self.request).await? else {
                if self.at == self.end {
                    return Ok(None);
                }
                let reason = format!("{} of its bytes are missing", self.end - self.at);
                return Err(RegistryError::Cut {
                    request: self.request.clone(),
                    reason,
                });
            };
            let bytes = chunk.len() as u64;
            self.account
                .meter
                .received(&self.account.registry, self.account.kind, bytes);
            if bytes > self.end - self.at {
                let lie = Lie::TooManyBytes(self.end);
                return Err(RegistryError::Misbehaved {
                    request: self.request.clone(),
                    lie,
                });
            }
            self.surplus = chunk;
        }
        let room = usize::try_from(limit.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let taken = self.surplus.split_to(room.min(self.surplus.len()));
        self.at += taken.len() as u64;
        Ok(Some(taken))
    }
}
