//! How far the clients that stream a blob have got, so that the pieces they wait for come first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use piece::{Digest, PieceIndex};
use swarm::node::Input;

use crate::engine::Engine;

/// The cursors of every blob that is streamed while it arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cursors {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    by_blob: HashMap<Digest, BTreeMap<u64, PieceIndex>>,
    next: u64,
}

/// One client's cursor; gone when dropped.
#[derive(Debug)]
pub(crate) struct Cursor {
    cursors: Cursors,
    engine: Engine,
    digest: Digest,
    id: u64,
}

impl Cursors {
    /// A new client's cursor, nowhere yet.
    pub(crate) fn begin(&self, engine: &Engine, digest: Digest) -> Cursor {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        inner.next += 1;
        Cursor {
            cursors: self.clone(),
            engine: engine.clone(),
            digest,
            id: inner.next,
        }
    }
}

impl Cursor {
    /// The client waits for this piece.
    pub(crate) fn at(&self, piece: PieceIndex) {
        self.change(|cursors| {
            cursors.insert(self.id, piece);
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, PieceIndex>)) {
        let mut inner = self.cursors.inner.lock().expect("no holder of this lock panics");
        let cursors = inner.by_blob.entry(self.digest).or_default();
        let before = cursors.values().min().copied();
        change(cursors);
        let after = cursors.values().min().copied();
        if cursors.is_empty() {
            inner.by_blob.remove(&self.digest);
        }
        if before != after {
            self.engine.hint(Input::Cursor {
                digest: self.digest,
                piece: after,
            });
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.change(|cursors| {
            cursors.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Event;
    use piece::Geometry;

    #[tokio::test]
    async fn the_slowest_client_counts_until_it_leaves() {
        let (engine, mut events) = Engine::channel();
        let cursors = Cursors::default();
        let piece = |n| Geometry::of(8 << 20).piece(n);
        let slow = cursors.begin(&engine, Digest::EMPTY);
        let fast = cursors.begin(&engine, Digest::EMPTY);
        slow.at(piece(1).unwrap());
        fast.at(piece(5).unwrap());
        drop(slow);
        drop(fast);
        let mut seen = Vec::new();
        while let Ok(Event::Input(Input::Cursor { piece, .. })) = events.try_recv() {
            seen.push(piece);
        }
        assert_eq!(seen, [piece(1), piece(5), None]);
        assert!(cursors.inner.lock().unwrap().by_blob.is_empty());
    }
}
