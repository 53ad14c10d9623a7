//! What an answer's headers say.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use piece::Digest;
use serde::Deserialize;

use crate::error::Lie;

/// The longest text of an OCI error that is passed on.
const MAX_DETAIL: usize = 256;

/// Of `Content-Range: bytes A-B/SIZE`, or `bytes */SIZE` when the range could not be satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that come, not empty; absent when the range could not be satisfied.
    pub range: Option<Range<u64>>,
    /// Bytes of the whole, if the registry says.
    pub size: Option<u64>,
}

impl ContentRange {
    /// The header's.
    ///
    /// # Errors
    /// If it is absent, malformed, or contradicts itself.
    pub fn of(headers: &HeaderMap) -> Result<Self, Lie> {
        let text = headers
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        Self::parse(text).ok_or_else(|| Lie::ContentRange(text.chars().take(64).collect()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let size = if size == "*" { None } else { Some(number(size)?) };
        if range == "*" {
            return Some(Self { range: None, size });
        }
        let (first, last) = range.split_once('-')?;
        let range = number(first)?..number(last)?.checked_add(1)?;
        let sane = !range.is_empty() && size.is_none_or(|size| range.end <= size);
        sane.then_some(Self {
            range: Some(range),
            size,
        })
    }
}

/// `Content-Length`, if the body has one.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(number)
}

/// `Content-Type` without its parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default().trim();
    (!essence.is_empty()).then(|| essence.to_owned())
}

/// `Docker-Content-Digest`, if it names a SHA-256.
pub fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

/// Seconds of `Retry-After`; of a date, as seen from `now`. Where there is none, of Docker Hub's `X-Retry-After`, a time in
/// UNIX seconds, or of `RateLimit-Reset`.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<u32> {
    let Some(text) = headers.get(RETRY_AFTER) else {
        return rate_limit_reset(headers, now);
    };
    let text = text.to_str().ok()?.trim();
    if let Some(seconds) = number(text) {
        return Some(seconds_of(seconds));
    }
    let wait = httpdate::parse_http_date(text)
        .ok()?
        .duration_since(now)
        .unwrap_or_default();
    Some(seconds_of(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

fn rate_limit_reset(headers: &HeaderMap, now: SystemTime) -> Option<u32> {
    if let Some(at) = headers.get("x-retry-after") {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(number(at.to_str().ok()?.trim())?))?;
        return Some(seconds_of(at.duration_since(now).unwrap_or_default().as_secs() + 1));
    }
    let reset = headers.get("ratelimit-reset")?.to_str().ok()?.trim();
    number(reset).map(seconds_of)
}

fn seconds_of(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// What `RateLimit-Limit` and `RateLimit-Remaining` say, as Docker Hub writes them (`100;w=21600`), for people.
pub fn rate_limit(headers: &HeaderMap) -> Option<String> {
    let read = |name: &str| {
        let mut parts = headers.get(name)?.to_str().ok()?.split(';');
        let count = number(parts.next()?.trim())?;
        let window = parts.find_map(|part| number(part.trim().strip_prefix("w=")?));
        Some((count, window))
    };
    let (limit, window) = read("ratelimit-limit")?;
    let window = window.map(|seconds| format!(" in {seconds} s")).unwrap_or_default();
    let left = read("ratelimit-remaining").map(|(left, _)| format!(", {left} left"));
    Some(format!("rate limit {limit}{window}{}", left.unwrap_or_default()))
}

/// Refuses a body in a content coding: its length and digest would be of something else.
///
/// # Errors
/// If there is a content coding.
pub fn identity(headers: &HeaderMap) -> Result<(), Lie> {
    match headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?")) {
        None | Some("" | "identity") => Ok(()),
        Some(coding) => Err(Lie::Encoded(coding.chars().take(32).collect())),
    }
}

/// Code and message of the first error in an OCI error body. Other bodies may hold anything and are not passed on.
pub fn error_detail(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Errors>(body).ok()?.errors.into_iter().next()?;
    let text = format!("{} {}", first.code, first.message);
    Some(
        text.chars()
            .filter(|c| !c.is_control())
            .take(MAX_DETAIL)
            .collect::<String>()
            .trim()
            .to_owned(),
    )
}

/// A decimal number, without the sign that `parse` would let through.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn content_ranges() {
        let read = |text| ContentRange::parse(text).map(|read| (read.range, read.size));
        assert_eq!(read("bytes 0-9/10"), Some((Some(0..10), Some(10))));
        assert_eq!(read("bytes 5-9/*"), Some((Some(5..10), None)));
        assert_eq!(read("bytes */0"), Some((None, Some(0))));
        let top = format!("bytes 0-{}/*", u64::MAX);
        for wrong in [
            "",
            "bytes",
            "bytes 9-5/10",
            "bytes 0-10/10",
            "bytes +0-9/10",
            "items 0-9/10",
            "bytes 0-/10",
            &top,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let at = |text: &'static str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after(&at("7"), now), Some(7));
        assert_eq!(retry_after(&at("Sun, 06 Nov 1994 08:49:37 GMT"), now), Some(7));
        assert_eq!(retry_after(&at("Sun, 06 Nov 1988 08:49:37 GMT"), now), Some(0));
        assert_eq!(retry_after(&at("99999999999"), now), Some(u32::MAX));
        assert_eq!(retry_after(&at("soon"), now), None);
    }

    #[test]
    fn rate_limits_as_docker_hub_tells_them() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter();
            HeaderMap::from_iter(
                pairs.map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))),
            )
        };
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(retry_after(&with(&[("x-retry-after", "1059")]), now), Some(60));
        assert_eq!(retry_after(&with(&[("x-retry-after", "1")]), now), Some(1));
        assert_eq!(retry_after(&with(&[("ratelimit-reset", "7")]), now), Some(7));
        let both = with(&[("retry-after", "3"), ("x-retry-after", "2000")]);
        assert_eq!(retry_after(&both, now), Some(3), "the standard comes first");
        let hub = with(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")]);
        assert_eq!(rate_limit(&hub).as_deref(), Some("rate limit 100 in 21600 s, 0 left"));
        assert_eq!(
            rate_limit(&with(&[("ratelimit-limit", "5")])).as_deref(),
            Some("rate limit 5")
        );
        assert_eq!(rate_limit(&with(&[("ratelimit-limit", "many")])), None);
    }

    #[test]
    fn only_oci_errors_are_passed_on() {
        let body = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such\nrepository","detail":{"secret":"s"}}]}"#;
        assert_eq!(error_detail(body), Some("NAME_UNKNOWN no suchrepository".to_owned()));
        assert_eq!(
            error_detail(b"<Error><StringToSign>secret</StringToSign></Error>"),
            None
        );
    }
}
