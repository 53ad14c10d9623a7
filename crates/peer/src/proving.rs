//! Proving and writing pieces: a few threads, two pieces interleaved on each.

use std::sync::{Arc, Mutex};

use piece::{Link, Proven};
use store::BlobFile;
use swarm::node::Outcome;
use tokio::sync::{mpsc, oneshot};

use crate::buffers::Buffer;

/// Pieces that wait to be proven; their memory is counted by the buffer pool.
const QUEUE: usize = 64;

/// One piece as it arrived, and what must prove it.
pub(crate) struct Arrived {
    pub(crate) file: BlobFile,
    pub(crate) link: Link,
    pub(crate) bytes: Buffer,
    pub(crate) done: oneshot::Sender<Outcome>,
}

/// The threads that prove.
#[derive(Debug, Clone)]
pub(crate) struct Provers {
    queue: mpsc::Sender<Arrived>,
}

impl Provers {
    /// Starts `threads` of them; they end when the last handle is gone.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (queue, arrivals) = mpsc::channel(QUEUE);
        let arrivals = Arc::new(Mutex::new(arrivals));
        for number in 0..threads.max(1) {
            let arrivals = Arc::clone(&arrivals);
            std::thread::Builder::new()
                .name(format!("prover-{number}"))
                .spawn(move || {
                    while let Some((first, second)) = next(&arrivals) {
                        prove(first, second);
                    }
                })?;
        }
        Ok(Self { queue })
    }

    /// Proves a piece and writes it; the buffer goes back to its pool.
    pub(crate) async fn prove(&self, file: BlobFile, link: Link, bytes: Buffer) -> Outcome {
        let (done, outcome) = oneshot::channel();
        if self
            .queue
            .send(Arrived {
                file,
                link,
                bytes,
                done,
            })
            .await
            .is_err()
        {
            return Outcome::StoreFailed;
        }
        outcome.await.unwrap_or(Outcome::StoreFailed)
    }
}

/// The next piece, and a second one if it is there already.
fn next(arrivals: &Mutex<mpsc::Receiver<Arrived>>) -> Option<(Arrived, Option<Arrived>)> {
    let mut arrivals = arrivals.lock().expect("no holder of this lock panics");
    let first = arrivals.blocking_recv()?;
    Some((first, arrivals.try_recv().ok()))
}

fn prove(first: Arrived, second: Option<Arrived>) {
    let Some(second) = second else {
        let proof = piece::prove(&first.link, first.bytes);
        return finish(&first.file, proof, first.done);
    };
    let (one, two) = piece::prove_two((&first.link, first.bytes), (&second.link, second.bytes));
    finish(&first.file, one, first.done);
    finish(&second.file, two, second.done);
}

fn finish(file: &BlobFile, proof: Result<Proven<Buffer>, Buffer>, done: oneshot::Sender<Outcome>) {
    let outcome = match proof.map(|proven| file.write(proven)) {
        Ok(Ok(_)) => Outcome::Stored,
        Ok(Err(error)) => {
            tracing::error!(%error, "a proven piece could not be written");
            Outcome::StoreFailed
        }
        Err(_) => Outcome::WrongBytes,
    };
    // Whoever cancelled the request no longer listens; the piece is stored all the same.
    let _ = done.send(outcome);
}
