//! Paths of an artifact: relative, normalised, and unable to leave the directory they are unpacked into.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The directory in a destination that is ours; no artifact may name it.
pub(crate) const WORK_DIR: &str = ".packswarm";

/// Longest path, as Linux has it (`PATH_MAX`, less its NUL).
const MAX_LEN: usize = 4095;
/// Longest component (`NAME_MAX`).
const MAX_COMPONENT: usize = 255;
/// Most components. Real models nest a handful deep; each level costs memory and a system call per file.
const MAX_DEPTH: usize = 64;

/// A path below the destination: one or more plain components joined by `/`. It is UTF-8, without control characters,
/// and names nothing in `.packswarm`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// Checks and normalises: `./` and doubled or trailing slashes go, everything that could lead elsewhere is an error.
    ///
    /// # Errors
    /// The first reason why `text` cannot be a file below the destination.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        check_text(text)?;
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        let mut parts = Vec::new();
        for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(PathError::Parent);
            }
            if part.len() > MAX_COMPONENT {
                return Err(PathError::TooLong);
            }
            parts.push(part);
        }
        match parts.first() {
            None => Err(PathError::Empty),
            Some(&WORK_DIR) => Err(PathError::Reserved),
            // What stood before it is gone, as in `./c:x`.
            Some(first) if has_drive(first) => Err(PathError::Windows),
            Some(_) if parts.len() > MAX_DEPTH => Err(PathError::TooDeep),
            Some(_) => Ok(Self(parts.join("/").into())),
        }
    }

    /// The normalised path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("split gives at least one part")
    }

    /// The directories above, outermost first; none for a file at the top.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The directory above, or `None` at the top.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The same text, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for TreePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        Self::parse(&text)
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.0.as_ref().to_owned()
    }
}

/// Checks the target of a symbolic link at `link`, and returns it unchanged.
///
/// `..` is allowed only in front, and at most as often as the link lies deep: the directories above the link are real ones
/// (we never pass through a link to place it), so the climb ends inside. What follows are plain names; where one of them
/// is a link itself, that link was checked by the same rule. A `..` *after* a name could climb from wherever a link led.
pub(crate) fn check_link_target(link: &TreePath, target: &str) -> Result<(), PathError> {
    check_text(target)?;
    if target.starts_with('/') {
        return Err(PathError::Absolute);
    }
    let mut depth = link.ancestors().count();
    let mut named = false;
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." if named || depth == 0 => return Err(PathError::Parent),
            ".." => depth -= 1,
            WORK_DIR if !named && depth == 0 => return Err(PathError::Reserved),
            _ => named = true,
        }
    }
    if target.is_empty() {
        Err(PathError::Empty)
    } else {
        Ok(())
    }
}

/// What holds for names and link targets alike.
fn check_text(text: &str) -> Result<(), PathError> {
    if text.len() > MAX_LEN {
        return Err(PathError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if has_drive(text) || text.contains('\\') {
        return Err(PathError::Windows);
    }
    Ok(())
}

/// Whether Windows would take what it begins with for a drive.
fn has_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// Why a path in an artifact is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing left after normalising.
    #[error("the path is empty")]
    Empty,
    /// Begins with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Has a `..` that could lead out.
    #[error("the path climbs with `..`")]
    Parent,
    /// Has a backslash or a drive letter.
    #[error("the path has a backslash or a drive letter, which other systems would read as another place")]
    Windows,
    /// Has control characters, which could rewrite a terminal.
    #[error("the path has control characters")]
    Control,
    /// Longer than the file system allows.
    #[error("the path or one of its names is too long")]
    TooLong,
    /// More than 64 levels.
    #[error("the path is nested over {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Names our own working directory.
    #[error("`{WORK_DIR}` belongs to packswarm")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normalises_plain_paths() {
        for (text, want) in [
            ("a", "a"),
            ("./a//b/", "a/b"),
            ("a/./b", "a/b"),
            ("...", "..."),
            ("a:b/model:1", ""),
        ] {
            match TreePath::parse(text) {
                Ok(path) => assert_eq!(path.as_str(), want),
                Err(reason) => assert_eq!((want, reason), ("", PathError::Windows)),
            }
        }
        let path = TreePath::parse("a/b/c").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!((path.parent(), path.name()), (Some("a/b"), "c"));
    }

    #[test]
    fn refuses_what_leads_elsewhere() {
        let deep = "d/".repeat(65);
        let long = "x".repeat(256);
        for (text, want) in [
            ("", PathError::Empty),
            (".", PathError::Empty),
            ("./", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("//x", PathError::Absolute),
            ("..", PathError::Parent),
            ("a/../b", PathError::Parent),
            ("a/..", PathError::Parent),
            ("C:\\x", PathError::Windows),
            ("c:x", PathError::Windows),
            ("./c:x", PathError::Windows),
            (".//./c:", PathError::Windows),
            ("\\\\server\\x", PathError::Windows),
            ("a\\..\\b", PathError::Windows),
            ("a\0b", PathError::Control),
            ("a\x1b[2J", PathError::Control),
            (".packswarm", PathError::Reserved),
            ("./.packswarm/journal", PathError::Reserved),
            (&deep, PathError::TooDeep),
            (&long, PathError::TooLong),
        ] {
            assert_eq!(TreePath::parse(text), Err(want), "{text:?}");
        }
    }

    #[test]
    fn link_targets_stay_inside() {
        let link = TreePath::parse("a/b/link").unwrap();
        for fine in ["x", "../x", "../../x", "..", "../..", "./x/y", "."] {
            assert_eq!(check_link_target(&link, fine), Ok(()), "{fine}");
        }
        for (bad, want) in [
            ("../../..", PathError::Parent),
            ("x/../y", PathError::Parent),
            ("../x/..", PathError::Parent),
            ("/x", PathError::Absolute),
            ("", PathError::Empty),
            ("../../.packswarm/journal", PathError::Reserved),
            ("C:/x", PathError::Windows),
        ] {
            assert_eq!(check_link_target(&link, bad), Err(want), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_stays_below(text in "[a-c./\\\\:]{0,24}") {
            if let Ok(path) = TreePath::parse(&text) {
                prop_assert!(!path.as_str().is_empty());
                for part in path.as_str().split('/') {
                    prop_assert!(!part.is_empty() && part != "." && part != "..");
                }
                prop_assert_eq!(TreePath::parse(path.as_str()), Ok(path));
            }
        }
    }
}
