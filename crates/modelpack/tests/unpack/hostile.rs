//! Archives that try to leave the destination, and sources that lie.

use std::path::Path;

use bytes::Bytes;
use modelpack::{PathError, Refusal, TreePath, UnpackError};
use proptest::prelude::*;
use serde_json::json;

use crate::fixture::{Model, Tar, compress, noise, options, tree, unpack, unpack_with};

/// Unpacks an archive in a directory inside a watched one; returns the error, after checking that nothing appeared.
async fn refused(archive: Vec<u8>) -> UnpackError {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), b"precious").unwrap();
    let dest = outside.path().join("dest");
    let built = Model::default().packed("code.v1.tar+zstd", "", &archive).build();
    let error = unpack(&built, &dest).await.unwrap_err();
    assert_eq!(
        tree(&dest).into_keys().collect::<Vec<_>>(),
        Vec::<String>::new(),
        "{error}"
    );
    let around: Vec<_> = std::fs::read_dir(outside.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(around.len(), 2, "{around:?}");
    assert_eq!(std::fs::read(outside.path().join("precious")).unwrap(), b"precious");
    assert_eq!(
        std::fs::read_dir(dest.join(".packswarm/stage")).unwrap().count(),
        0,
        "nothing is left behind"
    );
    error
}

#[tokio::test]
async fn entries_that_lead_elsewhere_are_refused() {
    use tar::EntryType as Kind;
    let before = || Tar::new().file("first", b"fine so far");
    let path = Refusal::Path;
    let target = Refusal::Target;
    for (archive, want) in [
        (before().file("/etc/packswarm", b"x"), path(PathError::Absolute)),
        (before().file("../precious", b"x"), path(PathError::Parent)),
        (before().file("a/../../precious", b"x"), path(PathError::Parent)),
        (before().dir("../dir"), path(PathError::Parent)),
        (before().file("C:\\x", b"x"), path(PathError::Windows)),
        (before().file("..\\precious", b"x"), path(PathError::Windows)),
        (before().file(".packswarm/journal", b"x"), path(PathError::Reserved)),
        (before().file("bell\x07", b"x"), path(PathError::Control)),
        (
            before().pax(&[("path", "../precious")]).file("x", b"x"),
            path(PathError::Parent),
        ),
        (
            before().pax(&[("path", &"n".repeat(256))]).file("x", b"x"),
            path(PathError::TooLong),
        ),
        (
            before().pax(&[("path", &"n/".repeat(2048))]).file("x", b"x"),
            path(PathError::TooLong),
        ),
        (
            before().pax(&[("path", &"n/".repeat(65))]).file("x", b"x"),
            path(PathError::TooDeep),
        ),
        (before().raw_file(b"caf\xe9", b"x"), Refusal::NotUtf8),
        (before().raw_symlink("l", b"caf\xe9"), Refusal::NotUtf8),
        (
            before().pax(&[("linkpath", &"t/".repeat(2048))]).symlink("l", "x"),
            target(PathError::TooLong),
        ),
        (before().symlink("l", "/etc"), target(PathError::Absolute)),
        (before().symlink("l", "../precious"), target(PathError::Parent)),
        (before().symlink("a/l", "../../precious"), target(PathError::Parent)),
        (
            before().symlink("s", ".").symlink("t", "s/s/../../.."),
            target(PathError::Parent),
        ),
        (before().symlink("l", ".packswarm"), target(PathError::Reserved)),
        (
            before().pax(&[("linkpath", "/etc")]).symlink("l", "x"),
            target(PathError::Absolute),
        ),
        (before().hard_link("l", "../precious"), target(PathError::Parent)),
        (before().hard_link("l", "/etc/passwd"), target(PathError::Absolute)),
        (before().hard_link("l", "missing"), Refusal::HardLink),
        (before().symlink("s", "first").hard_link("l", "s"), Refusal::HardLink),
        (before().entry(Kind::Char, "null", "", b""), Refusal::Kind),
        (before().entry(Kind::Block, "disk", "", b""), Refusal::Kind),
        (before().entry(Kind::Fifo, "pipe", "", b""), Refusal::Kind),
        (before().entry(Kind::new(b'Z'), "what", "", b""), Refusal::Kind),
        (
            before().pax(&[("GNU.sparse.major", "1")]).file("sparse", b"x"),
            Refusal::Sparse,
        ),
        (before().file("first", b"different"), Refusal::Duplicate),
        (before().dir("first"), Refusal::Duplicate),
        (
            before().symlink("l", "first").symlink("l", "second"),
            Refusal::Duplicate,
        ),
    ] {
        match refused(archive.bytes()).await {
            UnpackError::Refused { reason, .. } => assert_eq!(reason, want),
            other => panic!("{want:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_planted_link() {
    let through = Tar::new().symlink("l", "real").dir("real").file("l/x", b"x").bytes();
    assert!(matches!(refused(through).await, UnpackError::Conflict { .. }));

    // The same in two layers, in either order of arrival.
    let dir = tempfile::tempdir().unwrap();
    let built = Model::default()
        .packed("code.v1.tar", "", &Tar::new().dir("real").symlink("l", "real").bytes())
        .raw("l/x", b"x")
        .build();
    let error = unpack(&built, dir.path()).await.unwrap_err();
    assert!(matches!(error, UnpackError::Conflict { .. }), "{error}");
    assert!(!dir.path().join("real/x").exists());

    // A link that was there before leads out of the destination.
    let outside = tempfile::tempdir().unwrap();
    for model in [
        Model::default().raw("l/x", b"x"),
        Model::default().packed("code.v1.tar", "", &Tar::new().file("l/x", b"x").bytes()),
        Model::default().packed("code.v1.tar", "", &Tar::new().dir("l").bytes()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("l")).unwrap();
        let error = unpack(&model.build(), dir.path()).await.unwrap_err();
        assert!(
            matches!(error, UnpackError::Io { ref source, .. } if source.to_string().contains("symbolic link")),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn two_layers_may_agree_on_a_file_but_not_differ() {
    for (second, fine) in [(&b"same"[..], true), (&b"else"[..], false)] {
        let archive = |content: &[u8], extra: &str| Tar::new().file("a", content).file(extra, b"x").bytes();
        for model in [
            Model::default()
                .raw("a", b"same")
                .packed("doc.v1.tar", "", &archive(second, "x")),
            Model::default()
                .packed("doc.v1.tar", "", &archive(b"same", "x"))
                .packed("doc.v1.tar", "", &archive(second, "y")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let built = model.build();
            match unpack(&built, dir.path()).await {
                Ok(_) => assert!(fine && tree(dir.path())["a"] == b"same"),
                Err(error) => assert!(!fine && matches!(error, UnpackError::Conflict { .. }), "{error}"),
            }
            if fine {
                let sent = built.2.sent();
                unpack(&built, dir.path()).await.unwrap();
                assert_eq!(built.2.sent(), sent, "who came second does not vouch for the file");
            }
        }
    }
}

#[tokio::test]
async fn altered_bytes_never_appear() {
    let content = noise(300_000, 1);
    let archive = Tar::new().file("packed.bin", &content).bytes();
    for kind in ["raw", "code.v1.tar", "code.v1.tar+gzip", "code.v1.tar+zstd"] {
        let model = Model::default();
        let mut built = match kind {
            "raw" => model.raw("raw.bin", &content),
            packed => model.packed(packed, "", &archive),
        }
        .build();
        let honest = built.2.blobs.clone();
        for blob in built.2.blobs.values_mut() {
            let mut bytes = blob.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            *blob = Bytes::from(bytes);
        }
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(&built, dir.path()).await.unwrap_err();
        assert!(matches!(error, UnpackError::Mismatch { .. }), "{kind}: {error}");
        assert!(tree(dir.path()).is_empty());
        for folder in ["stage", "partial"] {
            let left = std::fs::read_dir(dir.path().join(".packswarm").join(folder))
                .unwrap()
                .count();
            assert_eq!(left, 0, "{kind}: {folder}");
        }
        built.2.blobs = honest;
        unpack(&built, dir.path()).await.unwrap();
        assert_eq!(tree(dir.path()).len(), 1);
    }
}

#[tokio::test]
async fn a_source_that_sends_too_much_is_not_believed() {
    let mut built = Model::default().raw("a", &noise(50_000, 1)).build();
    for blob in built.2.blobs.values_mut() {
        *blob = Bytes::from(noise(50_001, 1));
    }
    built.2.chunk = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(&built, dir.path()).await.unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Fetch {
                source: modelpack::FetchError::Long,
                ..
            }
        ),
        "{error}"
    );
    assert!(tree(dir.path()).is_empty());
}

#[tokio::test]
async fn broken_archives_are_named_as_such() {
    let archive = Tar::new().file("a", &noise(50_000, 1)).bytes();
    for (kind, content) in [
        ("code.v1.tar", archive[..20_000].to_vec()),
        ("code.v1.tar", noise(5_000, 2)),
        ("code.v1.tar+gzip", archive.clone()),
        ("code.v1.tar+zstd", archive.clone()),
        ("code.v1.tar+gzip", compress("+gzip", &archive)[..30_000].to_vec()),
        ("code.v1.tar+zstd", compress("+zstd", &archive)[..30_000].to_vec()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let built = Model::default()
            .layer(kind, json!({}), &content, piece::Digest::of(&content))
            .build();
        let error = unpack(&built, dir.path()).await.unwrap_err();
        assert!(matches!(error, UnpackError::Archive { .. }), "{kind}: {error}");
        assert!(tree(dir.path()).is_empty());
    }
}

/// Everything below `root`, links not followed.
fn everything(root: &Path) -> Vec<String> {
    tree(root).into_keys().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever an archive says, the watched directory around the destination stays as it was, and what is in the
    /// destination is reached without leaving it.
    #[test]
    fn no_archive_escapes(
        entries in prop::collection::vec((0u8..5, "[ab./\\\\]{1,8}", "[ab./]{1,8}"), 1..12),
    ) {
        let mut archive = Tar::new();
        for (kind, path, link) in &entries {
            archive = match kind {
                0 | 1 => archive.file(path, b"x"),
                2 => archive.dir(path),
                3 => archive.symlink(path, link),
                _ => archive.hard_link(path, link),
            };
        }
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("a"), b"precious").unwrap();
        let dest = outside.path().join("dest");
        let built = Model::default().packed("code.v1.tar", "", &archive.bytes()).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (result, _) = runtime.block_on(unpack_with(&built, &dest, options()));
        let around: Vec<_> = everything(outside.path())
            .into_iter()
            .filter(|path| !path.starts_with("dest/"))
            .collect();
        prop_assert_eq!(around, vec!["a".to_owned(), "dest".to_owned()]);
        prop_assert_eq!(std::fs::read(outside.path().join("a")).unwrap(), b"precious");
        let real_dest = dest.canonicalize().unwrap();
        for path in everything(&dest) {
            prop_assert!(TreePath::parse(&path).is_ok(), "{}", path);
            // Links may dangle or go round in circles, but where they lead somewhere, it is inside.
            if let Ok(real) = dest.join(&path).canonicalize() {
                prop_assert!(real.starts_with(&real_dest), "{} leads to {}", path, real.display());
            }
        }
        if result.is_err() {
            prop_assert!(everything(&dest).is_empty(), "a refused layer puts nothing in place");
        }
    }
}
