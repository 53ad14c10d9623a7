//! Interrupted pulls: what was there counts, and no more than the rest is asked for.

use std::sync::Mutex;
use std::time::Duration;

use modelpack::{Event, FetchError, Patience, UnpackError};

use crate::fixture::{Model, Tar, noise, options, tree, unpack, unpack_with};

#[tokio::test]
async fn a_cut_stream_is_continued_where_it_broke() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(250_000, 1);
    let archive = Tar::new().file("packed.bin", &content).bytes();
    let mut built = Model::default()
        .raw("raw.bin", &content)
        .packed("code.v1.tar", "", &archive)
        .build();
    built.2.cut_after = Some(100_000);
    let serial = modelpack::Options {
        concurrency: 1,
        ..options()
    };
    unpack_with(&built, dir.path(), serial).await.0.unwrap();
    assert_eq!(built.2.asked(), [0, 100_000, 200_000, 0, 100_000, 200_000]);
    assert_eq!(built.2.sent(), 250_000 + archive.len() as u64, "each byte once");
    assert_eq!(tree(dir.path())["raw.bin"], content);
    assert_eq!(tree(dir.path())["packed.bin"], content);
}

#[tokio::test]
async fn a_half_done_pull_continues_at_the_byte_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(5_000_000, 1);
    let mut built = Model::default()
        .raw("done.bin", b"done")
        .raw("sub/raw.bin", &content)
        .build();
    (built.2.cut_after, built.2.fatal) = (Some(3_000_000), true);
    let error = unpack(&built, dir.path()).await.unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Fetch {
                offset: 3_000_000,
                source: FetchError::Final(_),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        tree(dir.path()).into_keys().collect::<Vec<_>>(),
        ["done.bin"],
        "nothing half is to be seen"
    );
    assert_eq!(built.2.sent(), 3_000_004);

    built.2.cut_after = None;
    built.2.asked();
    let (result, events) = unpack_with(&built, dir.path(), options()).await;
    let summary = result.unwrap();
    assert_eq!(built.2.asked(), [3_000_000]);
    assert_eq!((summary.streamed, summary.reused), (2_000_000, 3_000_004));
    assert_eq!(tree(dir.path())["sub/raw.bin"], content);
    let path = "sub/raw.bin".into();
    assert!(
        events.contains(&Event::Progress { path, bytes: 3_000_000 }),
        "progress begins where it stopped"
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join(".packswarm/partial"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_damaged_or_complete_unfinished_file_heals() {
    let content = noise(400_000, 1);
    let digest = piece::Digest::of(&content);
    let zeros = vec![0; 200_000];
    let too_long = [&content[..], b"more"].concat();
    for (name, left, sent) in [
        ("zeros, as a power cut leaves them", &zeros[..], 200_000 + 400_000),
        ("all there, killed before the rename", &content[..], 0),
        ("longer than the blob, so not of our making", &too_long[..], 400_000),
        ("its beginning", &content[..123_457], 400_000 - 123_457),
        ("nothing", b"", 400_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let partial = dir.path().join(".packswarm/partial");
        std::fs::create_dir_all(&partial).unwrap();
        std::fs::write(partial.join(digest.hex()), left).unwrap();
        std::fs::write(partial.join("0000"), b"another artifact's").unwrap();
        let built = Model::default().raw("a.bin", &content).build();
        unpack(&built, dir.path()).await.unwrap();
        assert_eq!(built.2.sent(), sent, "{name}");
        assert_eq!(tree(dir.path())["a.bin"], content, "{name}");
        assert_eq!(std::fs::read_dir(&partial).unwrap().count(), 0, "{name}");
    }
}

#[tokio::test]
async fn what_was_changed_or_removed_is_fetched_again_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Tar::new()
        .dir("d")
        .file("d/one", b"one")
        .file("d/two", b"two")
        .symlink("d/l", "one")
        .bytes();
    let built = Model::default()
        .raw("a", &noise(1_000, 1))
        .raw("b", &noise(2_000, 2))
        .raw_with("c", &noise(4_000, 3), 0o600, "2020-01-01T00:00:00Z")
        .packed("code.v1.tar+gzip", "d", &archive)
        .build();
    unpack(&built, dir.path()).await.unwrap();
    let whole = tree(dir.path());
    let packed = built.0.layers[3].blob.size;
    let at = |path: &str| dir.path().join(path);
    let check = async |what: &str, bytes: u64| {
        let sent = built.2.sent();
        unpack(&built, dir.path()).await.unwrap();
        assert_eq!(built.2.sent() - sent, bytes, "{what}");
        assert_eq!(tree(dir.path()), whole, "{what}");
    };
    std::fs::remove_file(at("a")).unwrap();
    check("a removed file", 1_000).await;
    std::fs::write(at("b"), b"short").unwrap();
    check("a shorter file", 2_000).await;
    std::fs::write(at("b"), noise(2_000, 9)).unwrap();
    check("other bytes of the same length", 2_000).await;
    std::fs::File::options()
        .write(true)
        .open(at("c"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    check("a touched file has its bytes looked at, and its time set back", 0).await;
    assert_eq!(crate::fixture::mtime(&at("c")).0, 1_577_836_800);
    std::fs::write(at("d/two"), b"changed").unwrap();
    check("an archive's file", packed).await;
    std::fs::remove_file(at("d/l")).unwrap();
    check("an archive's link", packed).await;
    std::fs::remove_dir_all(at("d")).unwrap();
    check("an archive's directory", packed).await;
    std::fs::remove_file(at(".packswarm/journal")).unwrap();
    check("without a journal raw files are looked at, archives fetched", packed).await;
    check("nothing", 0).await;
}

#[tokio::test]
async fn two_pulls_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let built = Model::default().raw("a", &noise(3 << 20, 1)).build();
    let met = Mutex::new(None);
    let second = Mutex::new(None);
    let (artifact, config, source) = &built;
    let first = modelpack::unpack(artifact, config, dir.path(), options(), source, |event| {
        // While the first holds the directory, from another thread: a second one.
        if matches!(event, Event::Progress { .. }) && met.lock().unwrap().replace(()).is_none() {
            let other = Model::default().raw("a", b"b").build();
            let dest = dir.path().to_owned();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(unpack(&other, &dest))
            });
            *second.lock().unwrap() = Some(thread.join().unwrap());
        }
    });
    first.await.unwrap();
    let error = second.lock().unwrap().take().unwrap().unwrap_err();
    assert!(matches!(error, UnpackError::Busy { .. }), "{error}");
    unpack(&built, dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_pull_leaves_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(8 << 20, 1);
    let built = Model::default().raw("a", &content).build();
    let (artifact, config, source) = &built;
    let (reached, wait) = tokio::sync::oneshot::channel();
    let reached = Mutex::new(Some(reached));
    let pull = modelpack::unpack(artifact, config, dir.path(), options(), source, |event| {
        if matches!(event, Event::Progress { .. })
            && let Some(reached) = reached.lock().unwrap().take()
        {
            reached.send(()).unwrap();
        }
    });
    tokio::select! {
        biased;
        reached = wait => reached.unwrap(),
        result = pull => panic!("the pull ended first: {result:?}"),
    }
    assert!(tree(dir.path()).is_empty());
    let sent = built.2.sent();
    // The worker lets go of the directory when it notices; until then it is busy.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let summary = loop {
        match unpack(&built, dir.path()).await {
            Err(UnpackError::Busy { .. }) if std::time::Instant::now() < deadline => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert!(summary.reused >= 1 << 20, "{summary:?}");
    assert!(built.2.sent() - sent <= (8 << 20) - summary.reused);
    assert_eq!(tree(dir.path())["a"], content);
}

#[tokio::test]
async fn gives_up_after_attempts_that_bring_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut built = Model::default().raw("a", &noise(1_000, 1)).build();
    built.2.cut_after = Some(0);
    let patience = Patience {
        attempts: 3,
        pause: Duration::from_millis(1),
        ..Patience::default()
    };
    let (result, _) = unpack_with(&built, dir.path(), modelpack::Options { patience, ..options() }).await;
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Fetch {
                source: FetchError::Passing(_),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(built.2.asked(), [0, 0, 0]);
}

#[tokio::test]
async fn what_was_cut_because_it_was_wrong_is_read_again_from_its_beginning() {
    let content = noise(250_000, 1);
    let archive = Tar::new().file("packed.bin", &content).bytes();
    let built = || {
        [
            Model::default().raw("raw.bin", &content).build(),
            Model::default().packed("code.v1.tar", "", &archive).build(),
        ]
    };
    for (mut built, name) in built().into_iter().zip(["raw.bin", "packed.bin"]) {
        let dir = tempfile::tempdir().unwrap();
        built.2.cut_after = Some(200_000);
        *built.2.lies.get_mut() = 1;
        unpack(&built, dir.path()).await.unwrap();
        assert_eq!(tree(dir.path())[name], content);
        assert_eq!(built.2.asked(), [0, 200_000, 0, 200_000], "{name}");
    }
    // A source that lies all the time, or in one piece, is not asked for ever.
    for (mut built, lies) in built().into_iter().chain(built()).zip([u64::MAX, u64::MAX, 1, 1]) {
        let dir = tempfile::tempdir().unwrap();
        built.2.cut_after = (lies > 1).then_some(200_000);
        *built.2.lies.get_mut() = lies;
        let error = unpack(&built, dir.path()).await.unwrap_err();
        assert!(matches!(error, UnpackError::Mismatch { .. }), "{error}");
        assert_eq!(tree(dir.path()).len(), 0, "nothing wrong gets a name");
    }
}
