//! packswarm.
fn main() {}
