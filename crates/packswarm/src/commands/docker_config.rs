//! The user's own credentials for registries.

use std::env;
use std::path::PathBuf;

/// The file that Docker, or podman, would read: the first of them that exists.
pub(super) fn find() -> Option<PathBuf> {
    let below = |variable: &str, rest: &str| Some(PathBuf::from(env::var_os(variable)?).join(rest));
    let places = [
        below("DOCKER_CONFIG", "config.json"),
        below("HOME", ".docker/config.json"),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
    ];
    places.into_iter().flatten().find(|path| path.is_file())
}
