//! Blobs: opened once, then read by ranges.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use piece::Digest;
use reqwest::Response;
use url::Url;
use wire::control::{Access, Kind, Source};

use crate::answer::{self, ContentRange};
use crate::body::{Account, Body};
use crate::client::{Client, MANIFEST_TYPES};
use crate::endpoint::{Endpoint, locate};
use crate::error::{Fault, Lie, RegistryError};
use crate::meter::RequestKind;
use crate::request::{Answered, Ask};
use crate::retry::Retry;
use crate::stream::RangeStream;
use crate::turns::Opening;

/// Beyond the end of any blob, and still a number to everybody who reads it.
const WHOLE: u64 = i64::MAX as u64;

/// A blob that a registry has agreed to serve. Clones read the same blob.
///
/// Any number of [`BlobReader::read`]s may run at once. Two cases need them polled in order (each before or along with
/// those behind it), because they share one body: reads inside the range that the blob was opened with, and all reads
/// where the registry serves no ranges ([`BlobReader::supports_ranges`]).
#[derive(Clone)]
pub struct BlobReader {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    client: Client,
    endpoint: Endpoint,
    url: Url,
    kind: Kind,
    digest: Digest,
    size: u64,
    access: Access,
    ranges: bool,
    media_type: Option<String>,
    /// Where the registry redirected to, as long as that answers.
    storage: Mutex<Option<Url>>,
    opening: Arc<Opening>,
}

impl Client {
    /// Opens a blob (or a manifest, by digest). The `first` range is asked for at once and its body kept for the reads
    /// inside it, so learning the size costs no request and no byte. Without a known `size`, `first` may reach beyond the
    /// end. With a client's token it always reaches to the end.
    ///
    /// # Errors
    /// If the registry cannot be asked, refuses, or contradicts `size`; if `first` is empty and the blob is not.
    pub async fn blob(
        &self,
        source: &Source,
        digest: &Digest,
        size: Option<u64>,
        first: Range<u64>,
    ) -> Result<BlobReader, RegistryError> {
        let (endpoint, url) = locate(self.endpoints(), source, &digest.to_string())?;
        // A client's token can end long before a large blob does, and no node can renew it. As in a pull without us, one answer
        // brings all.
        let wanted = if self.is_passing() { WHOLE } else { first.end };
        let first = first.start..size.map_or(wanted, |size| wanted.min(size));
        if first.is_empty() && size != Some(0) {
            let value = format!("{}..{}", first.start, first.end);
            return Err(RegistryError::Invalid {
                what: "first range",
                value,
                reason: "it holds no byte of the blob",
            });
        }
        let mut retry = Retry::new(self.config());
        let opened = loop {
            let (method, range) = if first.is_empty() {
                (Method::HEAD, None)
            } else {
                (Method::GET, Some(first.clone()))
            };
            let kind = if range.is_some() {
                request_kind(source.kind)
            } else {
                RequestKind::Probe
            };
            let ask = Ask {
                endpoint: &endpoint,
                method,
                url: url.clone(),
                kind,
                accept: accept(source.kind),
                range,
            };
            match self.open(&ask, digest, size).await {
                Ok(opened) => break opened,
                Err(error) => retry.after(error).await?,
            }
        };
        let Opened {
            sorted,
            access,
            storage,
            media_type,
        } = opened;
        let (at, end) = match &sorted.body {
            Some(body) if sorted.ranges => (body.at(), body.end()),
            Some(_) | None => (0, if sorted.ranges { 0 } else { sorted.size }),
        };
        let shared = Shared {
            client: self.clone(),
            endpoint,
            url,
            kind: source.kind,
            digest: *digest,
            size: sorted.size,
            access,
            ranges: sorted.ranges,
            media_type,
            storage: Mutex::new(storage),
            opening: Arc::new(Opening::new(sorted.body, at, end)),
        };
        Ok(BlobReader {
            shared: Arc::new(shared),
        })
    }

    async fn open(&self, ask: &Ask<'_>, digest: &Digest, size: Option<u64>) -> Result<Opened, RegistryError> {
        let Answered {
            response,
            access,
            storage,
        } = self.attempt(ask).await?;
        if let Some(actual) = answer::content_digest(response.headers()).filter(|said| said != digest) {
            return Err(ask.lie(Lie::Digest {
                expected: *digest,
                actual,
            }));
        }
        let media_type = answer::media_type(response.headers());
        // An empty blob needs no body, and a probe may end at a redirect.
        let sorted = match &ask.range {
            Some(range) => self.sort(ask, response, range, size)?,
            None => Sorted {
                body: None,
                size: 0,
                ranges: true,
            },
        };
        Ok(Opened {
            sorted,
            access,
            storage,
            media_type,
        })
    }

    /// What an answer to a range request is: that range, the whole blob, or nonsense.
    fn sort(
        &self,
        ask: &Ask<'_>,
        response: Response,
        range: &Range<u64>,
        size: Option<u64>,
    ) -> Result<Sorted, RegistryError> {
        let length = answer::content_length(response.headers());
        let (part, total, ranges) = if response.status() == StatusCode::PARTIAL_CONTENT {
            let said = ContentRange::of(response.headers()).map_err(|lie| ask.lie(lie))?;
            let wrong = || ask.lie(Lie::ContentRange(format!("{said:?}")));
            let part = said.range.clone().ok_or_else(wrong)?;
            if part.start != range.start || part.end > range.end {
                return Err(wrong());
            }
            (part, said.size, true)
        } else if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            let total = ContentRange::of(response.headers()).map_err(|lie| ask.lie(lie))?.size;
            let size = same_size(ask, size, total)?;
            if range.start < size {
                return Err(ask.lie(Lie::ContentRange(format!("unsatisfiable, of {size} bytes"))));
            }
            return Ok(Sorted {
                body: None,
                size,
                ranges: true,
            });
        } else {
            let total = length.or(size).ok_or_else(|| ask.lie(Lie::NoSize))?;
            (0..total, Some(total), false)
        };
        let size = same_size(ask, size, total)?;
        let expected = part.end - part.start;
        if let Some(actual) = length.filter(|&length| length != expected) {
            return Err(ask.lie(Lie::ContentLength { expected, actual }));
        }
        let account = Account {
            meter: Arc::clone(self.meter()),
            registry: ask.endpoint.repository.registry.clone(),
            kind: ask.kind,
            read_timeout: self.config().read_timeout,
        };
        let body = Body::new(response, part.start, part.end, ask.shown(), account);
        Ok(Sorted {
            body: Some(body),
            size,
            ranges,
        })
    }
}

