//! Bars on a terminal.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelpack::Event;

/// Files with a bar of their own; the rest shows in the total only.
const BARS: usize = 16;
const TOTAL: &str = "{msg:32!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
const FILE: &str = "  {msg:30!} [{bar:30}] {bytes}/{total_bytes}";

/// A bar for the whole, and one for each file under way.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: HashMap<Arc<str>, ProgressBar>,
    /// Bytes of each item under way, for the total.
    seen: HashMap<Arc<str>, (u64, u64)>,
}

impl Bars {
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new(0).with_style(style(TOTAL)).with_message("total"));
        Self {
            all,
            total,
            files: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    pub(super) fn say(&self, line: &str) {
        // A terminal that is gone needs no lines.
        let _ = self.all.println(line);
    }

    /// A way to write lines above the bars.
    pub(super) fn above(&self) -> Above {
        Above(self.all.clone())
    }

    pub(super) fn bringing(&mut self, path: &str, bytes: u64, size: u64) {
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

    pub(super) fn event(&mut self, event: Event) {
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

    pub(super) fn clear(&mut self) {
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

/// Writes whole lines above the bars.
#[derive(Debug)]
pub(super) struct Above(MultiProgress);

impl io::Write for Above {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.println(String::from_utf8_lossy(line).trim_end())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
