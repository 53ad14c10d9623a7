//! Progress, one line per node; plain lines where nobody watches.

use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bars of all nodes.
#[derive(Debug)]
pub(crate) struct Board {
    all: MultiProgress,
    watched: bool,
}

impl Board {
    /// A board on standard error.
    pub(crate) fn new() -> Self {
        let watched = std::io::stderr().is_terminal();
        let target = if watched {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            watched,
        }
    }

    /// A node's bar.
    pub(crate) fn node(&self, name: &str, bytes: u64) -> ProgressBar {
        let style =
            ProgressStyle::with_template("  {prefix:<8} {bar:40.cyan/blue} {percent:>3}%  {bytes_per_sec:>13}  {msg}")
                .expect("the template is fixed and valid")
                .progress_chars("━╸─");
        let bar = ProgressBar::new(bytes).with_style(style).with_prefix(name.to_owned());
        self.all.add(bar)
    }

    /// A line of the story.
    pub(crate) fn say(&self, line: &str) {
        if self.watched {
            // A terminal that goes away takes only the display with it.
            let _ = self.all.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        let _ = self.all.clear();
    }
}
