//! What the mirror needs of the node, and what it tells it.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use piece::{Blob, Digest};
use wire::Authorization;
use wire::control::{Failure, Repository, Source, Upstream};

/// The node behind the mirror. Its futures may be dropped at any time: a client that goes away takes nothing with it.
///
/// `client` is the credential that the client has shown, if any. A failure with status 401 carries the registry's challenge.
pub trait Content: Send + Sync + 'static {
    /// Whether the registry lets the client in at all.
    fn ping(&self, registry: &str, client: Option<&Authorization>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Which manifest a tag names now.
    fn resolve(
        &self,
        repository: &Repository,
        tag: &str,
        client: Option<&Authorization>,
    ) -> impl Future<Output = Result<Resolved, Failure>> + Send;

    /// A blob or manifest, which the client will read from its byte `from` on, as far as its request tells: what is not
    /// here yet should come from there first. Resolves once its size is known, not once its bytes are here.
    fn open(
        &self,
        source: &Source,
        digest: &Digest,
        client: Option<&Authorization>,
        from: u64,
    ) -> impl Future<Output = Result<Opened, Failure>> + Send;

    /// Size and type of a blob or manifest, for a client that may not want it (HEAD). The default opens it, and so
    /// begins to fetch what is not here.
    fn probe(
        &self,
        source: &Source,
        digest: &Digest,
        client: Option<&Authorization>,
    ) -> impl Future<Output = Result<Probed, Failure>> + Send {
        async move {
            let opened = self.open(source, digest, client, 0).await?;
            Ok(Probed {
                blob: opened.blob,
                media_type: opened.media_type,
            })
        }
    }

    /// What only the registry can answer: `tags/list` and `referrers`.
    fn document(
        &self,
        upstream: Upstream,
        client: Option<&Authorization>,
    ) -> impl Future<Output = Result<Document, Failure>> + Send;
}

/// What a tag names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest. A size of 0 means that the registry did not tell.
    pub blob: Blob,
    /// Its media type.
    pub media_type: String,
}

/// What is known of a blob or manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Digest and size.
    pub blob: Blob,
    /// Its media type, if the registry or a manifest gave one.
    pub media_type: Option<String>,
}

/// A blob or manifest whose bytes can be asked for.
#[derive(Clone)]
pub struct Opened {
    /// Digest and size.
    pub blob: Blob,
    /// Its media type, if the registry or a manifest gave one.
    pub media_type: Option<String>,
    /// Its bytes.
    pub content: Arc<dyn BlobContent>,
}

/// The bytes of a blob, whole or still arriving.
pub trait BlobContent: Send + Sync {
    /// The bytes of `range`, in order, in slices of any size; large slices of a memory map go to the socket uncopied.
    /// The last ones must not come before the blob is proven: with them the answer is complete.
    ///
    /// A slice is asked for when the socket has taken the one before, so nothing should be held ahead. Dropping the
    /// stream is how a client's disappearance shows.
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Cut>>;
}

/// Why the rest of a blob does not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body was cut: {0}")]
pub struct Cut(pub String);

/// What a registry answered to a question that only it can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The body.
    pub body: Bytes,
    /// Its media type.
    pub media_type: String,
    /// The registry's `Link` header.
    pub link: Option<String>,
    /// The registry's `OCI-Filters-Applied` header.
    pub filters: Option<String>,
}

/// What the mirror counts.
pub trait Meter: Send + Sync + 'static {
    /// A request was answered; its body may be still to come.
    fn request(&self, kind: RequestKind, status: u16);
    /// Bytes of a body were handed to a client's connection.
    fn bytes(&self, bytes: u64);
}

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `/v2/`.
    Ping,
    /// A manifest, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// `tags/list`.
    Tags,
    /// `referrers`.
    Referrers,
    /// Anything else, such as a push.
    Other,
}

impl RequestKind {
    /// Its name, as metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::stream::{self, StreamExt as _};
    use wire::control::Kind;

    use super::*;

    struct Nothing;

    impl BlobContent for Nothing {
        fn read(self: Arc<Self>, _: Range<u64>) -> BoxStream<'static, Result<Bytes, Cut>> {
            stream::empty().boxed()
        }
    }

    /// A node with one blob and no shortcut to it.
    struct Plain(Blob);

    impl Content for Plain {
        fn ping(&self, _: &str, _: Option<&Authorization>) -> impl Future<Output = Result<(), Failure>> + Send {
            std::future::pending()
        }

        fn resolve(
            &self,
            _: &Repository,
            _: &str,
            _: Option<&Authorization>,
        ) -> impl Future<Output = Result<Resolved, Failure>> + Send {
            std::future::pending()
        }

        fn open(
            &self,
            _: &Source,
            digest: &Digest,
            _: Option<&Authorization>,
            _: u64,
        ) -> impl Future<Output = Result<Opened, Failure>> + Send {
            assert_eq!(*digest, self.0.digest);
            let opened = Opened {
                blob: self.0,
                media_type: Some("a/b".to_owned()),
                content: Arc::new(Nothing),
            };
            std::future::ready(Ok(opened))
        }

        fn document(
            &self,
            _: Upstream,
            _: Option<&Authorization>,
        ) -> impl Future<Output = Result<Document, Failure>> + Send {
            std::future::pending()
        }
    }

    #[test]
    fn a_probe_is_an_open_unless_the_node_has_better() {
        let blob = Blob {
            digest: Digest::of(b"abc"),
            size: 3,
        };
        let repository = Repository {
            registry: "quay.io".to_owned(),
            name: "a".to_owned(),
        };
        let source = Source {
            repository,
            kind: Kind::Blob,
        };
        let node = Plain(blob);
        let probed = node.probe(&source, &blob.digest, None).now_or_never();
        assert_eq!(
            probed,
            Some(Ok(Probed {
                blob,
                media_type: Some("a/b".to_owned())
            }))
        );
    }
}
