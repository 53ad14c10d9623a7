//! What can go wrong between a node and a registry, by whose fault.

use std::path::PathBuf;
use std::time::Duration;

use piece::Digest;
use wire::control::Failure;

/// Why something could not be read from a registry. Says what was attempted and on what; never holds a secret: of URLs
/// that a registry redirected to, only the host is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The caller asked for something that no registry could serve.
    #[error("{what} `{value}` cannot be asked of a registry: {reason}")]
    Invalid {
        /// Which part of the request.
        what: &'static str,
        /// As it was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The registry, or the storage it redirected to, answered with an error status.
    #[error("{request}: answered {status}{}{}", if *.redirected { " by the storage redirected to" } else { "" }, .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// What was asked.
        request: String,
        /// The HTTP status.
        status: u16,
        /// Code and message of the registry's first OCI error, if it sent any.
        detail: Option<String>,
        /// Seconds after which it wants to be asked again.
        retry_after: Option<u32>,
        /// Its `WWW-Authenticate`, with a 401.
        challenge: Option<String>,
        /// Whether this was another host than the registry.
        redirected: bool,
    },
    /// No connection: name resolution, TCP or TLS failed.
    #[error("{request}: cannot be reached: {reason}")]
    Unreachable {
        /// What was asked.
        request: String,
        /// What the connection failed with.
        reason: String,
    },
    /// The registry is connected, and silent.
    #[error("{request}: no {missing} for {after:?}")]
    TimedOut {
        /// What was asked.
        request: String,
        /// What was waited for.
        missing: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection broke inside an answer.
    #[error("{request}: broke off: {reason}")]
    Cut {
        /// What was asked.
        request: String,
        /// What the connection failed with.
        reason: String,
    },
    /// The registry's answer contradicts itself, the question, or the digest.
    #[error("{request}: {lie}")]
    Misbehaved {
        /// What was asked.
        request: String,
        /// How.
        lie: Lie,
    },
    /// No token from the endpoint that the registry's challenge names.
    #[error("no token for {request} from {realm}: {reason}")]
    Token {
        /// For what.
        request: String,
        /// The endpoint, without its query.
        realm: String,
        /// What went wrong.
        reason: String,
        /// The endpoint's HTTP status, if it answered with an error.
        status: Option<u16>,
        /// Seconds after which it wants to be asked again.
        retry_after: Option<u32>,
        /// Whether another attempt may go better.
        transient: bool,
    },
    /// This node's credentials for the registry cannot be read.
    #[error("cannot read credentials for {registry} from {}: {reason}", .path.display())]
    Credentials {
        /// For which registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry without range support was asked to go back.
    #[error(
        "byte {wanted} of {digest} lies before byte {position}, and the registry serves no ranges: open the blob anew"
    )]
    OutOfOrder {
        /// Of which blob.
        digest: Digest,
        /// Where the range begins.
        wanted: u64,
        /// How far the blob has been read.
        position: u64,
    },
}

/// How an answer contradicts itself, the question, or the digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// The size differs from the one that a manifest or an earlier answer gave.
    #[error("the size should be {expected} bytes, the answer says {actual}")]
    Size {
        /// As known before.
        expected: u64,
        /// As answered.
        actual: u64,
    },
    /// The body's announced length does not fit the range it answers.
    #[error("Content-Length should be {expected}, is {actual}")]
    ContentLength {
        /// The range's length.
        expected: u64,
        /// As answered.
        actual: u64,
    },
    /// Another range than the one asked for.
    #[error("Content-Range is `{0}`, which does not answer the range asked for")]
    ContentRange(String),
    /// The whole blob where a range was asked, from a registry that served ranges before.
    #[error("the range was ignored, though ranges were served before")]
    RangeIgnored,
    /// The body went on after its announced end.
    #[error("the body goes on beyond byte {0}, its announced end")]
    TooManyBytes(u64),
    /// A manifest or document beyond what is accepted.
    #[error("the body exceeds the {0} bytes accepted for it")]
    TooLarge(u64),
    /// The bytes do not have the digest that the question or the answer names.
    #[error("the digest should be {expected}, is {actual}")]
    Digest {
        /// As asked, or as the registry's `Docker-Content-Digest` says.
        expected: Digest,
        /// Of the bytes, or of the registry's header.
        actual: Digest,
    },
    /// No size can be learnt from the answer.
    #[error("the answer names no size")]
    NoSize,
    /// A redirect that must not or cannot be followed.
    #[error("redirect refused: {0}")]
    Redirect(&'static str),
    /// A body in a content coding, though none was accepted.
    #[error("the body is encoded as `{0}`, though only `identity` was accepted")]
    Encoded(String),
    /// A token endpoint that credentials must not be sent to.
    #[error("the token endpoint it names is refused: {0}")]
    Realm(&'static str),
}

/// Who has to act for an error to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The code or the client that asked: asking again the same way is pointless.
    Caller,
    /// The registry refused or lied.
    Registry,
    /// Something between here and there: try again.
    Network,
    /// This node's operator: its credentials.
    Operator,
}

impl RegistryError {
    /// Whose fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Invalid { .. } | Self::OutOfOrder { .. } => Fault::Caller,
            Self::Refused { .. } | Self::Misbehaved { .. } | Self::Token { .. } => Fault::Registry,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Cut { .. } => Fault::Network,
            Self::Credentials { .. } => Fault::Operator,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Cut { .. } => true,
            Self::Token { transient, .. } => *transient,
            Self::Misbehaved { lie, .. } => matches!(lie, Lie::RangeIgnored),
            Self::Invalid { .. } | Self::Credentials { .. } | Self::OutOfOrder { .. } => false,
        }
    }

    /// Seconds after which the registry wants to be asked again, if it said so.
    pub const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Refused { retry_after, .. } | Self::Token { retry_after, .. } => *retry_after,
            Self::Invalid { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Cut { .. }
            | Self::Misbehaved { .. }
            | Self::Credentials { .. }
            | Self::OutOfOrder { .. } => None,
        }
    }

    /// The HTTP status that a client should see.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Invalid { .. } => 400,
            // A client can do nothing about storage that refuses a registry's own redirect.
            Self::Refused {
                status,
                redirected: true,
                ..
            } if !matches!(status, 429 | 503 | 504) => 502,
            Self::Refused { status, .. } if *status >= 400 => *status,
            Self::TimedOut { .. } => 504,
            Self::Token {
                status: Some(status @ (401 | 403 | 429 | 503 | 504)),
                ..
            } => *status,
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Cut { .. }
            | Self::Misbehaved { .. }
            | Self::Token { .. }
            | Self::Credentials { .. }
            | Self::OutOfOrder { .. } => 502,
        }
    }

    /// What other nodes and clients are told.
    pub fn to_failure(&self) -> Failure {
        let challenge = if let Self::Refused {
            challenge,
            redirected: false,
            ..
        } = self
        {
            challenge.clone()
        } else {
            None
        };
        Failure {
            status: self.status(),
            message: self.to_string(),
            retry_after: self.retry_after(),
            challenge,
        }
    }
}
