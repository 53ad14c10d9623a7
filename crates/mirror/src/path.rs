//! What a request asks for, by the grammar of its path alone.

use std::borrow::Cow;

use piece::Digest;

use crate::content::RequestKind;
use crate::name;

/// A readable endpoint below `/v2/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/v2/`.
    Ping,
    /// Something of a repository. The name still has the registry's host before it, if the client put it there.
    Of {
        /// The name, not checked yet: a host in it has another grammar.
        name: String,
        /// What of it.
        endpoint: Endpoint,
    },
}

/// What of a repository is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `manifests/TAG`.
    Tag(String),
    /// `manifests/DIGEST`.
    Manifest(Digest),
    /// `blobs/DIGEST`.
    Blob(Digest),
    /// `tags/list`.
    Tags,
    /// `referrers/DIGEST`.
    Referrers(Digest),
}

/// A path that asks for nothing readable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("there is no such endpoint in the OCI distribution API")]
    Unknown,
    #[error("`{0}` is not a tag, so no manifest has it")]
    Tag(String),
    #[error("`{text}` is not a digest: {reason}")]
    Digest {
        text: String,
        reason: piece::ParseDigestError,
        kind: RequestKind,
    },
}

impl Target {
    /// Reads a path as the request line has it.
    pub(crate) fn parse(path: &str) -> Result<Self, PathError> {
        let path = decode(path).ok_or(PathError::Unknown)?;
        let rest = path.strip_prefix("/v2").ok_or(PathError::Unknown)?;
        if matches!(rest, "" | "/") {
            return Ok(Self::Ping);
        }
        // From the right, for `manifests` and the like are good names of repositories too.
        let mut parts = rest.rsplitn(3, '/');
        let (Some(last), Some(collection), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(PathError::Unknown);
        };
        let name = name
            .strip_prefix('/')
            .filter(|name| !name.is_empty())
            .ok_or(PathError::Unknown)?;
        let endpoint = match collection {
            "manifests" if last.contains(':') => Endpoint::Manifest(digest(last, RequestKind::Manifest)?),
            "manifests" if name::is_tag(last) => Endpoint::Tag(last.to_owned()),
            "manifests" => return Err(PathError::Tag(last.to_owned())),
            "blobs" => Endpoint::Blob(digest(last, RequestKind::Blob)?),
            "referrers" => Endpoint::Referrers(digest(last, RequestKind::Referrers)?),
            "tags" if last == "list" => Endpoint::Tags,
            _ => return Err(PathError::Unknown),
        };
        Ok(Self::Of {
            name: name.to_owned(),
            endpoint,
        })
    }

    /// For metrics.
    pub(crate) const fn kind(&self) -> RequestKind {
        match self {
            Self::Ping => RequestKind::Ping,
            Self::Of { endpoint, .. } => endpoint.kind(),
        }
    }
}

impl Endpoint {
    /// For metrics, and for the codes of errors.
    pub(crate) const fn kind(&self) -> RequestKind {
        match self {
            Self::Tag(_) | Self::Manifest(_) => RequestKind::Manifest,
            Self::Blob(_) => RequestKind::Blob,
            Self::Tags => RequestKind::Tags,
            Self::Referrers(_) => RequestKind::Referrers,
        }
    }
}

impl PathError {
    /// For metrics.
    pub(crate) const fn kind(&self) -> RequestKind {
        match self {
            Self::Unknown => RequestKind::Other,
            Self::Tag(_) => RequestKind::Manifest,
            Self::Digest { kind, .. } => *kind,
        }
    }
}

/// A query string, split into the registry that containerd names in it and the rest, which is the upstream's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// `ns`, as sent.
    pub(crate) ns: Option<String>,
    /// All but `ns`, as sent.
    pub(crate) rest: String,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("ns", value)) if parsed.ns.is_none() => {
                    // What is no UTF-8 is no host either; the host's grammar says so.
                    parsed.ns = Some(
                        percent_encoding::percent_decode_str(value)
                            .decode_utf8_lossy()
                            .into_owned(),
                    );
                }
                Some(("ns", _)) => {}
                Some(_) | None => {
                    let separator = if parsed.rest.is_empty() { "" } else { "&" };
                    parsed.rest.push_str(separator);
                    parsed.rest.push_str(pair);
                }
            }
        }
        parsed
    }
}

