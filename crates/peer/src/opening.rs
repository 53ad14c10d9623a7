//! Opening a blob at its registry: as anybody, with this node's credentials, or with what clients have lent.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use piece::{Blob, Digest};
use registry::{BlobReader, RegistryError};
use swarm::node::Input;
use wire::Authorization;
use wire::control::{Kind, Lease};

use crate::access::depends_on_who_asks;
use crate::authorising;
use crate::parts::Parts;

/// What is to be opened at the registry.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) digest: Digest,
    pub(crate) size: Option<u64>,
    pub(crate) lease: Lease,
    /// The bytes that are wanted first.
    pub(crate) first: Range<u64>,
    /// Connections to read on at the same time.
    pub(crate) connections: usize,
    /// Bytes to ask for at once, at most.
    pub(crate) stripe: u64,
}

/// What the registry opened: a blob to read in ranges, or a manifest that came whole.
#[derive(Clone)]
pub(crate) enum Opened {
    Blob(Arc<BlobReader>),
    Manifest(Bytes),
}

impl Opened {
    /// How many connections can read it at the same time.
    pub(crate) fn connections(&self, most: usize) -> usize {
        match self {
            Self::Blob(reader) if reader.supports_ranges() => most,
            Self::Blob(_) | Self::Manifest(_) => 1,
        }
    }
}

/// Opens the blob with this node's own means, and with what clients have lent where those are not enough; the other way round
/// where that is known already.
pub(crate) async fn open(parts: &Arc<Parts>, opening: &Opening) -> Result<(Opened, Blob), RegistryError> {
    let (digest, source) = (&opening.digest, &opening.lease.source);
    let wanted = parts.verdicts.wants_credentials(Instant::now(), &source.repository);
    let mut refusal = None;
    if wanted {
        let lent = parts.lent.get(digest, source, false).await;
        match open_with_any(parts, opening, lent).await {
            Some(Err(error)) if may_fare_better(&error) => refusal = Some(error),
            Some(other) => return other,
            None => {}
        }
    }
    match open_with(parts, &parts.registry, opening).await {
        Err(error) if may_fare_better(&error) => {
            let failure = error.to_failure();
            authorising::note_refusal(parts, &source.repository, &failure);
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            // A registry that says that there is nothing may mean it: nobody waits for a credential then.
            let lent = parts.lent.get(digest, source, failure.status != 404).await;
            open_with_any(parts, opening, lent).await.unwrap_or(Err(error))
        }
        other => other,
    }
}

/// Opens the blob with the first of these credentials that the registry accepts; none if there are none.
async fn open_with_any(
    parts: &Arc<Parts>,
    opening: &Opening,
    lent: Vec<Authorization>,
) -> Option<Result<(Opened, Blob), RegistryError>> {
    let mut last = None;
    for authorization in lent {
        let opened = open_with(parts, &parts.registry.on_behalf(authorization), opening).await;
        let refused = opened.as_ref().is_err_and(may_fare_better);
        last = Some(opened);
        if !refused {
            break;
        }
    }
    last
}

async fn open_with(
    parts: &Arc<Parts>,
    registry: &registry::Client,
    opening: &Opening,
) -> Result<(Opened, Blob), RegistryError> {
    let Opening {
        digest,
        size,
        lease,
        first,
        connections: _,
        stripe: _,
    } = opening.clone();
    let source = &lease.source;
    let (opened, blob, media_type, access, sequential) = match source.kind {
        Kind::Blob => {
            let reader = registry.blob(source, &digest, size, first).await?;
            let (size, access, sequential) = (reader.size(), reader.access(), !reader.supports_ranges());
            (
                Opened::Blob(Arc::new(reader)),
                Blob { digest, size },
                None,
                access,
                sequential,
            )
        }
        Kind::Manifest => {
            let manifest = registry.manifest(&source.repository, &digest.to_string()).await?;
            let blob = Blob {
                digest,
                size: manifest.body.len() as u64,
            };
            (
                Opened::Manifest(manifest.body.into()),
                blob,
                Some(manifest.media_type),
                manifest.access,
                false,
            )
        }
    };
    parts.learn_access(digest, Some(lease.source.clone()), access);
    parts
        .engine
        .tell(Input::OriginOpened {
            blob,
            media_type,
            access,
            sequential,
        })
        .await;
    Ok((opened, blob))
}

/// Whether another credential may fare better.
fn may_fare_better(error: &RegistryError) -> bool {
    depends_on_who_asks(&error.to_failure())
}
