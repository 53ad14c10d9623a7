//! What a pull shows while it runs: bars on a terminal, lines elsewhere, JSON where asked.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelpack::{Event, How, Summary};
use serde::Serialize;

use crate::config::size;

/// Between two lines about the whole, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Files with a bar of their own; the rest shows in the total only.
const BARS: usize = 16;
const TOTAL: &str = "{msg:32!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
const FILE: &str = "  {msg:30!} [{bar:30}] {bytes}/{total_bytes}";

/// Shows what happens.
#[derive(Debug)]
pub(super) struct Display(Mutex<Shown>);

#[derive(Debug)]
enum Shown {
    Bars(Bars),
    Lines(Lines),
    Json,
}

/// What the reference turned out to be.
#[derive(Debug, Serialize)]
pub(super) struct Resolved<'r> {
    pub(super) reference: &'r str,
    pub(super) digest: &'r str,
    pub(super) mirror: &'r str,
    pub(super) layers: usize,
    pub(super) bytes: u64,
}

/// One line of `--json`. Part of the contract: docs/cli.md has it, and a test pins it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Json<'e> {
    Resolved(&'e Resolved<'e>),
    Bringing {
        path: &'e str,
        bytes: u64,
        size: u64,
    },
    Planned {
        items: u64,
        bytes: u64,
    },
    Started {
        path: &'e str,
        size: u64,
    },
    Progress {
        path: &'e str,
        bytes: u64,
    },
    Placed {
        path: &'e str,
        how: &'static str,
    },
    Done {
        digest: &'e str,
        files: u64,
        bytes: u64,
        streamed: u64,
        reused: u64,
        seconds: f64,
    },
    Failed {
        message: &'e str,
    },
}

impl Display {
    /// As suits whoever reads.
    pub(super) fn new(json: bool) -> Self {
        Self(Mutex::new(if json {
            Shown::Json
        } else if std::io::stderr().is_terminal() {
            Shown::Bars(Bars::new())
        } else {
            Shown::Lines(Lines::new())
        }))
    }

    /// The manifest is known.
    pub(super) fn resolved(&self, resolved: &Resolved<'_>) {
        let Resolved {
            reference,
            digest,
            mirror,
            ..
        } = resolved;
        match &mut *self.shown() {
            Shown::Json => write_json(&Json::Resolved(resolved)),
            Shown::Bars(bars) => bars.say(&format!("{reference} is {digest}, through {mirror}")),
            Shown::Lines(_) => eprintln!("{reference} is {digest}, through {mirror}"),
        }
    }

    /// The peer fetches a file's blob into its store.
    pub(super) fn bringing(&self, path: &str, bytes: u64, size: u64) {
        match &mut *self.shown() {
            Shown::Json if bytes == 0 || bytes == size => write_json(&Json::Bringing { path, bytes, size }),
            Shown::Json => {}
            Shown::Bars(bars) => bars.bringing(path, bytes, size),
            Shown::Lines(_) if bytes == size => eprintln!("{path}: in the store"),
            Shown::Lines(_) => {}
        }
    }

    /// Unpacking goes on.
    pub(super) fn event(&self, event: Event) {
        match &mut *self.shown() {
            Shown::Bars(bars) => bars.event(event),
            Shown::Lines(lines) => lines.event(event),
            Shown::Json => match &event {
                Event::Planned { items, bytes } => write_json(&Json::Planned {
                    items: *items,
                    bytes: *bytes,
                }),
                Event::FileStarted { path, size } => write_json(&Json::Started { path, size: *size }),
                Event::Progress { path, bytes } => write_json(&Json::Progress { path, bytes: *bytes }),
                Event::FileDone { path, how } => write_json(&Json::Placed { path, how: name(*how) }),
                // Said by `finished`, with the digest and the time.
                Event::Done(_) => {}
            },
        }
    }

    /// Everything is in place.
    pub(super) fn finished(&self, digest: &str, summary: &Summary, time: Duration) {
        let Summary {
            files,
            bytes,
            streamed,
            reused,
        } = *summary;
        let seconds = time.as_secs_f64();
        match &mut *self.shown() {
            Shown::Json => write_json(&Json::Done {
                digest,
                files,
                bytes,
                streamed,
                reused,
                seconds,
            }),
            Shown::Bars(bars) => bars.say(&super::summary_line(summary, seconds)),
            Shown::Lines(_) => eprintln!("{}", super::summary_line(summary, seconds)),
        }
    }

    /// Nothing more comes; the error is said by whoever called, too.
    pub(super) fn close(&self, failure: Option<String>) {
        match (&mut *self.shown(), failure) {
            (Shown::Json, Some(message)) => write_json(&Json::Failed { message: &message }),
            (Shown::Bars(bars), _) => bars.clear(),
            (Shown::Json, None) | (Shown::Lines(_), _) => {}
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().expect("nothing panics while it is shown")
    }
}

const fn name(how: How) -> &'static str {
    match how {
        How::Linked => "linked",
        How::Reflinked => "reflinked",
        How::Copied => "copied",
        How::Streamed => "streamed",
        How::Present => "present",
    }
}

