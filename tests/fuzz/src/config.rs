//! Configuration files.

use std::path::Path;

use packswarm::config;
use wire::control::Role;

use crate::Decoder;

pub(crate) const DECODER: Decoder = Decoder {
    name: "config",
    check,
    words: &[
        "[store]\n",
        "[mirror]\n",
        "[registry.\"a.example:5000\"]\n",
        "[origin]\n",
        "[transport]\n",
        "capacity = ",
        "\"1GiB\"",
        "\"10s\"",
        "\"1m30s\"",
        "18446744073709551615",
        "-1",
        "nan",
        "inf",
        "true",
        "[]",
        "{}",
        "listen = \"[::]:0\"\n",
        "aliases = { hub = \"docker.io\" }\n",
    ],
    max_len: 8 << 10,
    memory: 8 << 20,
};

/// What a role takes, it takes again as it writes it, and it means the same. The length says which role: all three take
/// their time.
fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let role = [Role::Peer, Role::Seed, Role::Scheduler][text.len() % 3];
    match config::check(role, Path::new("fuzz.toml"), text) {
        Ok(written) => assert_eq!(
            config::check(role, Path::new("again.toml"), &written).ok(),
            Some(written)
        ),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
