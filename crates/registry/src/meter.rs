//! What a client does to registries, as metrics count it.

/// Counts requests and bytes. Called from many tasks at once, on the way of the bytes: it must not block.
pub trait Meter: Send + Sync + 'static {
    /// One HTTP request goes out on behalf of `registry`; a redirect that is followed counts again.
    fn request(&self, registry: &str, kind: RequestKind);
    /// Bytes of an answer's body have arrived.
    fn received(&self, registry: &str, kind: RequestKind, bytes: u64);
}

/// Counts nothing.
impl Meter for () {
    fn request(&self, _: &str, _: RequestKind) {}
    fn received(&self, _: &str, _: RequestKind, _: u64) {}
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    /// A manifest's bytes.
    Manifest,
    /// A blob's bytes.
    Blob,
    /// A token, from the endpoint that the registry named.
    Token,
    /// A `HEAD`: does it exist, how large is it, which digest has the tag.
    Probe,
    /// A page of tags.
    Tags,
    /// A referrers index.
    Referrers,
}

impl RequestKind {
    /// Every kind, so that metrics can show zeros.
    pub const ALL: [Self; 6] = [
        Self::Manifest,
        Self::Blob,
        Self::Token,
        Self::Probe,
        Self::Tags,
        Self::Referrers,
    ];

    /// Its name, as metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Token => "token",
            Self::Probe => "probe",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}
