//! Who gets which place: two parts of an artifact must not fight for one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use piece::Digest;

use super::error::UnpackError;
use crate::TreePath;

/// Characters of all places together, the directories above them included.
const MAX_BYTES: usize = 512 << 20;

/// What is, or will be, at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    Directory,
    /// `content` is known of raw layers; an archive's file is in place by the time someone else asks.
    File {
        content: Option<Digest>,
    },
    Link {
        target: Arc<str>,
    },
}

/// All places of an artifact that are spoken for, and by which layer.
#[derive(Debug, Default)]
pub(super) struct Claims {
    places: HashMap<Arc<str>, (Claim, usize)>,
    bytes: usize,
}

impl Claims {
    /// Claims a place and the directories above for a layer. `Some` is a claim of the same kind that came before; whether
    /// the two agree is for the caller to find out.
    pub(super) fn take(&mut self, path: &TreePath, claim: Claim, layer: usize) -> Result<Option<Claim>, UnpackError> {
        for ancestor in path.ancestors() {
            match self.places.get(ancestor) {
                Some((Claim::Directory, _)) => {}
                Some((_, first)) => return Err(conflict(ancestor, *first, layer)),
                None => {
                    self.bytes += ancestor.len();
                    self.places.insert(ancestor.into(), (Claim::Directory, layer));
                }
            }
        }
        self.bytes += path.as_str().len();
        if self.bytes > MAX_BYTES {
            let limit = format!("its paths, with the directories above them, are over {MAX_BYTES} bytes long");
            return Err(UnpackError::Limit {
                layer: format!("layer {layer}"),
                limit,
            });
        }
        match self.places.entry(path.shared()) {
            Entry::Vacant(place) => {
                place.insert((claim, layer));
                Ok(None)
            }
            Entry::Occupied(place) => {
                let (before, first) = place.get();
                if std::mem::discriminant(before) == std::mem::discriminant(&claim) {
                    Ok(Some(before.clone()))
                } else {
                    Err(conflict(path.as_str(), *first, layer))
                }
            }
        }
    }

    /// The error for a place whose second claim does not agree with the first.
    pub(super) fn conflict(&self, path: &TreePath, layer: usize) -> UnpackError {
        let first = self.places.get(path.as_str()).map_or(layer, |(_, first)| *first);
        conflict(path.as_str(), first, layer)
    }
}

fn conflict(path: &str, first: usize, second: usize) -> UnpackError {
    let name = |layer| format!("layer {layer}");
    UnpackError::Conflict {
        path: path.to_owned(),
        first: name(first),
        second: name(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn a_place_has_one_kind() {
        let mut claims = Claims::default();
        let file = || Claim::File { content: None };
        assert_eq!(claims.take(&path("a/b"), file(), 0).unwrap(), None);
        assert_eq!(
            claims.take(&path("a"), Claim::Directory, 1).unwrap(),
            Some(Claim::Directory)
        );
        assert_eq!(claims.take(&path("a/b"), file(), 1).unwrap(), Some(file()));
        for (at, claim) in [
            ("a/b/c", file()),
            ("a", file()),
            ("a/b", Claim::Directory),
            ("a/b", Claim::Link { target: "x".into() }),
        ] {
            let error = claims.take(&path(at), claim, 2).unwrap_err();
            assert!(
                matches!(error, UnpackError::Conflict { ref first, .. } if first == "layer 0"),
                "{at}: {error}"
            );
        }
    }
}
