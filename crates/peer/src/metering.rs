//! The meters of the edge crates, written into this node's metrics.

use admin::Metrics;

/// Counts what the registry client does.
#[derive(Debug)]
pub(crate) struct RegistryMeter(pub(crate) Metrics);

impl registry::Meter for RegistryMeter {
    fn request(&self, registry: &str, kind: registry::RequestKind) {
        self.0.registry_request(registry, kind.name());
    }

    fn received(&self, registry: &str, _: registry::RequestKind, bytes: u64) {
        self.0.registry_bytes(registry, bytes);
    }
}

/// Counts what the mirror serves.
#[derive(Debug)]
pub(crate) struct MirrorMeter(pub(crate) Metrics);

impl mirror::Meter for MirrorMeter {
    fn request(&self, kind: mirror::RequestKind, status: u16) {
        self.0.mirror_request(kind.name(), status);
    }

    fn bytes(&self, bytes: u64) {
        self.0.mirror_bytes(bytes);
    }
}
