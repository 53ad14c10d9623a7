//! An HTTP/1.1 server that sends exactly what it is told, wrong lengths and broken connections included.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use piece::Digest;
use registry::{BlobReader, Client, Config, Meter, RangeStream, RegistryError, RequestKind};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use wire::control::{Kind, Repository, Source};

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    pub(crate) fn range(&self) -> Option<Range<u64>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().unwrap()..last.parse::<u64>().unwrap() + 1)
    }
}

/// What it is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// What is said about the body's length; else the truth. `Some(None)`: nothing, the end of the connection tells.
    pub(crate) length: Option<Option<u64>>,
    pub(crate) then: Then,
}

/// What happens after a reply's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Then {
    #[default]
    KeepAlive,
    Close,
    Stall,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The part of `data` that the request's range asks for, or all of it.
    pub(crate) fn part(data: &[u8], request: &Request) -> Self {
        match request.range() {
            None => Self::new(200, data),
            Some(range) if range.start >= data.len() as u64 => {
                Self::new(416, "").with("content-range", format!("bytes */{}", data.len()))
            }
            Some(range) => {
                let end = range.end.min(data.len() as u64);
                let part = &data[range.start as usize..end as usize];
                let said = format!("bytes {}-{}/{}", range.start, end - 1, data.len());
                Self::new(206, part).with("content-range", said)
            }
        }
    }

    /// Sends only the first `bytes` of what it announces, and then does something else.
    pub(crate) fn cut(mut self, bytes: usize, then: Then) -> Self {
        self.length = Some(Some(self.body.len() as u64));
        self.body.truncate(bytes);
        self.then = then;
        self
    }

    pub(crate) fn redirect(status: u16, to: impl ToString) -> Self {
        Self::new(status, "").with("location", to)
    }
}

type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// The server. Dropping it stops it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// `script` is told how many requests came before.
    pub(crate) async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(script, None).await
    }

    pub(crate) async fn start_with(
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script): (_, Arc<Script>) = (Arc::clone(&requests), Arc::new(script));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (seen, script, tls) = (Arc::clone(&seen), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    // A client that hangs up, or refuses the certificate, is none of the server's business.
                    let _ = match tls {
                        None => serve(socket, &seen, &*script).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => serve(socket, &seen, &*script).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Self {
            address,
            requests,
            task,
        }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository {
            registry: self.address.to_string(),
            name: "org/model".into(),
        }
    }

    pub(crate) fn source(&self, kind: Kind) -> Source {
        Source {
            repository: self.repository(),
            kind,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<Request>>,
    script: &Script,
) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let Some(request) = read(&mut socket).await? else {
            return Ok(());
        };
        let reply = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            let before = seen.len() - 1;
            drop(seen);
            script(&request, before)
        };
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
        if let Some(length) = reply.length.unwrap_or(Some(reply.body.len() as u64)) {
            head += &format!("content-length: {length}\r\n");
        }
        reply
            .headers
            .iter()
            .for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        socket.write_all((head + "\r\n").as_bytes()).await?;
        if request.method != "HEAD" {
            socket.write_all(&reply.body).await?;
        }
        socket.flush().await?;
        match reply.then {
            Then::KeepAlive => {}
            Then::Close => return socket.shutdown().await,
            Then::Stall => std::future::pending().await,
        }
    }
}

async fn read(socket: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let mut request = Request {
        method,
        path,
        headers,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    request.body = String::from_utf8(body).unwrap();
    Ok(Some(request))
}

/// Quick enough for tests, in waiting and in giving up.
pub(crate) fn config() -> Config {
    Config {
        user_agent: "packswarm/test (seed; me)".into(),
        answer_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_millis(150),
        retries: 3,
        backoff: Duration::from_millis(2),
        max_wait: Duration::from_secs(2),
        ..Config::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(config()).unwrap()
}

/// Bytes that differ everywhere.
pub(crate) fn data(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

pub(crate) async fn open(
    client: &Client,
    server: &Server,
    data: &[u8],
    size: Option<u64>,
    first: Range<u64>,
) -> Result<BlobReader, RegistryError> {
    client
        .blob(&server.source(Kind::Blob), &Digest::of(data), size, first)
        .await
}

pub(crate) async fn drain(mut stream: RangeStream) -> Result<Vec<u8>, RegistryError> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

pub(crate) async fn read_all(blob: &BlobReader, range: Range<u64>) -> Result<Vec<u8>, RegistryError> {
    drain(blob.read(range).await?).await
}

/// Counts.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) bytes: AtomicU64,
    pub(crate) requests: Mutex<Vec<RequestKind>>,
}

impl Meter for Counts {
    fn request(&self, _: &str, kind: RequestKind) {
        self.requests.lock().unwrap().push(kind);
    }

    fn received(&self, _: &str, _: RequestKind, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
