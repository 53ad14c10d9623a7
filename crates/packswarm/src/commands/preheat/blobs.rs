//! What an artifact consists of: its manifest and all that it names, of whatever media types.

use std::collections::BTreeSet;

use piece::{Blob, Digest};
use serde::Deserialize;
use wire::control::{Kind, MAX_ENTRIES, Source};

use super::Args;
use crate::commands::docker_config;
use crate::commands::mirror::{Manifest, Mirror};
use crate::commands::runtimes::MIRROR;
use crate::failure::Failure;
use crate::reference::{Reference, Version};

/// An index of indexes is somebody's mistake.
const MAX_DEPTH: usize = 2;

/// Every blob of the artifact with its source, the manifests first.
pub(super) async fn of(args: &Args) -> Result<Vec<(Blob, Source)>, Failure> {
    let reader = Reader::choose(args).await?;
    let mut open = vec![(args.reference.clone(), 0)];
    let mut seen = BTreeSet::new();
    let mut blobs = Vec::new();
    while let Some((reference, depth)) = open.pop() {
        let manifest = reader.manifest(&reference).await?;
        let named = parse(&manifest.bytes).map_err(|reason| format!("the manifest of {reference}: {reason}"))?;
        let mut add = |blob: Blob, kind| {
            if seen.insert(blob.digest) {
                blobs.push((
                    blob,
                    Source {
                        repository: reference.repository.clone(),
                        kind,
                    },
                ));
            }
        };
        add(
            Blob {
                digest: manifest.digest,
                size: manifest.bytes.len() as u64,
            },
            Kind::Manifest,
        );
        named.blobs.iter().for_each(|blob| add(*blob, Kind::Blob));
        if depth == MAX_DEPTH && !named.manifests.is_empty() {
            return Err(format!("{} is an index of indexes of indexes", args.reference).into());
        }
        let below = named.manifests.iter().map(|blob| Reference {
            repository: reference.repository.clone(),
            version: Version::Digest(blob.digest),
        });
        open.extend(below.map(|reference| (reference, depth + 1)));
        if blobs.len() + open.len() > MAX_ENTRIES {
            return Err(format!(
                "{} has more than {MAX_ENTRIES} blobs; preheat parts of it",
                args.reference
            )
            .into());
        }
    }
    Ok(blobs)
}

/// Where manifests are read.
enum Reader {
    Mirror(Box<Mirror>),
    Registry(Box<registry::Client>),
}

impl Reader {
    async fn choose(args: &Args) -> Result<Self, Failure> {
        let repository = &args.reference.repository;
        if let Some(address) = &args.mirror {
            return Ok(Self::Mirror(Box::new(Mirror::new(
                address,
                repository,
                &args.insecure_registry,
                "preheat",
            )?)));
        }
        let local = Mirror::new(MIRROR, repository, &args.insecure_registry, "preheat")?;
        if local.answers().await {
            return Ok(Self::Mirror(Box::new(local)));
        }
        let config = registry::Config {
            user_agent: concat!("packswarm/", env!("CARGO_PKG_VERSION"), " (preheat)").to_owned(),
            insecure: args.insecure_registry.clone(),
            docker_config: docker_config::find(),
            ..registry::Config::default()
        };
        Ok(Self::Registry(Box::new(registry::Client::new(config)?)))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest, Failure> {
        match self {
            Self::Mirror(mirror) => Ok(mirror.manifest(reference).await?),
            Self::Registry(registry) => {
                let found = registry.manifest(&reference.repository, &reference.version()).await?;
                Ok(Manifest {
                    bytes: found.body,
                    digest: found.digest,
                })
            }
        }
    }
}

/// What a manifest names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    blobs: Vec<Blob>,
    manifests: Vec<Blob>,
}

fn parse(bytes: &[u8]) -> Result<Named, String> {
    #[derive(Deserialize)]
    struct Document {
        config: Option<Descriptor>,
        #[serde(default)]
        layers: Vec<Descriptor>,
        #[serde(default)]
        blobs: Vec<Descriptor>,
        #[serde(default)]
        manifests: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        digest: String,
        size: u64,
    }
    let read = |descriptor: Descriptor| {
        let digest: Digest = descriptor
            .digest
            .parse()
            .map_err(|error| format!("`{}`: {error}", descriptor.digest))?;
        Ok::<_, String>(Blob {
            digest,
            size: descriptor.size,
        })
    };
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let blobs = document.config.into_iter().chain(document.layers).chain(document.blobs);
    Ok(Named {
        blobs: blobs.map(read).collect::<Result<_, _>>()?,
        manifests: document.manifests.into_iter().map(read).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_blobs_and_an_index_manifests() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let manifest = format!(
            r#"{{"config":{{"digest":"{a}","size":1}},"layers":[{{"digest":"{b}","size":2,"mediaType":"x"}}]}}"#
        );
        let named = parse(manifest.as_bytes()).unwrap();
        assert_eq!(named.blobs, [Blob { digest: a, size: 1 }, Blob { digest: b, size: 2 }]);
        let index = format!(r#"{{"manifests":[{{"digest":"{a}","size":1}}]}}"#);
        assert_eq!(
            parse(index.as_bytes()).unwrap().manifests,
            [Blob { digest: a, size: 1 }]
        );
        assert!(parse(b"[1]").is_err());
        assert!(
            parse(br#"{"layers":[{"digest":"sha256:0","size":1}]}"#)
                .unwrap_err()
                .contains("sha256:0")
        );
    }
}
