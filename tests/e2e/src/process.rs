//! A child process with a log.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A process that is killed when it is dropped. It stays in the test's process group, so that whoever kills a test by its
/// group leaves nothing behind.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// What others had logged there before.
    before: usize,
}

impl Process {
    /// Starts `command`, with both outputs appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .expect("the lab is writable")
        };
        Self::start_with(name, command, open(), log)
    }

    /// The same with an output of its own, for programs that write something worth reading there.
    pub fn start_with(name: &str, command: &mut Command, stdout: File, log: &Path) -> Self {
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the lab is writable");
        let before = std::fs::read(log).map_or(0, |log| log.len());
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}; see tests/install"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            before,
        }
    }

    /// What tests call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.before..).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.ended())
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // It may have ended on its own; it stays a zombie until we wait, so that the number is its own.
        let _ = kill_process(pid, signal);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        // Fails only when it has ended on its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// No client in these tests has reason to take so long, even where the machine is busy with other things.
const RUN: Duration = Duration::from_secs(180);

/// Runs a program to its end and returns what it printed. Panics with all that it said if it fails, or does not end.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

/// Runs a program to its end, whatever that is. Panics with all that it said if it does not end.
pub fn output(command: &mut Command) -> Output {
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}; see tests/install"));
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let limit = if crate::long() { RUN * 4 } else { RUN };
    let began = Instant::now();
    let ended = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break Some(status),
            None if began.elapsed() > limit => break None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    // Fails only when it has ended.
    let _ = child.kill();
    let _ = child.wait();
    let [stdout, stderr] = [out, err].map(|output| output.join().expect("reading does not panic"));
    let Some(status) = ended else {
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        panic!("{command:?} has not ended after {} s:\n{out}\n{err}", limit.as_secs());
    };
    Output { status, stdout, stderr }
}

/// Reads an output while its process runs, lest it waits for us.
fn collect(output: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is what there is to show.
        let _ = output.map(|mut output| output.read_to_end(&mut bytes));
        bytes
    })
}
