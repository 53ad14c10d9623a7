//! Bombs: archives that are small on the wire and huge inside.

use modelpack::{Limits, Options, UnpackError};
use serde_json::json;

use crate::fixture::{Model, Tar, compress, options, tree, unpack, unpack_with};

fn limited(limits: Limits) -> Options {
    Options { limits, ..options() }
}

async fn limit_hit(built: &(modelpack::Artifact, Vec<u8>, crate::fixture::Source), limits: Limits) -> String {
    let dir = tempfile::tempdir().unwrap();
    let error = unpack_with(built, dir.path(), limited(limits)).await.0.unwrap_err();
    assert!(tree(dir.path()).is_empty());
    match error {
        UnpackError::Limit { limit, .. } => limit,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_archive_that_expands_too_far_is_refused() {
    let zeros = Tar::new().file("zeros", &vec![0; 8 << 20]).bytes();
    for kind in ["dataset.v1.tar+gzip", "dataset.v1.tar+zstd"] {
        let built = Model::default().packed(kind, "", &zeros).build();
        let tight = Limits {
            expansion: 10,
            expansion_slack: 1 << 20,
            ..Limits::default()
        };
        assert!(
            limit_hit(&built, tight).await.contains("unpacks to more than"),
            "{kind}"
        );
        let dir = tempfile::tempdir().unwrap();
        let enough = Limits {
            expansion: 10,
            expansion_slack: 9 << 20,
            ..Limits::default()
        };
        unpack_with(&built, dir.path(), limited(enough)).await.0.unwrap();
        assert_eq!(tree(dir.path())["zeros"].len(), 8 << 20);
    }
    // The bomb may hide behind the archive's end, where only the diffId looks.
    let hidden = [Tar::new().file("a", b"a").bytes(), vec![0; 4 << 20]].concat();
    let built = Model::default().packed("dataset.v1.tar+zstd", "", &hidden).build();
    let tight = Limits {
        expansion: 10,
        expansion_slack: 1 << 20,
        ..Limits::default()
    };
    assert!(limit_hit(&built, tight).await.contains("unpacks to more than"));
}

#[tokio::test]
async fn too_many_entries_are_refused_over_all_archives_together() {
    let archive = |name: &str| {
        let add = |tar: Tar, at: u32| tar.file(&format!("{name}/{at}"), b"x");
        (0..60).fold(Tar::new(), add).bytes()
    };
    let built = Model::default()
        .packed("doc.v1.tar", "", &archive("a"))
        .packed("doc.v1.tar", "", &archive("b"))
        .build();
    let limits = Limits {
        entries: 119,
        ..Limits::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let error = unpack_with(&built, dir.path(), limited(limits)).await.0.unwrap_err();
    assert!(
        matches!(error, UnpackError::Limit { ref limit, .. } if limit.contains("119 entries")),
        "{error}"
    );
    let summary = unpack(&built, dir.path()).await.unwrap();
    assert_eq!(summary.files, 120, "more than 64 of them: synced together");
}

#[tokio::test]
async fn many_small_bombs_are_one_large_one() {
    let zeros = |name: &str| Tar::new().file(name, &vec![0; 700 << 10]).bytes();
    let [one, two] = ["one", "two"].map(zeros);
    let both = || {
        Model::default()
            .packed("doc.v1.tar+gzip", "", &one)
            .packed("doc.v1.tar+zstd", "", &two)
    };
    let with = |slack| Limits {
        expansion: 1,
        expansion_slack: slack,
        ..Limits::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack_with(&both().build(), dir.path(), limited(with(1 << 20))).await.0;
    assert!(matches!(unpacked, Err(UnpackError::Limit { .. })), "{unpacked:?}");
    assert!(tree(dir.path()).len() <= 1);
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack_with(&both().build(), dir.path(), limited(with(2 << 20))).await.0;
    assert_eq!(unpacked.unwrap().files, 2);
}

#[tokio::test]
async fn a_million_entries_are_the_most() {
    // One directory over and over, which is no harm but for their number.
    let archive = Tar::new().dir("d").bytes();
    let thousand = compress("+zstd", &archive[..512].repeat(1000));
    let blob = [thousand.repeat(1000), compress("+zstd", &archive)].concat();
    let digest = piece::Digest::of(&blob);
    let model = Model::default().layer("dataset.v1.tar+zstd", json!({}), &blob, digest);
    let limit = limit_hit(&model.build(), Limits::default()).await;
    assert!(limit.contains("more than 1000000 entries"), "{limit}");
}

#[tokio::test]
async fn names_and_link_targets_are_bounded_together() {
    let archive = Tar::new()
        .file("file", b"x")
        .pax(&[("linkpath", &"t/".repeat(500))])
        .symlink("link", "x")
        .bytes();
    let built = Model::default().packed("doc.v1.tar", "", &archive).build();
    let with = |names| Limits {
        names,
        ..Limits::default()
    };
    let limit = limit_hit(&built, with(1007)).await;
    assert!(limit.contains("names and link targets"), "{limit}");
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack_with(&built, dir.path(), limited(with(1008))).await.0;
    assert_eq!(unpacked.unwrap().files, 1);
}

#[tokio::test]
async fn endless_headers_are_refused() {
    // A GNU long name and a PAX record of 4 MiB each: parsers would keep them in memory.
    let long = "n".repeat(4 << 20);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(long.len() as u64);
    header.set_cksum();
    let mut gnu = tar::Builder::new(Vec::new());
    gnu.append(&header, long.as_bytes()).unwrap();
    let pax = Tar::new().pax(&[("comment", &long)]).file("a", b"a").bytes();
    for archive in [gnu.into_inner().unwrap(), pax] {
        let built = Model::default().packed("dataset.v1.tar+zstd", "", &archive).build();
        assert!(limit_hit(&built, Limits::default()).await.contains("headers"));
    }
}

#[tokio::test]
async fn long_names_and_files_past_eight_gibibytes_headers_are_read() {
    let long = format!("{}/file", "d".repeat(200));
    // The size of a PAX entry counts, not the header's: how Go writes files over 8 GiB.
    let mut small = Tar::new()
        .pax(&[("path", &long), ("size", "5")])
        .file("short", b"12345")
        .bytes();
    let at = small.windows(5).position(|window| window == b"12345").unwrap() - 512;
    small[at + 124..at + 136].copy_from_slice(b"00000000000\0");
    let sum: u32 = small[at..at + 512]
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    small[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let built = Model::default().packed("weight.v1.tar", "", &small).build();
    unpack(&built, dir.path()).await.unwrap();
    assert_eq!(tree(dir.path())[&long], b"12345");
}

#[tokio::test]
async fn a_zstd_window_larger_than_zstd_itself_takes_is_refused() {
    let archive = Tar::new().file("a", &vec![7; 1 << 20]).bytes();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    std::io::Write::write_all(&mut encoder, &archive).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < compress("tar", &archive).len());
    let built = Model::default()
        .layer("code.v1.tar+zstd", json!({}), &packed, piece::Digest::of(&archive))
        .build();
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(&built, dir.path()).await.unwrap_err();
    assert!(matches!(error, UnpackError::Archive { .. }), "{error}");
}
