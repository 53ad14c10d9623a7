//! A directory and a turn for one test.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

/// Bytes of each log that a failed test prints.
const TAIL: u64 = 6000;

/// Where a test keeps everything. Keep it until the end: processes must be gone before their directory is.
#[derive(Debug)]
pub struct Lab {
    root: Arc<Root>,
    path: PathBuf,
}

#[derive(Debug)]
struct Root {
    dir: TempDir,
    logs: Mutex<Vec<PathBuf>>,
    /// Held locked: the turn.
    _turn: File,
}

impl Lab {
    /// Waits for its turn. What labs of killed tests left behind is removed.
    pub fn new(name: &str) -> Self {
        Self::within(&workspace().join("target/e2e"), name)
    }

    /// The same in a directory of the caller's, where labs wait for each other as well.
    pub fn within(all: &Path, name: &str) -> Self {
        fs::create_dir_all(all).unwrap_or_else(|error| panic!("{}: {error}", all.display()));
        let turn = take_turn(&all.join("turn"), name);
        for entry in fs::read_dir(all).expect("the directory was just made").flatten() {
            if entry.path().is_dir() {
                // Somebody may still look at it; the next lab tries again.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(all)
            .expect("target/ is writable");
        let path = dir.path().to_owned();
        Self {
            root: Arc::new(Root {
                dir,
                logs: Mutex::default(),
                _turn: turn,
            }),
            path,
        }
    }

    /// A part of the lab, for a round of a test.
    pub fn part(&self, name: &str) -> Self {
        Self {
            root: Arc::clone(&self.root),
            path: self.dir(name),
        }
    }

    /// A path in the lab.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A new directory in the lab.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("the lab is writable");
        path
    }

    /// A file in the lab with this text.
    pub fn file(&self, name: impl AsRef<Path>, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the lab is writable");
        path
    }

    /// A log to be shown if the test fails.
    pub fn log(&self, name: &str) -> PathBuf {
        let path = self.path(format!("{name}.log"));
        let mut logs = self.root.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if !logs.contains(&path) {
            logs.push(path.clone());
        }
        path
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in self
                .logs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .filter(|log| log.exists())
            {
                let name = log.strip_prefix(self.dir.path()).unwrap_or(log);
                eprintln!("--- {} ---\n{}", name.display(), tail(log));
            }
            if std::env::var_os("PACKSWARM_TEST_KEEP").is_some() {
                self.dir.disable_cleanup(true);
                eprintln!("kept until the next test: {}", self.dir.path().display());
            }
        }
    }
}

/// Waits until no other test has the lab, whichever process it is in.
fn take_turn(path: &Path, name: &str) -> File {
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path);
    let mut turn = open.expect("target/ is writable");
    if turn.try_lock().is_err() {
        eprintln!("{name} waits for {}", fs::read_to_string(path).unwrap_or_default());
        turn.lock().expect("the filesystem has locks");
    }
    let holder = format!("{name} (process {})", std::process::id());
    let noted = turn.set_len(0).and_then(|()| turn.write_all(holder.as_bytes()));
    noted.expect("target/ is writable");
    turn
}

/// The end of a log, in whole lines.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let skipped = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(match (skipped, text.split_once('\n')) {
            (1.., Some((_, whole))) => format!("[...]\n{whole}"),
            _ => text,
        })
    };
    read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace exists")
}

/// The `packswarm` that belongs to this build of the tests, or of the benchmark that uses them.
pub fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    let dir = this.parent().expect("it is in a directory");
    // Tests lie in target/PROFILE/deps, binaries in target/PROFILE.
    let tests = dir.ends_with("deps").then(|| dir.parent()).flatten();
    let binary = tests.unwrap_or(dir).join("packswarm");
    assert!(
        binary.exists(),
        "{} is not built: run `cargo build -p packswarm`",
        binary.display()
    );
    binary
}
