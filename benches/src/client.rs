//! An HTTP client that costs little: one blocking connection, bodies read into one buffer and forgotten.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Read at a time: above this, nothing was gained.
const BUFFER: usize = 256 << 10;
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, kept open between requests.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A body that has come.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Its length, as far as it was read.
    pub bytes: u64,
    /// From the request to the body's first byte.
    pub first_byte: Duration,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER, stream),
        })
    }

    /// Gets a path, or a range of it, and reads the body to its end.
    ///
    /// # Errors
    /// If the answer is no success, or shorter than its head says.
    pub fn get(&mut self, path: &str, range: Option<Range<u64>>) -> Outcome<Answer> {
        self.follow(path, range, |_| {})
    }

    /// [`Client::get`], and tells `seen` of the bytes so far whenever more have come.
    ///
    /// # Errors
    /// As there.
    pub fn follow(&mut self, path: &str, range: Option<Range<u64>>, mut seen: impl FnMut(u64)) -> Outcome<Answer> {
        let (length, sent) = self.ask(path, range)?;
        let first_byte = self.wait_for_body(length, sent)?;
        let mut left = length;
        while left > 0 {
            let here = self.stream.fill_buf()?.len();
            if here == 0 {
                return Err(format!("{path}: cut {left} bytes before its end").into());
            }
            let taken = usize::try_from(left).map_or(here, |left| left.min(here));
            self.stream.consume(taken);
            left -= taken as u64;
            seen(length - left);
        }
        Ok(Answer {
            bytes: length,
            first_byte,
        })
    }

    /// Gets a path, and hangs up at the body's first byte.
    ///
    /// # Errors
    /// If the answer is no success.
    pub fn peek(mut self, path: &str) -> Outcome<Duration> {
        let (length, sent) = self.ask(path, None)?;
        self.wait_for_body(length, sent)
    }

    fn wait_for_body(&mut self, length: u64, sent: Instant) -> Outcome<Duration> {
        if length > 0 && self.stream.fill_buf()?.is_empty() {
            return Err("cut before the first byte".into());
        }
        Ok(sent.elapsed())
    }

    /// Sends a request and reads the head of its answer: how long the body is, and when the request went out.
    fn ask(&mut self, path: &str, range: Option<Range<u64>>) -> Outcome<(u64, Instant)> {
        let range = range.map_or_else(String::new, |range| {
            format!("Range: bytes={}-{}\r\n", range.start, range.end - 1)
        });
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{range}\r\n");
        let sent = Instant::now();
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = None;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        let length = length.ok_or_else(|| format!("{path}: no length: {status}"))?;
        if status.starts_with("HTTP/1.1 200") || status.starts_with("HTTP/1.1 206") {
            return Ok((length, sent));
        }
        let mut reason = String::new();
        self.stream.by_ref().take(length).read_to_string(&mut reason)?;
        Err(format!("{path}: {}: {reason}", status.trim_end()).into())
    }
}