fn write_json(event: &Json<'_>) {
    let line = serde_json::to_string(event).expect("names and numbers are JSON");
    // Whoever closed the pipe no longer reads; the pull goes on.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A bar for the whole, and one for each file under way.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: HashMap<Arc<str>, ProgressBar>,
    /// Bytes of each item under way, for the total.
    seen: HashMap<Arc<str>, (u64, u64)>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new(0).with_style(style(TOTAL)).with_message("total"));
        Self {
            all,
            total,
            files: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    fn say(&self, line: &str) {
        // A terminal that is gone needs no lines.
        let _ = self.all.println(line);
    }

    fn bringing(&mut self, path: &str, bytes: u64, size: u64) {
        let path: Arc<str> = path.into();
        if bytes == 0 {
            self.add(&path, size);
        }
        if let Some(bar) = self.files.get(&path) {
            bar.set_position(bytes);
        }
        if bytes == size {
            self.drop(&path);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Planned { bytes, .. } => self.total.set_length(bytes),
            Event::FileStarted { path, size } => {
                self.seen.insert(path.clone(), (0, size));
                self.add(&path, size);
            }
            Event::Progress { path, bytes } => self.reached(&path, bytes),
            Event::FileDone { path, .. } => {
                let size = self.seen.get(&path).map_or(0, |(_, size)| *size);
                self.reached(&path, size);
                self.seen.remove(&path);
                self.drop(&path);
            }
            Event::Done(_) => self.total.finish(),
        }
    }

    fn reached(&mut self, path: &Arc<str>, bytes: u64) {
        if let Some((seen, _)) = self.seen.get_mut(path) {
            self.total.inc(bytes.saturating_sub(*seen));
            *seen = bytes.max(*seen);
        }
        if let Some(bar) = self.files.get(path) {
            bar.set_position(bytes);
        }
    }

    fn add(&mut self, path: &Arc<str>, size: u64) {
        if self.files.len() < BARS {
            let bar = ProgressBar::new(size)
                .with_style(style(FILE))
                .with_message(path.to_string());
            self.files
                .insert(path.clone(), self.all.insert_before(&self.total, bar));
        }
    }

    fn drop(&mut self, path: &Arc<str>) {
        if let Some(bar) = self.files.remove(path) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn clear(&mut self) {
        for (_, bar) in self.files.drain() {
            bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is valid")
        .progress_chars("=> ")
}

/// A line per file, and now and then one about the whole.
#[derive(Debug)]
struct Lines {
    begun: Instant,
    said: Instant,
    total: u64,
    done: u64,
    seen: HashMap<Arc<str>, (u64, u64)>,
}

impl Lines {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            said: now,
            total: 0,
            done: 0,
            seen: HashMap::new(),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Planned { items, bytes } => {
                self.total = bytes;
                eprintln!("{items} items, {}", size::about(bytes));
            }
            Event::FileStarted { path, size } => {
                self.seen.insert(path, (0, size));
            }
            Event::Progress { path, bytes } => {
                self.reached(&path, bytes);
                if self.said.elapsed() >= LINE_EVERY {
                    self.said = Instant::now();
                    eprintln!("{}", self.line());
                }
            }
            Event::FileDone { path, how } => {
                let size = self.seen.get(&path).map_or(0, |(_, size)| *size);
                self.reached(&path, size);
                self.seen.remove(&path);
                eprintln!("{path}: {} ({})", name(how), size::about(size));
            }
            Event::Done(_) => {}
        }
    }

    fn reached(&mut self, path: &Arc<str>, bytes: u64) {
        if let Some((seen, _)) = self.seen.get_mut(path) {
            self.done += bytes.saturating_sub(*seen);
            *seen = bytes.max(*seen);
        }
    }

    fn line(&self) -> String {
        let rate = self.done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let left = (self.total - self.done.min(self.total)) as f64 / rate.max(1.0);
        format!(
            "{} of {}, {}/s, {left:.0} s left",
            size::about(self.done),
            size::about(self.total),
            size::about(rate as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &Json<'_>) -> String {
        serde_json::to_string(event).unwrap()
    }

    #[test]
    fn the_json_is_what_the_documentation_says() {
        let resolved = Resolved {
            reference: "r/m:v",
            digest: "sha256:0",
            mirror: "http://h/",
            layers: 2,
            bytes: 5,
        };
        let path = "a/b";
        let lines = [
            line(&Json::Resolved(&resolved)),
            line(&Json::Bringing {
                path,
                bytes: 0,
                size: 5,
            }),
            line(&Json::Planned { items: 1, bytes: 5 }),
            line(&Json::Started { path, size: 5 }),
            line(&Json::Progress { path, bytes: 3 }),
            line(&Json::Placed {
                path,
                how: name(How::Streamed),
            }),
            line(&Json::Done {
                digest: "sha256:0",
                files: 1,
                bytes: 5,
                streamed: 5,
                reused: 0,
                seconds: 0.5,
            }),
            line(&Json::Failed { message: "no" }),
        ];
        let documented = include_str!("../../../../../docs/cli.md");
        for line in &lines {
            assert!(documented.contains(line), "docs/cli.md lacks {line}");
        }
    }

    #[test]
    fn the_total_counts_each_byte_once() {
        let mut lines = Lines::new();
        let path: Arc<str> = "a".into();
        lines.event(Event::Planned { items: 1, bytes: 10 });
        lines.event(Event::FileStarted {
            path: path.clone(),
            size: 10,
        });
        lines.event(Event::Progress {
            path: path.clone(),
            bytes: 4,
        });
        lines.event(Event::Progress {
            path: path.clone(),
            bytes: 2,
        });
        assert_eq!(lines.done, 4);
        lines.event(Event::FileDone {
            path,
            how: How::Streamed,
        });
        assert_eq!((lines.done, lines.seen.len()), (10, 0));
        assert!(lines.line().starts_with("10 B of 10 B"));
    }
}
