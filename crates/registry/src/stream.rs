//! The bytes of one range, whatever happens on the way.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::blob::Shared;
use crate::body::Body;
use crate::error::RegistryError;
use crate::retry::Retry;
use crate::turns::Claim;

/// Yields exactly the bytes of a range. After a cut, a stall or a refusal that may pass, it goes on by itself with a new
/// request from where it stands, until its attempts are spent.
pub struct RangeStream {
    blob: Arc<Shared>,
    at: u64,
    end: u64,
    body: Option<Body>,
    /// While the body is, or is to be, the one that opened the blob.
    claim: Option<Claim>,
    retry: Retry,
}

impl RangeStream {
    /// Inside the opening body: takes its place there. Else asks the registry at once, so that a refusal is seen here.
    pub(crate) async fn open(blob: Arc<Shared>, range: Range<u64>) -> Result<Self, RegistryError> {
        let claim = if range.is_empty() {
            None
        } else {
            blob.opening().claim(range.start)
        };
        let retry = blob.retry();
        let mut stream = Self {
            blob,
            at: range.start,
            end: range.end,
            body: None,
            claim,
            retry,
        };
        if stream.claim.is_none() && !range.is_empty() {
            if !stream.blob.ranges() {
                return Err(stream.blob.out_of_order(range.start, stream.blob.opening().position()));
            }
            while stream.body.is_none() {
                if let Err(error) = stream.supply().await {
                    stream.retry.after(error).await?;
                }
            }
        }
        Ok(stream)
    }

    /// The next bytes; `None` once all have been yielded, or after an error. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        if self.at == self.end {
            return None;
        }
        let result = self.advance().await;
        match &result {
            Ok(bytes) => self.at += bytes.len() as u64,
            Err(_) => self.end = self.at,
        }
        if self.at == self.end {
            self.release();
        }
        Some(result)
    }

    /// Bytes that are still to come.
    pub const fn remaining(&self) -> u64 {
        self.end - self.at
    }

    async fn advance(&mut self) -> Result<Bytes, RegistryError> {
        loop {
            let step = match &mut self.body {
                None => self.supply().await.map(|()| None),
                Some(body) => {
                    let skipping = body.at() < self.at;
                    let limit = if skipping { self.at } else { self.end };
                    let bytes = body.next(limit).await;
                    if let Ok(Some(bytes)) = &bytes {
                        self.retry.progress(bytes.len() as u64);
                        if skipping {
                            continue;
                        }
                    }
                    match bytes {
                        Ok(None) => self.ended(),
                        other => other,
                    }
                }
            };
            match step {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(error) => {
                    self.body = None;
                    self.retry.after(error).await?;
                }
            }
        }
    }

    /// The body has ended as announced, before the range has. Where that is the opening body, the rest is simply asked
    /// for; else the registry has answered with less than was asked, which must not go on forever.
    fn ended(&mut self) -> Result<Option<Bytes>, RegistryError> {
        self.body = None;
        match self.claim.take() {
            Some(claim) if self.blob.ranges() => {
                claim.abandon();
                Ok(None)
            }
            claim => {
                self.claim = claim;
                Err(self.blob.short(self.at, self.end))
            }
        }
    }

    /// Gets a body: the opening one when its turn comes and it still leads here, else by a request.
    async fn supply(&mut self) -> Result<(), RegistryError> {
        if let Some(claim) = &mut self.claim {
            let ranges = self.blob.ranges();
            match claim.turn().await {
                Some(body) if body.at() == self.at || (!ranges && body.at() < self.at) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Some(body) if body.at() > self.at => {
                    let position = body.at();
                    self.give_back(Some(body));
                    if !ranges {
                        return Err(self.blob.out_of_order(self.at, position));
                    }
                }
                // Broken, or somebody has dropped a read before this one: asking anew is cheaper than skipping.
                Some(_) | None if ranges => {
                    if let Some(claim) = self.claim.take() {
                        claim.abandon();
                    }
                }
                Some(_) | None => {}
            }
        }
        self.body = Some(self.blob.request(self.at..self.end).await?);
        Ok(())
    }

    fn give_back(&mut self, body: Option<Body>) {
        if let Some(claim) = self.claim.take() {
            claim.hand_on(body);
        }
    }

    fn release(&mut self) {
        let body = self.body.take();
        self.give_back(body);
    }
}

impl Drop for RangeStream {
    fn drop(&mut self) {
        self.release();
    }
}

impl std::fmt::Debug for RangeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeStream")
            .field("at", &self.at)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
