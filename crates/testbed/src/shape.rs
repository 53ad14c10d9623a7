//! Connections that are only so fast.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

/// How far ahead of its rate a connection may write: enough to hide the timer's granularity.
const BURST: Duration = Duration::from_millis(20);
/// Written at a time, so that connections that share a rate take turns.
const MAX_WRITE: usize = 32 << 10;

/// Accepts connections that keep to rates.
pub(crate) struct ShapedListener {
    pub(crate) listener: TcpListener,
    /// Bytes per second of each connection.
    pub(crate) per_connection: Option<u64>,
    /// Shared by all connections.
    pub(crate) total: Option<Arc<Rate>>,
}

impl axum::serve::Listener for ShapedListener {
    type Io = Shaped;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Shaped, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was closed before it was set up");
        }
        let own = self.per_connection.map(|bytes| Arc::new(Rate::new(bytes)));
        let rates = own.into_iter().chain(self.total.clone()).collect();
        (
            Shaped {
                stream,
                rates,
                wait: None,
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Bytes per second.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_second: u64,
    /// When everything written so far would have been sent at this rate.
    sent_at: Mutex<Option<Instant>>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            sent_at: Mutex::new(None),
        }
    }

    /// When the next byte may be written.
    fn free_at(&self, now: Instant) -> Instant {
        let sent_at = self.sent_at.lock().unwrap_or_else(PoisonError::into_inner);
        sent_at.map_or(now, |at| at.checked_sub(BURST).unwrap_or(now))
    }

    fn spend(&self, now: Instant, bytes: usize) {
        let mut sent_at = self.sent_at.lock().unwrap_or_else(PoisonError::into_inner);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *sent_at = Some(sent_at.map_or(now, |at| at.max(now)) + takes);
    }
}

/// A connection whose writes wait for its rates.
pub(crate) struct Shaped {
    stream: TcpStream,
    rates: Vec<Arc<Rate>>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Shaped {
    /// Ready once every rate allows another write.
    fn poll_allowed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            let now = Instant::now();
            match self.rates.iter().map(|rate| rate.free_at(now)).max() {
                Some(at) if at > now => self.wait = Some(Box::pin(tokio::time::sleep_until(at))),
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncWrite for Shaped {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.rates.is_empty() {
            return Pin::new(&mut self.stream).poll_write(context, data);
        }
        ready!(self.poll_allowed(context));
        let part = &data[..data.len().min(MAX_WRITE)];
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, part))?;
        let now = Instant::now();
        self.rates.iter().for_each(|rate| rate.spend(now, written));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.rates.is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, data);
        }
        let first = data.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.rates.is_empty() && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Shaped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
