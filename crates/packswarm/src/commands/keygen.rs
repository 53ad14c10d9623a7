//! `packswarm keygen`.

use identity::ClusterKeys;

use super::print;
use crate::failure::Failure;

/// Prints a new cluster key.
pub(crate) fn run() -> Result<(), Failure> {
    print(&ClusterKeys::generate())
}
