//! A body on its way to a client: exactly as many bytes as its head promised, or a cut connection.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use piece::Digest;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tracing::warn;

use crate::content::{Cut, Meter};

/// A request's share of what the mirror may do at a time, given back when its body has gone or its client has.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) _request: OwnedSemaphorePermit,
    /// For answers that are held in memory.
    pub(crate) _document: Option<OwnedSemaphorePermit>,
}

/// What a body is made of.
pub(crate) struct Delivery {
    /// For the log.
    pub(crate) digest: Option<Digest>,
    pub(crate) content: BoxStream<'static, Result<Bytes, Cut>>,
    /// Bytes that the head promises.
    pub(crate) length: u64,
    pub(crate) meter: Arc<dyn Meter>,
    /// How long `content` may be silent.
    pub(crate) stall: Duration,
    pub(crate) _slot: Slot,
}

impl Delivery {
    pub(crate) fn into_body(self) -> Body {
        let timer = Box::pin(tokio::time::sleep(self.stall));
        Body::from_stream(Delivering {
            missing: self.length,
            timer,
            waiting: false,
            delivery: self,
        })
    }
}

struct Delivering {
    delivery: Delivery,
    missing: u64,
    timer: Pin<Box<Sleep>>,
    /// Whether the client waits for the content, and `timer` runs.
    waiting: bool,
}

impl Stream for Delivering {
    type Item = Result<Bytes, Cut>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.missing == 0 {
            return Poll::Ready(None);
        }
        let part = match self.delivery.content.as_mut().poll_next(cx) {
            Poll::Ready(Some(part)) => part,
            Poll::Ready(None) => Err(Cut("the content ended before its end".to_owned())),
            Poll::Pending if self.has_stalled(cx) => {
                Err(Cut(format!("no byte came for {} s", self.delivery.stall.as_secs())))
            }
            Poll::Pending => return Poll::Pending,
        };
        self.waiting = false;
        Poll::Ready(Some(self.check(part)))
    }
}

impl Delivering {
    fn check(&mut self, part: Result<Bytes, Cut>) -> Result<Bytes, Cut> {
        let checked = part.and_then(|part| match self.missing.checked_sub(part.len() as u64) {
            Some(missing) => Ok((part, missing)),
            None => Err(Cut("the content went on past its end".to_owned())),
        });
        match checked {
            Ok((part, missing)) => {
                self.missing = missing;
                self.delivery.meter.bytes(part.len() as u64);
                Ok(part)
            }
            Err(cut) => {
                let digest = self.delivery.digest.map(tracing::field::display);
                warn!(digest, missing = self.missing, of = self.delivery.length, %cut, "cutting a client's connection");
                Err(cut)
            }
        }
    }

    fn has_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.waiting {
            self.waiting = true;
            let deadline = Instant::now() + self.delivery.stall;
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}
