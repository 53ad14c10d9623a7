//! How much anonymous memory processes have, watched all the time.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two samples: buffers of a burst live longer.
const EVERY: Duration = Duration::from_millis(20);

/// The most that each process had, by its name. Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pids: BTreeMap<String, u32>,
    most: BTreeMap<String, u64>,
    stopped: bool,
}

impl Watch {
    /// Watches nobody yet.
    pub fn new() -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let samples = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            loop {
                {
                    let mut shared = samples.lock().unwrap_or_else(PoisonError::into_inner);
                    if shared.stopped {
                        return;
                    }
                    for (name, pid) in shared.pids.clone() {
                        let now = rss_anon(pid).unwrap_or(0);
                        let most = shared.most.entry(name).or_default();
                        *most = now.max(*most);
                    }
                }
                std::thread::sleep(EVERY);
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Watches this process under this name, instead of the one before.
    pub fn watch(&self, name: &str, pid: u32) {
        self.shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pids
            .insert(name.to_owned(), pid);
    }

    /// The most that each had so far.
    pub fn most(&self) -> BTreeMap<String, u64> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).most.clone()
    }

    /// Panics if one had more.
    pub fn assert_below(&self, limit: u64) {
        for (name, most) in self.most() {
            assert!(most < limit, "{name} had {} MiB of anonymous memory", most >> 20);
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        if let Some(thread) = self.thread.take() {
            // It ends within one interval; if it panicked, the test has failed already.
            let _ = thread.join();
        }
    }
}

/// Anonymous memory of a process in bytes; nothing when it is gone.
pub fn rss_anon(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}
