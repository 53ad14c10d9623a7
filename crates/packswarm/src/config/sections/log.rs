//! What the process logs, and how.

use serde::{Deserialize, Serialize};

use crate::config::section::section;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

section! {
    /// The log, on standard error.
    Log;
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by part, such as
    /// `info,transport=debug`. `debug` costs a line per piece.
    filter: String = "info".into(), "info,control=debug";
    /// `text`, or `json`: one object per line.
    format: Format = Format::Text, "json";
}
