//! A registry that misbehaves as it is told: a proxy in front of a real one, whose rules say what goes wrong with which
//! request. It keeps an access log of its own, which counts what it let through.

mod passing;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::access_log::Entry;
use crate::model::Blob;

/// A request, as rules see it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The bytes that it asks for, if it asks for a part.
    pub range: Option<Range<u64>>,
    /// The `User-Agent`.
    pub agent: String,
    /// The `Authorization` that it carries, if any.
    pub authorization: Option<String>,
    /// When it came.
    pub at: Instant,
}

impl Seen {
    /// Whether it asks for this byte of this blob.
    pub fn reads(&self, blob: &Blob, byte: u64) -> bool {
        let of_blob = self.method == "GET" && self.path.ends_with(&format!("/blobs/{}", blob.digest));
        of_blob && self.range.as_ref().is_none_or(|range| range.contains(&byte))
    }

    /// Whether it asks for a manifest or tag.
    pub fn asks_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this `Retry-After`, instead of an answer.
    Status(u16, Option<u32>),
    /// No answer, on a connection that stays open.
    Silence,
    /// So many bytes of the body, and then nothing on a connection that stays open.
    StallAfter(u64),
    /// So many bytes of the body, and then the end of the connection.
    CutAfter(u64),
    /// So many bytes less than were asked for, and a `Content-Length` that says so.
    TooFew(u64),
    /// So many bytes more than were asked for, in a body that ends with its connection.
    TooMany(u64),
    /// A bit of this byte of the body is another.
    Altered(u64),
    /// All of the blob, whatever was asked for.
    RangeIgnored,
    /// Sent on to the same path at another address.
    Redirect(SocketAddr),
    /// Sent on to where it came from.
    Loop,
}

/// A rule of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleId(usize);

/// Runs until it is dropped. Connections end with the programs at their ends.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    address: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Logged>>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct Logged {
    seen: Seen,
    entry: Entry,
}

struct Rule {
    left: usize,
    hits: usize,
    when: Box<dyn Fn(&Seen) -> bool + Send>,
    fault: Fault,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("left", &self.left)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Passes everything on to `target`, until there are rules.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            target,
            address,
            rules: Mutex::default(),
            log: Mutex::default(),
            stopped: false.into(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || passing::serve(client, &shared));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a rule for the next `times` requests that it is for. Of several, the one added first counts.
    pub fn when(&self, times: usize, when: impl Fn(&Seen) -> bool + Send + 'static, fault: Fault) -> RuleId {
        let mut rules = self.shared.rules();
        rules.push(Rule {
            left: times,
            hits: 0,
            when: Box::new(when),
            fault,
        });
        RuleId(rules.len() - 1)
    }

    /// Ends a rule. Returns how many requests it was for.
    pub fn end(&self, rule: RuleId) -> usize {
        let rule = &mut self.shared.rules()[rule.0];
        rule.left = 0;
        rule.hits
    }

    /// What it has answered so far, requests under way among it.
    pub fn requests(&self) -> Vec<Entry> {
        self.shared.log().iter().map(|logged| logged.entry.clone()).collect()
    }

    /// The requests themselves.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.log().iter().map(|logged| logged.seen.clone()).collect()
    }

    /// Bytes of a blob that it let through; not those of refusals.
    pub fn bytes_of(&self, digest: &str) -> u64 {
        let log = self.shared.log();
        let entries = log.iter().map(|logged| &logged.entry);
        let of_it = entries.filter(|entry| entry.reads_blob(digest) && entry.status < 300);
        of_it.map(|entry| entry.bytes).sum()
    }

    /// Panics if anybody but seeds asked for anything.
    pub fn assert_only_seeds(&self) {
        let requests = self.requests();
        let others: Vec<_> = requests.iter().filter(|entry| entry.role() != Some("seed")).collect();
        assert!(others.is_empty(), "not from a seed: {others:#?}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Vec<Logged>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to go wrong with this request, and its number in the log.
    fn begin(&self, seen: Seen, path_and_query: String) -> (Option<Fault>, usize) {
        let fault = self
            .rules()
            .iter_mut()
            .find(|rule| rule.left > 0 && (rule.when)(&seen))
            .map(|rule| {
                rule.left -= 1;
                rule.hits += 1;
                rule.fault
            });
        let mut log = self.log();
        let entry = Entry {
            method: seen.method.clone(),
            path: path_and_query,
            status: 0,
            bytes: 0,
            agent: seen.agent.clone(),
        };
        log.push(Logged { seen, entry });
        (fault, log.len() - 1)
    }

    fn answered(&self, number: usize, status: u16) {
        self.log()[number].entry.status = status;
    }

    fn sent(&self, number: usize, bytes: u64) {
        self.log()[number].entry.bytes += bytes;
    }
}
