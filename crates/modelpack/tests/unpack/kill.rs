//! kill -9 at any moment: what is visible is right, and the next pull finishes the rest.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{Model, Source, Tar, noise, tree, unpack};

const DEST: &str = "MODELPACK_KILL_DEST";

fn model() -> (modelpack::Artifact, Vec<u8>, Source) {
    let archive = (0..20).fold(Tar::new(), |tar, at| {
        tar.file(&format!("packed/{at}"), &noise(200_000, at))
    });
    let model = (0..6).fold(Model::default(), |model, at| {
        model.raw(&format!("raw/{at}.bin"), &noise(3_000_000, 100 + at))
    });
    model.packed("dataset.v1.tar+zstd", "packed", &archive.bytes()).build()
}

/// Not a test of its own: the process that [`a_killed_pull_is_continued`] kills. Without a destination it has nothing to do.
#[tokio::test]
async fn child() {
    let Some(dest) = std::env::var_os(DEST) else { return };
    let summary = unpack(&model(), Path::new(&dest)).await.unwrap();
    assert_eq!(summary.files, 26);
}

#[tokio::test]
async fn a_killed_pull_is_continued() {
    let built = model();
    let whole = tempfile::tempdir().unwrap();
    unpack(&built, whole.path()).await.unwrap();
    let want = tree(whole.path());
    let dir = tempfile::tempdir().unwrap();
    let mut killed = 0;
    // Each life gets a little further; seen from outside, nothing half is ever under its name.
    for life in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child"])
            .env(DEST, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let work = dir.path().join(".packswarm/journal");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !work.exists() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        // How long it may live from there varies; a moment too late only means that it finished.
        let until = Instant::now() + Duration::from_millis(life * 7);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        for (path, content) in tree(dir.path()) {
            assert_eq!(Some(&content), want.get(&path), "{path} after life {life}");
        }
    }
    assert!(killed > 0, "at least the first life is too short to finish");
    let summary = unpack(&built, dir.path()).await.unwrap();
    assert_eq!(summary.files, 26);
    assert_eq!(tree(dir.path()), want);
    let partial = dir.path().join(".packswarm/partial");
    assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
}
