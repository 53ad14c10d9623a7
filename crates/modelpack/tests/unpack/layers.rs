//! Every layer type, with its paths, modes and times.

use std::os::unix::fs::MetadataExt;

use modelpack::{Event, How, Summary, UnpackError};
use piece::Digest;
use serde_json::json;

use crate::fixture::{Model, Tar, compress, mode, mtime, noise, options, tree, unpack, unpack_with};

const KINDS: [&str; 5] = ["weight", "weight.config", "doc", "code", "dataset"];

#[tokio::test]
async fn all_twenty_types_unpack_and_a_second_run_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let mut want = Vec::new();
    for (seed, kind) in KINDS.iter().enumerate() {
        for (at, packing) in ["raw", "tar", "tar+gzip", "tar+zstd"].iter().enumerate() {
            let path = format!("{kind}/{packing}/deep/file.bin");
            let content = noise(30_000 + seed * 1_000 + at, (seed * 4 + at) as u64);
            let media_type = format!("{kind}.v1.{packing}");
            model = if *packing == "raw" {
                let annotations = json!({ "org.cncf.model.filepath": path });
                model.layer(&media_type, annotations, &content, Digest::of(&content))
            } else {
                model.packed(
                    &media_type,
                    &format!("{kind}/{packing}"),
                    &Tar::new().file(&path, &content).bytes(),
                )
            };
            want.push((path, content));
        }
    }
    let built = model.build();
    let (result, events) = unpack_with(&built, dir.path(), options()).await;
    let summary = result.unwrap();
    let bytes: u64 = want.iter().map(|(_, content)| content.len() as u64).sum();
    assert_eq!(
        summary,
        Summary {
            files: 20,
            bytes,
            streamed: built.0.size(),
            reused: 0
        }
    );
    let found = tree(dir.path());
    for (path, content) in &want {
        assert_eq!(&found[path], content, "{path}");
    }
    assert_eq!(
        events.first(),
        Some(&Event::Planned {
            items: 20,
            bytes: built.0.size()
        })
    );
    assert_eq!(events.last(), Some(&Event::Done(summary)));
    let streamed = |event: &&Event| matches!(event, Event::FileDone { how: How::Streamed, .. });
    assert_eq!(events.iter().filter(streamed).count(), 20);

    let sent = built.2.sent();
    let (result, events) = unpack_with(&built, dir.path(), options()).await;
    assert_eq!(
        result.unwrap(),
        Summary {
            streamed: 0,
            reused: bytes,
            ..summary
        }
    );
    assert_eq!(built.2.sent(), sent, "not a byte");
    let present = |event: &&Event| matches!(event, Event::FileDone { how: How::Present, .. });
    assert_eq!(events.iter().filter(present).count(), 20);
}

#[tokio::test]
async fn modes_and_times_are_kept_owners_and_setuid_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o6755);
    header.set_uid(4242);
    header.set_gid(4242);
    header.set_mtime(1_500_000_000);
    let archive = Tar::new()
        .dir("bin")
        .entry_with(header, tar::EntryType::Regular, "bin/tool", "", b"#!")
        .pax(&[("mtime", "1700000000.25")])
        .file("bin/fine", b"fine")
        .symlink("bin/link", "tool")
        .symlink("up", "bin/../bin/tool".split_at(3).0)
        .hard_link("bin/again", "bin/tool")
        .bytes();
    let built = Model::default()
        .raw_with("model.bin", b"weights", 0o4600, "2025-11-30T12:34:56.789+08:00")
        .raw_with("zero.bin", b"other", 0, "0001-01-01T00:00:00Z")
        .raw("plain.bin", b"plain")
        .packed("code.v1.tar", "bin", &archive)
        .build();
    let summary = unpack(&built, dir.path()).await.unwrap();
    assert_eq!((summary.files, summary.bytes), (6, 7 + 5 + 5 + 2 + 4 + 2));
    let at = |path: &str| dir.path().join(path);
    assert_eq!(
        (mode(&at("model.bin")), mtime(&at("model.bin"))),
        (0o600, (1_764_477_296, 789_000_000))
    );
    assert_eq!((mode(&at("zero.bin")), mode(&at("plain.bin"))), (0o644, 0o644));
    assert!(mtime(&at("zero.bin")).0 > 1_700_000_000, "no time given: now");
    assert_eq!(
        (mode(&at("bin/tool")), mtime(&at("bin/tool"))),
        (0o755, (1_500_000_000, 0))
    );
    assert_eq!(
        (mode(&at("bin/fine")), mtime(&at("bin/fine"))),
        (0o640, (1_700_000_000, 250_000_000))
    );
    assert_eq!((mode(&at("bin")), mtime(&at("bin"))), (0o740, (1_600_000_000, 0)));
    let inode = |path: &str| at(path).metadata().unwrap().ino();
    assert_eq!(inode("bin/tool"), inode("bin/again"));
    let own = std::fs::metadata(dir.path()).unwrap();
    let tool = at("bin/tool").metadata().unwrap();
    assert_eq!((tool.uid(), tool.gid()), (own.uid(), own.gid()));
    assert_eq!(tree(dir.path())["bin/link"], b"-> tool");
    assert_eq!(tree(dir.path())["up"], b"-> bin");

    let sent = built.2.sent();
    unpack(&built, dir.path()).await.unwrap();
    assert_eq!(built.2.sent(), sent);
}

