//! One connection: one request, passed on and back, with what is to go wrong with it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{Fault, Seen, Shared};

/// Passed on at a time.
const CHUNK: usize = 64 << 10;

/// A head's first line and its headers.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

/// Serves one request. Either end may go away at any moment, and then there is nothing left to do.
pub(super) fn serve(client: TcpStream, shared: &Shared) {
    let _ = answer(client, shared);
}

fn answer(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = Head::read(&mut reader)?;
    if head.first.is_empty() {
        // A client may make a connection and then not need it.
        return Ok(());
    }
    let mut words = head.first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let seen = Seen {
        path: path.split('?').next().unwrap_or_default().to_owned(),
        range: head.get("range").and_then(parse_range),
        agent: head.get("user-agent").unwrap_or_default().to_owned(),
        authorization: head.get("authorization").map(str::to_owned),
        at: Instant::now(),
        method,
    };
    let (fault, number) = shared.begin(seen, path.clone());
    let mut client = Client {
        stream: client,
        shared,
        number,
    };
    match fault {
        Some(Fault::Status(status, retry_after)) => return client.status(status, retry_after),
        Some(Fault::Silence) => return client.say_nothing(),
        Some(Fault::Redirect(to)) => return client.redirect(&format!("http://{to}{path}")),
        Some(Fault::Loop) => return client.redirect(&format!("http://{}{path}", shared.address)),
        Some(Fault::RangeIgnored) => head.headers.retain(|(name, _)| name != "range"),
        Some(Fault::StallAfter(_) | Fault::CutAfter(_) | Fault::TooFew(_) | Fault::TooMany(_) | Fault::Altered(_))
        | None => {}
    }
    let mut server = TcpStream::connect(shared.target)?;
    head.write(&mut server)?;
    client.pass(BufReader::new(server), fault)
}

struct Client<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    number: usize,
}

impl Client<'_> {
    fn status(&mut self, status: u16, retry_after: Option<u32>) -> io::Result<()> {
        self.shared.answered(self.number, status);
        let body = r#"{"errors":[{"code":"UNKNOWN","message":"the test says so"}]}"#;
        let retry_after = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
        write!(
            self.stream,
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry_after}\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn redirect(&mut self, to: &str) -> io::Result<()> {
        self.shared.answered(self.number, 307);
        write!(
            self.stream,
            "HTTP/1.1 307 Scripted\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }

    /// Waits until the other end has had enough.
    fn say_nothing(&mut self) -> io::Result<()> {
        self.stream.read(&mut [0]).map(drop)
    }

    /// Passes the answer back.
    fn pass(&mut self, mut server: BufReader<TcpStream>, fault: Option<Fault>) -> io::Result<()> {
        let mut head = Head::read(&mut server)?;
        let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok());
        self.shared.answered(self.number, status.unwrap_or(0));
        match fault {
            Some(Fault::TooFew(missing)) => {
                let length: u64 = head
                    .get("content-length")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
                let shorter = length.saturating_sub(missing);
                head.set("content-length", &shorter.to_string());
                head.write(&mut self.stream)?;
                self.body(server.take(shorter))
            }
            Some(Fault::TooMany(extra)) => {
                head.headers.retain(|(name, _)| name != "content-length");
                head.write(&mut self.stream)?;
                self.body(server.chain(io::repeat(0).take(extra)))
            }
            Some(Fault::CutAfter(bytes)) => {
                head.write(&mut self.stream)?;
                self.body(server.take(bytes))
            }
            Some(Fault::StallAfter(bytes)) => {
                head.write(&mut self.stream)?;
                self.body(server.by_ref().take(bytes))?;
                self.say_nothing()
            }
            Some(Fault::Altered(at)) => {
                head.write(&mut self.stream)?;
                self.body(server.by_ref().take(at))?;
                let mut byte = [0];
                server.read_exact(&mut byte)?;
                self.body(&[byte[0] ^ 1][..])?;
                self.body(server)
            }
            Some(Fault::Status(..) | Fault::Silence | Fault::RangeIgnored | Fault::Redirect(_) | Fault::Loop)
            | None => {
                head.write(&mut self.stream)?;
                self.body(server)
            }
        }
    }

    fn body(&mut self, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            // Counted first: whoever has read the last byte may look at the log at once.
            self.shared.sent(self.number, read as u64);
            self.stream.write_all(&buffer[..read])?;
        }
    }
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut first = String::new();
        from.read_line(&mut first)?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Self {
            first: first.trim_end().to_owned(),
            headers,
        })
    }

    /// Writes it for a connection that carries nothing else.
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "connection") {
            text += &format!("{name}: {value}\r\n");
        }
        to.write_all((text + "connection: close\r\n\r\n").as_bytes())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

/// `bytes=FIRST-LAST`, as our own client writes it.
fn parse_range(text: &str) -> Option<std::ops::Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}
