//! `--include`: only what is named is fetched, and only that is written.

use modelpack::{Include, Options, UnpackError};

use crate::fixture::{Model, Tar, noise, options, tree, unpack, unpack_with};

fn include(patterns: &[&str]) -> Options {
    Options {
        include: Include::new(patterns).unwrap(),
        ..options()
    }
}

fn model() -> Model {
    let archive = Tar::new()
        .dir("src")
        .file("src/main.py", &noise(3_000, 3))
        .file("src/conf.json", &noise(500, 4))
        .hard_link("src/linked.json", "src/conf.json")
        .bytes();
    Model::default()
        .raw("w/one.safetensors", &noise(10_000, 1))
        .raw("config.json", &noise(700, 2))
        .packed("code.v1.tar", "src", &archive)
}

#[tokio::test]
async fn fetches_and_writes_only_what_is_named() {
    let built = model().build();
    let packed = built.0.layers[2].blob.size;
    for (patterns, paths, streamed) in [
        (&["*.safetensors"][..], &["w", "w/one.safetensors"][..], 10_000 + packed),
        (&["w/*"], &["w", "w/one.safetensors"], 10_000),
        (&["/config.json"], &["config.json"], 700),
        (
            &["*.json"],
            &["config.json", "src", "src/conf.json", "src/linked.json"],
            700 + packed,
        ),
        (
            &["src"],
            &["src", "src/conf.json", "src/linked.json", "src/main.py"],
            packed,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let summary = unpack_with(&built, dir.path(), include(patterns)).await.0.unwrap();
        assert_eq!(tree(dir.path()).into_keys().collect::<Vec<_>>(), paths, "{patterns:?}");
        assert_eq!(summary.streamed, streamed, "{patterns:?}");
        let again = unpack_with(&built, dir.path(), include(patterns)).await.0.unwrap();
        assert_eq!(again.streamed, 0, "{patterns:?}");
        // Widening takes what is there into account.
        let all = unpack(&built, dir.path()).await.unwrap();
        assert_eq!(tree(dir.path()).len(), 7);
        let raw = paths.iter().map(|path| match *path {
            "w/one.safetensors" => 10_000,
            "config.json" => 700,
            _ => 0,
        });
        assert!(all.reused >= raw.sum::<u64>(), "{patterns:?}");
    }
}

#[tokio::test]
async fn says_when_nothing_matches_or_a_link_lacks_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let raw_only = Model::default().raw("a.bin", b"a").build();
    let error = unpack_with(&raw_only, dir.path(), include(&["*.json"]))
        .await
        .0
        .unwrap_err();
    assert!(matches!(error, UnpackError::NothingIncluded), "{error}");
    let error = unpack_with(&model().build(), dir.path(), include(&["linked.json"]))
        .await
        .0
        .unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Refused {
                reason: modelpack::Refusal::HardLink,
                ..
            }
        ),
        "{error}"
    );
}
