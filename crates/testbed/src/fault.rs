//! What a registry can be told to do wrong.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A request, as the script of faults sees it: authorised, and for something that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Which part it asks for.
    pub range: Option<Range<u64>>,
    /// Who asks.
    pub user_agent: String,
    /// How many requests came before it.
    pub before: u64,
}

/// What happens instead of a proper answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this `Retry-After`.
    Status(u16, Option<u32>),
    /// The connection is closed after so many bytes of the body.
    CutAfter(u64),
    /// Nothing more is sent after so many bytes of the body.
    StallAfter(u64),
    /// The byte at this offset of the content is altered.
    Corrupt(u64),
    /// The range is ignored.
    NoRange,
    /// The answer begins so much later.
    Delay(Duration),
}

/// Decides what goes wrong with a request.
pub(crate) type Script = dyn Fn(&Seen) -> Option<Fault> + Send + Sync;

/// The script in force, if any.
#[derive(Clone, Default)]
pub(crate) struct Faults(pub(crate) Option<Arc<Script>>);

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Faults(scripted)"
        } else {
            "Faults(none)"
        })
    }
}
