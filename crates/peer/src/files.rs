//! Blob files in use, kept open while they are.
//!
//! Opening a blob reads its side file and maps its data, which is too much for every single piece; an open file can't be
//! evicted, which is too long for a blob that nobody has asked for in a while.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use piece::Digest;
use store::{BlobFile, Store};
use wire::control::{Kind, Repository, Source};

/// Files kept open at most, at two descriptors each.
const MAX_FILES: usize = 256;
/// After this long without use a file is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Files that are open.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: Mutex<HashMap<Digest, (BlobFile, Instant)>>,
}

impl Files {
    /// The file of a blob, if it is open.
    pub(crate) fn open(&self, digest: &Digest) -> Option<BlobFile> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        let (file, used) = open.get_mut(digest)?;
        *used = Instant::now();
        Some(file.clone())
    }

    /// The file of a blob, opened if need be.
    pub(crate) fn get(&self, store: &Store, digest: &Digest) -> Option<BlobFile> {
        if let Some(file) = self.open(digest) {
            return Some(file);
        }
        let file = store.get(digest)?;
        self.keep(file.clone());
        Some(file)
    }

    /// Keeps a file open until it has not been used for a while.
    pub(crate) fn keep(&self, file: BlobFile) {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        if open.len() >= MAX_FILES
            && let Some(oldest) = open
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(digest, _)| *digest)
        {
            open.remove(&oldest);
        }
        open.insert(file.blob().digest, (file, Instant::now()));
    }

    /// Closes a file, as far as nobody reads it.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.open.lock().expect("no holder of this lock panics").remove(digest);
    }

    /// Closes what has not been used for a while.
    pub(crate) fn close_idle(&self, now: Instant) {
        self.open
            .lock()
            .expect("no holder of this lock panics")
            .retain(|_, (_, used)| now.duration_since(*used) < IDLE);
    }

    /// Closes everything.
    pub(crate) fn close_all(&self) {
        self.open.lock().expect("no holder of this lock panics").clear();
    }
}

/// A source as the store keeps it: kind, registry and repository, none of which can contain a space.
pub(crate) fn source_text(source: &Source) -> String {
    let kind = match source.kind {
        Kind::Blob => "blob",
        Kind::Manifest => "manifest",
    };
    format!("{kind} {} {}", source.repository.registry, source.repository.name)
}

/// The source that [`source_text`] wrote.
pub(crate) fn parse_source(text: &str) -> Option<Source> {
    let mut words = text.split(' ');
    let kind = match words.next()? {
        "blob" => Kind::Blob,
        "manifest" => Kind::Manifest,
        _ => return None,
    };
    let repository = Repository {
        registry: words.next()?.to_owned(),
        name: words.next()?.to_owned(),
    };
    words.next().is_none().then_some(Source { repository, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_the_store() {
        let repository = Repository {
            registry: "r.example:5000".into(),
            name: "org/model".into(),
        };
        let source = Source {
            repository,
            kind: Kind::Manifest,
        };
        assert_eq!(parse_source(&source_text(&source)), Some(source));
        assert_eq!(parse_source("blob r"), None);
        assert_eq!(parse_source("tag r m"), None);
    }

    #[test]
    fn idle_files_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(store::Config::at(dir.path())).unwrap();
        let blob = piece::Blob {
            digest: Digest::of(b"x"),
            size: 1,
        };
        let files = Files::default();
        files.keep(store.insert(blob, None, b"x").unwrap());
        files.close_idle(Instant::now());
        assert_eq!(files.open.lock().unwrap().len(), 1);
        files.close_idle(Instant::now() + IDLE);
        assert!(files.open.lock().unwrap().is_empty());
        assert!(files.get(&store, &blob.digest).is_some());
    }
}