#[tokio::test]
async fn the_same_content_is_fetched_once_and_empty_files_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(100_000, 1);
    let built = Model::default()
        .raw("a.bin", &content)
        .raw_with("sub/b.bin", &content, 0o600, "2020-01-01T00:00:00Z")
        .raw("empty", b"")
        .raw("sub/empty too", b"")
        .packed("doc.v1.tar", "", &Tar::new().bytes())
        .build();
    let (result, events) = unpack_with(&built, dir.path(), options()).await;
    let summary = result.unwrap();
    assert_eq!(
        summary.streamed,
        100_000 + 1_024,
        "the file once, and the empty archive's two blocks"
    );
    assert_eq!((summary.files, summary.bytes, summary.reused), (4, 200_000, 100_000));
    let found = tree(dir.path());
    assert_eq!((&found["a.bin"], &found["sub/b.bin"]), (&content, &content));
    assert_eq!((found["empty"].len(), found["sub/empty too"].len()), (0, 0));
    assert_eq!(mode(&dir.path().join("sub/b.bin")), 0o600);
    let copied = |event: &&Event| {
        matches!(
            event,
            Event::FileDone {
                how: How::Copied | How::Reflinked,
                ..
            }
        )
    };
    assert_eq!(events.iter().filter(copied).count(), 2);
}

#[tokio::test]
async fn both_ways_of_writing_a_diff_id_are_accepted_and_others_are_not() {
    let archive = Tar::new().file("a", b"content").bytes();
    for (kind, fine) in [
        ("code.v1.tar+gzip", true),
        ("code.v1.tar+zstd", true),
        ("code.v1.tar", true),
        ("code.v1.tar", false),
    ] {
        let packed = compress(kind, &archive);
        // modctl writes the layer's own digest.
        let diff_id = if fine {
            Digest::of(&packed)
        } else {
            Digest::of(b"other")
        };
        let dir = tempfile::tempdir().unwrap();
        let built = Model::default().layer(kind, json!({}), &packed, diff_id).build();
        match unpack(&built, dir.path()).await {
            Ok(_) => assert!(fine && tree(dir.path()).contains_key("a")),
            Err(UnpackError::Mismatch { expected, .. }) => assert!(!fine && expected == Digest::of(b"other")),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(tree(dir.path()).is_empty(), !fine);
    }
}

#[tokio::test]
async fn an_archive_of_several_compressed_members_is_read_whole() {
    let archive = Tar::new()
        .file("a", &noise(50_000, 1))
        .file("b", &noise(50_000, 2))
        .bytes();
    let (one, two) = archive.split_at(30_000);
    for kind in ["dataset.v1.tar+gzip", "dataset.v1.tar+zstd"] {
        let packed = [compress(kind, one), compress(kind, two)].concat();
        let dir = tempfile::tempdir().unwrap();
        let built = Model::default()
            .layer(kind, json!({}), &packed, Digest::of(&archive))
            .build();
        assert_eq!(unpack(&built, dir.path()).await.unwrap().files, 2, "{kind}");
    }
}

#[tokio::test]
async fn existing_files_are_replaced_and_strangers_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), b"precious").unwrap();
    std::fs::write(dir.path().join("a.bin"), b"old").unwrap();
    std::fs::write(dir.path().join("mine"), b"mine").unwrap();
    std::os::unix::fs::symlink(outside.path().join("precious"), dir.path().join("b.bin")).unwrap();
    let built = Model::default()
        .raw("a.bin", b"new")
        .raw("b.bin", b"not a link")
        .build();
    unpack(&built, dir.path()).await.unwrap();
    let found = tree(dir.path());
    assert_eq!(
        (&found["a.bin"][..], &found["b.bin"][..], &found["mine"][..]),
        (&b"new"[..], &b"not a link"[..], &b"mine"[..])
    );
    assert_eq!(std::fs::read(outside.path().join("precious")).unwrap(), b"precious");

    let again = tempfile::tempdir().unwrap();
    std::fs::write(again.path().join("a.bin"), b"new").unwrap();
    let sent = built.2.sent();
    unpack(&built, again.path()).await.unwrap();
    assert_eq!(
        built.2.sent(),
        sent + 10,
        "a file that is already right is recognised without a journal"
    );
}

#[tokio::test]
async fn a_wrong_config_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("new");
    let (artifact, _, source) = Model::default().raw("a", b"a").build();
    let error = unpack(&(artifact, b"{}".to_vec(), source), &dest).await.unwrap_err();
    assert!(matches!(error, UnpackError::Mismatch { .. }), "{error}");
    assert!(!dest.exists());
}

#[test]
fn the_future_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    let (artifact, config, source) = Model::default().raw("a", b"a").build();
    is_send(&modelpack::unpack(
        &artifact,
        &config,
        "unused".as_ref(),
        options(),
        &source,
        |_| {},
    ));
}
