//! Which part of a blob a request wants, and whether it has it already (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, header};
use piece::{Blob, Digest};

/// What of a blob to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: no range was asked for, or none that RFC 9110 lets us understand, or several at once.
    Whole,
    /// One range, not empty and within the blob.
    Range(Range<u64>),
    /// The range lies past the end.
    Unsatisfiable,
}

impl Part {
    /// What a GET with these headers wants.
    pub(crate) fn wanted(headers: &HeaderMap, blob: &Blob) -> Self {
        // A range of another version than the client has the rest of would spoil its file.
        let same_version = single(headers, &header::IF_RANGE).is_none_or(|tag| tag == entity_tag(&blob.digest));
        match single(headers, &header::RANGE) {
            Some(range) if same_version => Self::parse(range, blob.size).unwrap_or(Self::Whole),
            Some(_) | None => Self::Whole,
        }
    }

    fn parse(range: &str, size: u64) -> Option<Self> {
        let (unit, set) = range.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        let range = match (first, last) {
            ("", suffix) => size.saturating_sub(number(suffix)?)..size,
            (first, "") => number(first)?..size,
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(size)
            }
        };
        Some(if range.is_empty() {
            Self::Unsatisfiable
        } else {
            Self::Range(range)
        })
    }
}

/// Where a GET with these headers begins to read, of a blob whose size is not known yet. It is past every blob's end where
/// that depends on the size.
pub(crate) fn first_byte(headers: &HeaderMap) -> u64 {
    let range = single(headers, &header::RANGE);
    match range.and_then(|range| Part::parse(range, u64::MAX)) {
        Some(Part::Range(range)) => range.start,
        Some(Part::Unsatisfiable) => u64::MAX,
        Some(Part::Whole) | None => 0,
    }
}

/// Whether the client says that it has this content.
pub(crate) fn is_unchanged(headers: &HeaderMap, digest: &Digest) -> bool {
    let tag = entity_tag(digest);
    let lines = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|found| found == "*" || found.strip_prefix("W/").unwrap_or(found) == tag)
}

/// A content's `ETag`: its digest, in quotes.
pub(crate) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// The header's value, if it is there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        (_, _) => None,
    }
}

/// Decimal digits; what is too large for a blob is the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn the_first_byte_is_told_before_the_size_is_known() {
        for (range, first) in [
            ("bytes=0-", 0),
            ("bytes=10-19", 10),
            ("bytes= 7-", 7),
            ("bytes=-5", u64::MAX - 5),
            ("bytes=7-8,1-2", 0),
            ("lines=7-8", 0),
            ("bytes", 0),
            ("bytes=x-9", 0),
        ] {
            assert_eq!(first_byte(&headers(&[(header::RANGE, range)])), first, "{range}");
        }
        assert_eq!(first_byte(&HeaderMap::new()), 0);
    }

    fn wanted(range: &str, size: u64) -> Part {
        Part::wanted(
            &headers(&[(header::RANGE, range)]),
            &Blob {
                digest: Digest::EMPTY,
                size,
            },
        )
    }

    #[test]
    fn ranges() {
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=10-19", 10..20),
            ("bytes=90-1000", 90..100),
            ("bytes=90-99999999999999999999", 90..100),
            ("bytes=99-", 99..100),
            ("bytes=0-", 0..100),
            ("bytes=-1", 99..100),
            ("bytes=-100", 0..100),
            ("bytes=-1000", 0..100),
            ("Bytes= 5-6", 5..7),
        ] {
            assert_eq!(wanted(range, 100), Part::Range(part), "{range}");
        }
        for range in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(wanted(range, 100), Part::Unsatisfiable, "{range}");
        }
        for range in ["bytes=0-", "bytes=0-0", "bytes=-5"] {
            assert_eq!(wanted(range, 0), Part::Unsatisfiable, "{range}");
        }
        for range in [
            "bytes=0-1,5-6",
            "bytes=6-5",
            "bytes=-",
            "bytes=",
            "bytes",
            "",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1-2-3",
            "pieces=0-1",
            "bytes=0x1-2",
            "bytes=--5",
        ] {
            assert_eq!(wanted(range, 100), Part::Whole, "{range}");
        }
    }

    #[test]
    fn ranges_of_another_version_are_not_given() {
        let blob = Blob {
            digest: Digest::EMPTY,
            size: 100,
        };
        let tag = entity_tag(&Digest::EMPTY);
        let part = |condition: &str| {
            Part::wanted(
                &headers(&[(header::RANGE, "bytes=1-2"), (header::IF_RANGE, condition)]),
                &blob,
            )
        };
        assert_eq!(part(&tag), Part::Range(1..3));
        for other in ["\"other\"", "Wed, 21 Oct 2015 07:28:00 GMT", &format!("W/{tag}")] {
            assert_eq!(part(other), Part::Whole, "{other}");
        }
    }

    #[test]
    fn several_range_lines_are_none() {
        let mut headers = headers(&[(header::RANGE, "bytes=1-2")]);
        headers.append(header::RANGE, HeaderValue::from_static("bytes=3-4"));
        assert_eq!(
            Part::wanted(
                &headers,
                &Blob {
                    digest: Digest::EMPTY,
                    size: 100
                }
            ),
            Part::Whole
        );
    }

    #[test]
    fn entity_tags() {
        let tag = entity_tag(&Digest::EMPTY);
        for (value, unchanged) in [
            (tag.clone(), true),
            (format!("W/{tag}"), true),
            (format!("\"other\", {tag}"), true),
            ("*".to_owned(), true),
            ("\"other\"".to_owned(), false),
            (Digest::EMPTY.to_string(), false),
        ] {
            assert_eq!(
                is_unchanged(&headers(&[(header::IF_NONE_MATCH, &value)]), &Digest::EMPTY),
                unchanged,
                "{value}"
            );
        }
        assert!(!is_unchanged(&HeaderMap::new(), &Digest::EMPTY));
    }

    proptest::proptest! {
        #[test]
        fn a_range_is_never_empty_nor_past_the_end(range in "(bytes=)?[0-9]{0,3}-?[0-9]{0,3}", size in 0u64..600) {
            if let Part::Range(part) = wanted(&range, size) {
                proptest::prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