impl BlobReader {
    /// Which blob.
    pub fn digest(&self) -> &Digest {
        &self.shared.digest
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.shared.size
    }

    /// Whether the registry serves it to anybody.
    pub fn access(&self) -> Access {
        self.shared.access
    }

    /// Its media type, if the registry gave one.
    pub fn media_type(&self) -> Option<&str> {
        self.shared.media_type.as_deref()
    }

    /// Whether the registry serves ranges. If not, ranges must be read in order and each at most once; what lies between
    /// them is read and dropped, and a cut costs the bytes from the blob's start again.
    pub fn supports_ranges(&self) -> bool {
        self.shared.ranges
    }

    /// Reads exactly the bytes of `range`.
    ///
    /// # Errors
    /// If the range is not inside the blob, the registry cannot be asked or refuses, or (without range support) the range
    /// lies before what was read.
    pub async fn read(&self, range: Range<u64>) -> Result<RangeStream, RegistryError> {
        if range.start > range.end || range.end > self.shared.size {
            let value = format!("{}..{}", range.start, range.end);
            return Err(RegistryError::Invalid {
                what: "range",
                value,
                reason: "it is not inside the blob",
            });
        }
        RangeStream::open(Arc::clone(&self.shared), range).await
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared {
            digest,
            size,
            access,
            ranges,
            ..
        } = &*self.shared;
        let mut shown = f.debug_struct("BlobReader");
        shown
            .field("digest", digest)
            .field("size", size)
            .field("access", access)
            .field("ranges", ranges);
        shown.finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) const fn opening(&self) -> &Arc<Opening> {
        &self.opening
    }

    pub(crate) const fn ranges(&self) -> bool {
        self.ranges
    }

    pub(crate) fn retry(&self) -> Retry {
        Retry::new(self.client.config())
    }

    pub(crate) fn out_of_order(&self, wanted: u64, position: u64) -> RegistryError {
        RegistryError::OutOfOrder {
            digest: self.digest,
            wanted,
            position,
        }
    }

    pub(crate) fn short(&self, at: u64, end: u64) -> RegistryError {
        let request = format!("GET {} (bytes {at} to {end})", crate::request::shown(&self.url));
        RegistryError::Cut {
            request,
            reason: "the registry answered with less than the range asked for".to_owned(),
        }
    }

    /// A body that begins at `range.start`, or, without range support, at 0.
    pub(crate) async fn request(&self, range: Range<u64>) -> Result<Body, RegistryError> {
        let ask = Ask {
            endpoint: &self.endpoint,
            method: Method::GET,
            url: self.url.clone(),
            kind: request_kind(self.kind),
            accept: accept(self.kind),
            range: Some(range.clone()),
        };
        let response = match self.ask_storage(&ask).await? {
            Some(response) => response,
            None => {
                let Answered { response, storage, .. } = self.client.attempt(&ask).await?;
                *self.storage() = storage;
                response
            }
        };
        let sorted = self.client.sort(&ask, response, &range, Some(self.size))?;
        if self.ranges && !sorted.ranges {
            return Err(ask.lie(Lie::RangeIgnored));
        }
        sorted.body.ok_or_else(|| ask.lie(Lie::NoSize))
    }

    /// From where the registry redirected to before, if that still answers.
    async fn ask_storage(&self, ask: &Ask<'_>) -> Result<Option<Response>, RegistryError> {
        let Some(url) = self.storage().clone() else {
            return Ok(None);
        };
        let answered = self.client.attempt_storage(ask, url.clone()).await;
        let gone = match &answered {
            Ok(response) => response.is_none(),
            Err(error) => error.fault() == Fault::Network,
        };
        let mut storage = self.storage();
        if gone && storage.as_ref() == Some(&url) {
            *storage = None;
        }
        answered
    }

    fn storage(&self) -> std::sync::MutexGuard<'_, Option<Url>> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An opened blob, before it is one.
struct Opened {
    sorted: Sorted,
    access: Access,
    storage: Option<Url>,
    media_type: Option<String>,
}

/// An answer to a range request.
struct Sorted {
    body: Option<Body>,
    size: u64,
    ranges: bool,
}

const fn request_kind(kind: Kind) -> RequestKind {
    match kind {
        Kind::Blob => RequestKind::Blob,
        Kind::Manifest => RequestKind::Manifest,
    }
}

const fn accept(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Blob => None,
        Kind::Manifest => Some(MANIFEST_TYPES),
    }
}

fn same_size(ask: &Ask<'_>, known: Option<u64>, said: Option<u64>) -> Result<u64, RegistryError> {
    match (known, said) {
        (Some(expected), Some(actual)) if expected != actual => Err(ask.lie(Lie::Size { expected, actual })),
        (known, said) => said.or(known).ok_or_else(|| ask.lie(Lie::NoSize)),
    }
}
