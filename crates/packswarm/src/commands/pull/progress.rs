//! What a pull shows while it runs: bars on a terminal, lines elsewhere, JSON where asked.

mod bars;
mod lines;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use modelpack::{Event, How, Summary};
use serde::Serialize;

use bars::Bars;
use lines::Lines;

/// Shows what happens.
#[derive(Debug, Clone)]
pub(super) struct Display(Arc<Mutex<Shown>>);

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
        Self(Arc::new(Mutex::new(if json {
            Shown::Json
        } else if std::io::stderr().is_terminal() {
            Shown::Bars(Bars::new())
        } else {
            Shown::Lines(Lines::new())
        })))
    }

    /// Where the log goes, so that it does not tear the bars apart.
    pub(super) fn log(&self) -> Box<dyn io::Write + Send> {
        match &*self.shown() {
            Shown::Bars(bars) => Box::new(bars.above()),
            Shown::Lines(_) | Shown::Json => Box::new(io::stderr()),
        }
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
}
