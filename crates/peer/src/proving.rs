//! Proving and writing pieces: a few threads, two pieces interleaved on each.
//!
//! Two at once cost little more than one (see `piece::prove_two`), so while one thread hashes, another takes a pair but no
//! single piece: that one waits for a second, or for the thread that is busy, which takes it a few milliseconds later.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;
use piece::{Link, Proof};
use store::BlobFile;
use swarm::node::Outcome;
use tokio::sync::oneshot;

use crate::buffers::Room;

/// One piece as it arrived, and what must prove it.
#[derive(Debug)]
struct Arrived {
    file: BlobFile,
    link: Link,
    chunks: Vec<Bytes>,
    /// Given back when the chunks are gone.
    room: Room,
    done: oneshot::Sender<Outcome>,
}

/// The threads that prove; they end when this is dropped and all is proven.
#[derive(Debug)]
pub(crate) struct Provers(Arc<Queue<Arrived>>);

impl Provers {
    /// Starts `threads` of them.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let provers = Self(Arc::default());
        for number in 0..threads.max(1) {
            let queue = Arc::clone(&provers.0);
            std::thread::Builder::new()
                .name(format!("prover-{number}"))
                .spawn(move || {
                    while let Some((first, second, hashing)) = queue.take() {
                        prove(first, second, hashing);
                    }
                })?;
        }
        Ok(provers)
    }

    /// Proves a piece and writes it.
    pub(crate) async fn prove(&self, file: BlobFile, link: Link, chunks: Vec<Bytes>, room: Room) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.0.put(Arrived {
            file,
            link,
            chunks,
            room,
            done,
        });
        outcome.await.unwrap_or(Outcome::StoreFailed)
    }
}

impl Drop for Provers {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What waits to be hashed. Pieces in it hold their room, so the room for all pieces bounds it.
#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    takeable: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// Threads that hash just now.
    hashing: usize,
    is_closed: bool,
}

/// Says that a thread hashes, until dropped.
struct Hashing<'a, T>(&'a Queue<T>);

impl<T> Queue<T> {
    fn put(&self, piece: T) {
        let mut state = self.locked();
        state.waiting.push_back(piece);
        self.wake(&state);
    }

    /// Waits for a piece, or two if another thread hashes; `None` when the queue is closed and empty.
    fn take(&self) -> Option<(T, Option<T>, Hashing<'_, T>)> {
        let idle = |state: &mut State<T>| !(state.is_takeable() || state.is_closed && state.waiting.is_empty());
        let mut state = self
            .takeable
            .wait_while(self.locked(), idle)
            .expect("no holder of this lock panics");
        let first = state.waiting.pop_front()?;
        let second = state.waiting.pop_front();
        state.hashing += 1;
        // What is left may be a pair for another thread.
        self.wake(&state);
        Some((first, second, Hashing(self)))
    }

    fn close(&self) {
        let mut state = self.locked();
        state.is_closed = true;
        self.wake(&state);
    }

    fn wake(&self, state: &State<T>) {
        if state.is_closed {
            // Those for whom nothing is left end.
            self.takeable.notify_all();
        } else if state.is_takeable() {
            self.takeable.notify_one();
        }
    }

    fn locked(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl<T> State<T> {
    fn is_takeable(&self) -> bool {
        self.waiting.len() > usize::from(self.hashing > 0)
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                hashing: 0,
                is_closed: false,
            }),
            takeable: Condvar::new(),
        }
    }
}

impl<T> Drop for Hashing<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.locked();
        state.hashing -= 1;
        self.0.wake(&state);
    }
}

fn prove(first: Arrived, second: Option<Arrived>, hashing: Hashing<'_, Arrived>) {
    let Some(second) = second else {
        let proof = piece::prove(&first.link, first.chunks);
        drop(hashing);
        return finish(&first.file, proof, first.room, first.done);
    };
    let (one, two) = piece::prove_two((&first.link, first.chunks), (&second.link, second.chunks));
    drop(hashing);
    finish(&first.file, one, first.room, first.done);
    finish(&second.file, two, second.room, second.done);
}

fn finish(file: &BlobFile, proof: Proof<Bytes>, room: Room, done: oneshot::Sender<Outcome>) {
    let outcome = match proof.map(|proven| file.write(proven)) {
        Ok(Ok(_)) => Outcome::Stored,
        Ok(Err(error)) => {
            tracing::error!(%error, "a proven piece could not be written");
            Outcome::StoreFailed
        }
        Err(_) => Outcome::WrongBytes,
    };
    // The chunks are gone by now.
    drop(room);
    // Whoever cancelled the request no longer listens; the piece is stored all the same.
    let _ = done.send(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_piece_is_taken_at_once_and_then_only_pairs() {
        let queue = Queue::default();
        queue.put(1);
        let (first, second, hashing) = queue.take().unwrap();
        assert_eq!(
            (first, second),
            (1, None),
            "nobody hashes, so there is nothing to wait for"
        );
        queue.put(2);
        assert!(!queue.locked().is_takeable(), "a second one may come");
        queue.put(3);
        let (first, second, _also) = queue.take().unwrap();
        assert_eq!((first, second), (2, Some(3)));
        queue.put(4);
        drop(hashing);
        assert!(!queue.locked().is_takeable(), "one thread still hashes");
    }

    #[test]
    fn a_piece_that_waits_alone_is_taken_when_the_hashing_ends() {
        let queue = Queue::default();
        queue.put(1);
        let (_, _, hashing) = queue.take().unwrap();
        queue.put(2);
        std::thread::scope(|threads| {
            let other = threads.spawn(|| queue.take().map(|(first, second, _)| (first, second)));
            drop(hashing);
            assert_eq!(other.join().unwrap(), Some((2, None)));
        });
    }

    #[test]
    fn what_waits_is_still_proven_when_the_queue_is_closed_and_then_all_threads_end() {
        let queue = Queue::default();
        std::thread::scope(|threads| {
            let work = || {
                let taken = std::iter::from_fn(|| queue.take().map(|(first, second, _)| [Some(first), second]));
                taken.flatten().flatten().collect::<Vec<_>>()
            };
            let workers = [(); 4].map(|()| threads.spawn(work));
            (0..101).for_each(|piece| queue.put(piece));
            queue.close();
            let mut taken: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
            taken.sort_unstable();
            assert_eq!(taken, (0..101).collect::<Vec<_>>());
        });
    }
}
