//! What a manifest names.

use piece::{Blob, Digest};

/// A blob or manifest that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) blob: Blob,
    /// Whether the repository must hold it, so that whoever may read the manifest may read it too. What is to be had from
    /// elsewhere (`urls`) a registry accepts without a look, and so do some the manifests that an index names.
    pub(crate) is_covered: bool,
}

#[derive(serde::Deserialize)]
struct Named {
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Manifest {
    config: Option<Named>,
    #[serde(default)]
    layers: Vec<Named>,
    #[serde(default)]
    blobs: Vec<Named>,
    #[serde(default)]
    manifests: Vec<Named>,
}

/// The blobs and manifests that a manifest or index names; none if it is neither.
pub(crate) fn children(manifest: &[u8]) -> Vec<Child> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else {
        return Vec::new();
    };
    let contents = manifest.config.into_iter().chain(manifest.layers).chain(manifest.blobs);
    let contents = contents.map(|named| (named.urls.is_empty(), named));
    let of_index = manifest.manifests.into_iter().map(|named| (false, named));
    contents
        .chain(of_index)
        .filter_map(|(is_covered, named)| {
            let digest: Digest = named.digest.parse().ok()?;
            let size = named.size;
            Some(Child {
                blob: Blob { digest, size },
                is_covered,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_children() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1}},"subject":{{"digest":"{}","size":9}},
                "layers":[{{"digest":"{}","size":2}},{{"digest":"sha512:00","size":3}},
                          {{"digest":"{}","size":4,"urls":["https://elsewhere.example/x"]}}]}}"#,
            digest("c"),
            digest("s"),
            digest("l"),
            digest("foreign")
        );
        let child = |text: &str, size, is_covered| Child {
            blob: Blob {
                digest: digest(text),
                size,
            },
            is_covered,
        };
        assert_eq!(
            children(manifest.as_bytes()),
            [child("c", 1, true), child("l", 2, true), child("foreign", 4, false)]
        );
        let index = format!(r#"{{"manifests":[{{"digest":"{}","size":5}}]}}"#, digest("m"));
        assert_eq!(children(index.as_bytes()), [child("m", 5, false)]);
        assert!(children(b"no json").is_empty());
    }
}
