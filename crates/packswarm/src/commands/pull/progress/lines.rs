//! Lines, where there is no terminal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelpack::Event;

use super::name;
use crate::config::size;

/// Between two lines about the whole.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A line per file, and now and then one about the whole.
#[derive(Debug)]
pub(super) struct Lines {
    begun: Instant,
    said: Instant,
    total: u64,
    done: u64,
    seen: HashMap<Arc<str>, (u64, u64)>,
}

impl Lines {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            said: now,
            total: 0,
            done: 0,
            seen: HashMap::new(),
        }
    }

    pub(super) fn event(&mut self, event: Event) {
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
    use modelpack::How;

    use super::*;

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
