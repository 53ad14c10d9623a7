//! Layers that a local store has: linked, reflinked or copied, and streamed when that fails.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use modelpack::{Event, How, Options};

use crate::fixture::{Model, Source, Tar, mode, mtime, noise, options, tree, unpack, unpack_with};

type Built = (modelpack::Artifact, Vec<u8>, Source);

/// Puts all blobs into a store.
fn stored(mut built: Built, store: &Path) -> Built {
    for (digest, content) in &built.2.blobs {
        let path = store.join(digest.hex());
        std::fs::write(&path, content).unwrap();
        built.2.local.insert(*digest, path);
    }
    built
}

fn model() -> Built {
    Model::default()
        .raw_with("a.bin", &noise(100_000, 1), 0o600, "2020-01-01T00:00:00Z")
        .raw("empty", b"")
        .packed("code.v1.tar+gzip", "", &Tar::new().file("b", &noise(10_000, 2)).bytes())
        .build()
}

fn how(events: &[Event], item: &str) -> How {
    let done = |event: &Event| match event {
        Event::FileDone { path, how } if &**path == item => Some(*how),
        _ => None,
    };
    events.iter().find_map(done).unwrap()
}

#[tokio::test]
async fn copies_are_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let built = stored(model(), dir.path());
    let dest = dir.path().join("dest");
    let (result, events) = unpack_with(&built, &dest, options()).await;
    let summary = result.unwrap();
    assert_eq!((summary.streamed, summary.reused), (0, built.0.size()));
    assert_eq!(built.2.asked(), Vec::<u64>::new());
    assert!(matches!(how(&events, "a.bin"), How::Copied | How::Reflinked));
    assert_eq!(how(&events, "layer 2"), How::Copied);
    assert_eq!(tree(&dest)["a.bin"], noise(100_000, 1));
    assert_eq!(
        (mode(&dest.join("a.bin")), mtime(&dest.join("a.bin")).0),
        (0o600, 1_577_836_800)
    );
    assert_eq!(std::fs::metadata(dest.join("a.bin")).unwrap().nlink(), 1);
    let store = built.0.layers[0].blob.digest.hex();
    assert_ne!(mode(&dir.path().join(store)), 0o600, "the store's file keeps its mode");
}

#[tokio::test]
async fn links_share_the_inode_and_keep_the_stores_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let built = stored(model(), dir.path());
    let dest = dir.path().join("dest");
    let linking = || Options {
        link: true,
        ..options()
    };
    let (result, events) = unpack_with(&built, &dest, linking()).await;
    result.unwrap();
    assert_eq!(how(&events, "a.bin"), How::Linked);
    let store = dir.path().join(built.0.layers[0].blob.digest.hex());
    let ids = |path: &Path| (path.metadata().unwrap().ino(), mode(path), mtime(path));
    assert_eq!(ids(&store), ids(&dest.join("a.bin")));
    let before = ids(&store);
    let (result, events) = unpack_with(&built, &dest, linking()).await;
    assert_eq!(result.unwrap().streamed, 0);
    assert_eq!(how(&events, "a.bin"), How::Present);
    assert_eq!(ids(&store), before);
}

#[tokio::test]
async fn another_file_system_means_copying_and_a_bad_store_streaming() {
    let dir = tempfile::tempdir().unwrap();
    // Usually another file system than the temporary directory's; where it is not, the link simply works.
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let other = std::fs::metadata(shm.path()).unwrap().dev() != std::fs::metadata(dir.path()).unwrap().dev();
    let built = stored(model(), shm.path());
    let (result, events) = unpack_with(
        &built,
        dir.path(),
        Options {
            link: true,
            ..options()
        },
    )
    .await;
    assert_eq!(result.unwrap().streamed, 0);
    assert_eq!(how(&events, "a.bin"), if other { How::Copied } else { How::Linked });
    assert_eq!(tree(dir.path())["a.bin"], noise(100_000, 1));

    let dir = tempfile::tempdir().unwrap();
    let built = stored(model(), shm.path());
    for (path, damage) in built.2.local.values().zip([0, 1, 2]) {
        match damage {
            0 => std::fs::remove_file(path).unwrap(),
            1 => std::fs::write(path, b"short").unwrap(),
            _ => {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).unwrap();
            }
        }
    }
    let summary = unpack(&built, dir.path()).await.unwrap();
    assert_eq!(summary.streamed, built.0.size());
    assert_eq!(tree(dir.path()).len(), 3);
}
