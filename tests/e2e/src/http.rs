//! A small HTTP/1.1 client, for admin endpoints and for clients that misbehave: it can stop in the middle of a body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A read that gets nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    method: &'a str,
    address: SocketAddr,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
    /// Bytes of the body that are still to come.
    left: u64,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl<'a> Request<'a> {
    /// A GET.
    pub fn get(address: SocketAddr, path: &'a str) -> Self {
        Self::new("GET", address, path)
    }

    /// Any method.
    pub fn new(method: &'a str, address: SocketAddr, path: &'a str) -> Self {
        Self {
            method,
            address,
            path,
            headers: Vec::new(),
            body: &[],
        }
    }

    /// Adds a header line. Names may be repeated.
    pub fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// Sends it, and reads the answer's head only.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn open(&self) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.method, self.path, self.address
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" || self.method == "PUT" {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        stream.write_all(self.body)?;
        Answer::read(BufReader::new(stream), self.method == "HEAD")
    }

    /// Sends it, and reads the whole answer.
    ///
    /// # Errors
    /// If the connection fails, or the body ends early.
    pub fn try_send(&self) -> std::io::Result<Response> {
        let mut answer = self.open()?;
        let mut body = Vec::new();
        answer.read_to_end(&mut body)?;
        if answer.left > 0 && answer.left != u64::MAX {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("{} bytes short", answer.left),
            ));
        }
        Ok(Response {
            status: answer.status,
            headers: answer.headers,
            body,
        })
    }

    /// The same, where failing is no option.
    pub fn send(&self) -> Response {
        self.try_send()
            .unwrap_or_else(|error| panic!("{} http://{}{}: {error}", self.method, self.address, self.path))
    }
}

impl Answer {
    fn read(mut body: BufReader<TcpStream>, head_only: bool) -> std::io::Result<Self> {
        let mut line = String::new();
        body.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let broken = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no HTTP answer: {line:?}"));
        let status = status.ok_or_else(broken)?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            body.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = find(&headers, "content-length").and_then(|length| length.parse().ok());
        assert!(
            find(&headers, "transfer-encoding").is_none(),
            "this client does not read chunked bodies"
        );
        // Without a length the body ends with the connection.
        let left = if head_only || status == 204 || status == 304 {
            0
        } else {
            length.unwrap_or(u64::MAX)
        };
        Ok(Self {
            status,
            headers,
            body,
            left,
        })
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.body.read(&mut buffer[..most])?;
        if self.left != u64::MAX {
            self.left -= read as u64;
        }
        Ok(read)
    }
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}
