//! References, as people write them, and what the mirror makes of them.

use packswarm::{Reference, Version};
use wire::control::Repository;

use crate::Decoder;
use crate::mirror::{Asked, ask};

pub(crate) const DECODER: Decoder = Decoder {
    name: "reference",
    check,
    words: &[
        "localhost",
        "docker.io/",
        "index.docker.io/",
        "library/",
        ":5000/",
        "__5000/",
        "@sha256:",
        ":latest",
        "manifests/",
        "[::1]",
        "..",
        "//",
        "%2f",
    ],
    max_len: 1 << 10,
    memory: 1 << 20,
};

/// A reference is written as it is read, and through a mirror it means the same: whatever a node would be asked for.
fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
    let Reference { repository, version } = &reference;
    named(repository);
    let path = format!("{}/manifests/{version}", repository.name);
    let [host, with_host] = [&repository.registry, &repository.registry.replacen(':', "__", 1)];
    let by_query = ask(&format!("HEAD /v2/{path}?ns={host}"), &[]);
    let asked = Some(match version {
        Version::Tag(tag) => Asked::Tag(repository.clone(), tag.clone()),
        Version::Digest(digest) => Asked::Content(repository.clone(), *digest),
    });
    assert_eq!(by_query.asked, asked, "{reference} by ns");
    // An IPv6 address is no first component of a path.
    if !host.starts_with('[') {
        let by_path = ask(&format!("HEAD /v2/{with_host}/{path}"), &[]);
        assert_eq!(by_path.asked, asked, "{reference} by path");
    }
}

/// A repository that may be asked for: nothing in it is more than a name in a URL.
pub(crate) fn named(repository: &Repository) {
    let Repository { registry, name } = repository;
    assert_eq!(mirror::parse_host(registry).as_ref(), Ok(registry));
    assert!(!name.is_empty() && name.len() <= 255);
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            && !part.contains("..")
    };
    assert!(name.split('/').all(plain), "{name}");
}
