//! Where a node stands.

use crate::config::section::section;

section! {
    /// Where the node stands: labels of your choice, compared for equality only. Neighbours are sought on the same host
    /// first, then in the same rack and zone, always with some across.
    Locality;
    /// The zone or data centre. Unset: unknown, as if in none.
    zone: Option<String> = None, "eu-1a";
    /// The rack or network block. Unset: unknown.
    rack: Option<String> = None, "r12";
    /// The machine. Unset: the system's host name.
    host: Option<String> = None, "node-17";
}