fn decode(path: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(path).decode_utf8().ok()
}

fn digest(text: &str, kind: RequestKind) -> Result<Digest, PathError> {
    text.parse().map_err(|reason| PathError::Digest {
        text: text.to_owned(),
        reason,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use piece::ParseDigestError;

    use super::*;

    fn of(name: &str, endpoint: Endpoint) -> Result<Target, PathError> {
        Ok(Target::Of {
            name: name.to_owned(),
            endpoint,
        })
    }

    #[test]
    fn endpoints() {
        let digest = Digest::EMPTY;
        let parse = |path: &str| Target::parse(&path.replace("DIGEST", &digest.to_string()));
        assert_eq!(parse("/v2"), Ok(Target::Ping));
        assert_eq!(parse("/v2/"), Ok(Target::Ping));
        assert_eq!(
            parse("/v2/org/model/manifests/v1"),
            of("org/model", Endpoint::Tag("v1".to_owned()))
        );
        assert_eq!(
            parse("/v2/model/manifests/DIGEST"),
            of("model", Endpoint::Manifest(digest))
        );
        assert_eq!(
            parse("/v2/quay.io/a/blobs/DIGEST"),
            of("quay.io/a", Endpoint::Blob(digest))
        );
        assert_eq!(parse("/v2/a/b/c/tags/list"), of("a/b/c", Endpoint::Tags));
        assert_eq!(parse("/v2/a/referrers/DIGEST"), of("a", Endpoint::Referrers(digest)));
        assert_eq!(
            parse("/v2/blobs/manifests/tags/blobs/DIGEST"),
            of("blobs/manifests/tags", Endpoint::Blob(digest))
        );
        let escaped = format!("/v2/a%2Fb/blobs/{}", digest.to_string().replace(':', "%3A"));
        assert_eq!(parse(&escaped), of("a/b", Endpoint::Blob(digest)));
    }

    #[test]
    fn what_is_no_endpoint() {
        for path in [
            "/",
            "/v1/",
            "/v2x",
            "/v2/x",
            "/v2/_catalog",
            "/v2/a/",
            "/v2//manifests/a",
            "/v2/manifests/a",
            "/v2/a/tags/",
            "/v2/a/tags/lists",
            "/v2/a/blobs/uploads/1/2",
            "/v2/%ff/manifests/a",
        ] {
            assert_eq!(Target::parse(path), Err(PathError::Unknown), "{path}");
        }
        for tag in ["", ".INVALID_MANIFEST_NAME", "a b"] {
            assert_eq!(
                Target::parse(&format!("/v2/a/manifests/{tag}")),
                Err(PathError::Tag(tag.to_owned()))
            );
        }
        for (collection, kind) in [
            ("blobs", RequestKind::Blob),
            ("manifests", RequestKind::Manifest),
            ("referrers", RequestKind::Referrers),
        ] {
            let text = "sha256:baddigeststring".to_owned();
            let error = PathError::Digest {
                text,
                reason: ParseDigestError::Hex,
                kind,
            };
            assert_eq!(
                Target::parse(&format!("/v2/a/{collection}/sha256:baddigeststring")),
                Err(error)
            );
        }
        let error = Target::parse("/v2/a/blobs/uploads").unwrap_err();
        assert!(matches!(
            error,
            PathError::Digest {
                reason: ParseDigestError::Algorithm,
                ..
            }
        ));
    }

    #[test]
    fn queries() {
        for (query, ns, rest) in [
            ("", None, ""),
            ("ns=docker.io", Some("docker.io"), ""),
            (
                "n=5&ns=localhost%3A5000&last=a%20b",
                Some("localhost:5000"),
                "n=5&last=a%20b",
            ),
            ("ns=a.b&ns=c.d", Some("a.b"), ""),
            ("ns", None, "ns"),
            ("ns=", Some(""), ""),
            ("&&xns=1&", None, "xns=1"),
        ] {
            let expected = Query {
                ns: ns.map(str::to_owned),
                rest: rest.to_owned(),
            };
            assert_eq!(Query::parse(query), expected, "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_is_too_strange(path in ".{0,60}", query in ".{0,60}") {
            let _parsed = Target::parse(&format!("/v2/{path}"));
            proptest::prop_assert!(Query::parse(&query).rest.len() <= query.len());
        }
    }
}
