//! Pieces, from request to last byte.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use piece::{Blob, MAX_RUN, Midstate, MidstateRun, SignedRun, Standing};
use tokio::task::JoinHandle;
use transport::{Config, FetchError, IncomingPiece, ServeError};
use wire::exchange::{MAX_ANSWER_RUNS, Refusal};

use crate::support::{Node, blob, data, key, request, until, within};

async fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::start(1), Node::start(2));
    a.join(&mut b).await;
    (a, b)
}

/// A piece that has begun to travel from `b` to `a`, and its sender's task.
async fn begin(a: &Node, b: &mut Node, bytes: Bytes) -> (IncomingPiece, JoinHandle<Result<u64, ServeError>>) {
    let (asker, id) = (a.transport.clone(), b.id);
    let asking = tokio::spawn(async move { asker.fetch(&id, request(0)).await });
    let serving = tokio::spawn(b.request().await.piece(Vec::new(), bytes));
    (within(asking).await.unwrap().unwrap(), serving)
}

/// A run as long as they come.
fn signed_run() -> SignedRun {
    let midstates = vec![Midstate::START; MAX_RUN];
    let run = MidstateRun {
        blob: Blob {
            size: 1 << 30,
            ..blob()
        },
        first: 1,
        midstates,
        standing: Standing::Closed,
    };
    SignedRun::sign(run, key(9).signing_key()).unwrap()
}

#[tokio::test]
async fn both_ends_may_hold_a_piece_back() {
    let (a, mut b) = pair().await;
    let piece = data(1 << 20);
    let (asker, id) = (a.transport.clone(), b.id);
    let (sent, received) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fetching = async {
        let mut incoming = within(asker.fetch(&id, request(0))).await.unwrap();
        let pace = async |bytes| {
            received.fetch_add(bytes, Ordering::Relaxed);
        };
        within(incoming.read_paced(piece.len(), pace)).await.unwrap().concat()
    };
    let serving = async {
        let asked = b.request().await;
        let portions = async |bytes| {
            assert!(bytes <= 100_000, "a portion of {bytes} bytes");
            sent.fetch_add(bytes, Ordering::Relaxed);
        };
        let served = within(asked.paced_piece(Vec::new(), piece.clone(), 100_000, portions)).await;
        assert_eq!(served, Ok(1 << 20));
    };
    assert_eq!(tokio::join!(fetching, serving).0, piece);
    assert_eq!(
        sent.into_inner(),
        10 * 100_000,
        "all but the last portion were waited for"
    );
    assert_eq!(received.into_inner(), 1 << 20);
}

#[tokio::test]
async fn a_piece_arrives_whole_with_its_runs() {
    let (mut a, mut b) = pair().await;
    let piece = data(4 << 20);
    let runs = vec![signed_run(); MAX_ANSWER_RUNS];
    // Either end may ask, whoever dialled.
    let [from_a, from_b] = [a.transport.clone(), b.transport.clone()];
    for (asker, holder) in [(from_a, &mut b), (from_b, &mut a)] {
        let id = holder.id;
        let fetching = async {
            let mut incoming = within(asker.fetch(&id, request(3))).await.unwrap();
            assert_eq!(incoming.runs, runs);
            let progress = incoming.progress();
            assert_eq!(progress.bytes(), 0);
            let chunks = within(incoming.read(piece.len())).await.unwrap();
            assert_eq!(progress.bytes(), piece.len() as u64);
            chunks.concat()
        };
        let serving = async {
            let asked = holder.request().await;
            assert_eq!(asked.fetch, request(3));
            assert_eq!(within(asked.piece(runs.clone(), piece.clone())).await, Ok(4 << 20));
        };
        assert_eq!(tokio::join!(fetching, serving).0, piece);
    }
    for status in [a.transport.status(), b.transport.status()] {
        assert_eq!((status.received_bytes, status.sent_bytes), (4 << 20, 4 << 20));
    }
}

#[tokio::test]
async fn many_pieces_travel_at_once() {
    let (a, mut b) = pair().await;
    let piece = data(300_000);
    let fetches = (0..40).map(|number| {
        let (transport, id, piece) = (a.transport.clone(), b.id, piece.clone());
        tokio::spawn(async move {
            let mut incoming = transport.fetch(&id, request(number)).await.unwrap();
            let chunks = incoming.read(piece.len() - number as usize).await.unwrap();
            assert_eq!(chunks.concat(), piece[number as usize..]);
        })
    });
    let fetches: Vec<_> = fetches.collect();
    for _ in 0..40 {
        let asked = b.request().await;
        let bytes = piece.slice(asked.fetch.piece as usize..);
        tokio::spawn(asked.piece(Vec::new(), bytes));
    }
    for fetch in fetches {
        within(fetch).await.unwrap();
    }
}

/// Pieces that shared the link would all be whole as late as the last.
#[tokio::test]
async fn a_piece_is_whole_before_the_next_has_begun_in_earnest() {
    const PIECES: usize = 8;
    let (a, mut b) = pair().await;
    let piece = data(1 << 20);
    let (say, mut progresses) = tokio::sync::mpsc::unbounded_channel();
    let fetches: Vec<_> = (0..PIECES)
        .map(|number| {
            let (transport, id, len, say) = (a.transport.clone(), b.id, piece.len(), say.clone());
            tokio::spawn(async move {
                let mut incoming = transport.fetch(&id, request(number as u32)).await.unwrap();
                say.send(incoming.progress()).unwrap();
                incoming.read(len).await.unwrap();
                // Nothing has been read of the others since.
                incoming.progress()
            })
        })
        .collect();
    let mut asked = Vec::new();
    for _ in 0..PIECES {
        asked.push(b.request().await);
    }
    for asked in asked {
        tokio::spawn(asked.piece(Vec::new(), piece.clone()));
    }
    let (first, _, rest) = within(futures::future::select_all(fetches)).await;
    assert_eq!(first.unwrap().bytes(), piece.len() as u64);
    let mut all = 0;
    while let Ok(progress) = progresses.try_recv() {
        all += progress.bytes();
    }
    assert!(
        all < 3 * piece.len() as u64,
        "{all} bytes of {PIECES} pieces had come when the first was whole"
    );
    for fetch in rest {
        within(fetch).await.unwrap();
    }
}

#[tokio::test]
async fn large_payloads_are_not_taken_for_a_black_hole() {
    // Ten of these at once are more than a system call can carry, and the kernel would refuse them.
    for payload in [8952, 65_000] {
        let config = Config {
            max_udp_payload: payload,
            mtu_upper_bound: payload,
            ..Config::default()
        };
        let (mut a, mut b) = (Node::with_config(1, config.clone()), Node::with_config(2, config));
        a.join(&mut b).await;
        let to = a.id;
        until(|| b.transport.path(&to).unwrap().mtu + 20 >= payload).await;
        let piece = data(16 << 20);
        let (mut incoming, asked) = begin(&a, &mut b, piece.clone()).await;
        within(incoming.read(piece.len())).await.unwrap();
        assert_eq!(within(asked).await.unwrap(), Ok(16 << 20));
        let path = b.transport.path(&to).unwrap();
        assert_eq!((path.black_holes, path.mtu + 20 >= payload), (0, true), "{path:?}");
    }
}

#[tokio::test]
async fn refusals_carry_their_reason() {
    let (a, mut b) = pair().await;
    for refusal in [Refusal::NotHere, Refusal::Busy, Refusal::Failed] {
        let (answer, ()) = tokio::join!(a.transport.fetch(&b.id, request(0)), async {
            b.events.recv().await;
        });
        // Dropped unanswered: the asker is told to look elsewhere, and nobody is blamed.
        assert!(matches!(answer, Err(FetchError::Lost(_))), "{answer:?}");
        let id = b.id;
        let (answer, ()) = tokio::join!(a.transport.fetch(&id, request(0)), async {
            b.request().await.refuse(refusal).await;
        });
        assert_eq!(answer.unwrap_err(), FetchError::Refused(refusal));
    }
    assert_eq!(
        a.transport.fetch(&a.id, request(0)).await.unwrap_err(),
        FetchError::NotConnected
    );
}

#[tokio::test]
async fn cancelling_on_the_way_stops_the_sender() {
    let (a, mut b) = pair().await;
    let id = b.id;
    // More than all windows hold, so that the sender can't be done.
    let huge = data(16 << 20);
    let (mut incoming, asked) = begin(&a, &mut b, huge.clone()).await;
    let progress = incoming.progress();
    tokio::select! {
        biased;
        () = until(|| progress.bytes() > 1 << 20) => {}
        read = incoming.read(huge.len()) => panic!("{read:?}, though a window is left to fill"),
    }
    drop(incoming);
    assert_eq!(within(asked).await.unwrap(), Err(ServeError::Cancelled));
    // The connection is as good as before.
    let (answer, ()) = tokio::join!(a.transport.fetch(&id, request(1)), async {
        b.request().await.refuse(Refusal::Busy).await;
    });
    assert_eq!(answer.unwrap_err(), FetchError::Refused(Refusal::Busy));
}

#[tokio::test]
async fn a_request_given_up_before_it_is_answered_is_cancelled() {
    let (a, mut b) = pair().await;
    let (transport, id) = (a.transport.clone(), b.id);
    let fetch = tokio::spawn(async move { transport.fetch(&id, request(0)).await.map(|_| ()) });
    let asked = b.request().await;
    fetch.abort();
    assert!(fetch.await.unwrap_err().is_cancelled());
    assert_eq!(
        within(asked.piece(Vec::new(), data(16 << 20))).await,
        Err(ServeError::Cancelled)
    );
}

#[tokio::test]
async fn a_piece_of_another_length_is_the_senders_fault() {
    let (a, mut b) = pair().await;
    for (sent, wanted) in [(1000, 1001), (1001, 1000), (0, 1), (1, 0)] {
        let (mut incoming, asked) = begin(&a, &mut b, data(sent)).await;
        let error = within(incoming.read(wanted)).await.unwrap_err();
        assert!(
            matches!(error, FetchError::Malformed(_)),
            "{sent} for {wanted}: {error}"
        );
        let _ = within(asked).await;
    }
}

#[tokio::test]
async fn a_sender_that_gives_up_half_way_is_not_taken_for_done() {
    let (a, mut b) = pair().await;
    let (mut incoming, asked) = begin(&a, &mut b, data(32 << 20)).await;
    let progress = incoming.progress();
    let (read, ()) = tokio::join!(within(incoming.read(32 << 20)), async {
        until(|| progress.bytes() > 0).await;
        asked.abort();
    });
    assert_eq!(read, Err(FetchError::Lost("the neighbour gave up on it".to_owned())));
}

#[tokio::test]
async fn a_lost_connection_is_nobodys_fault() {
    let (a, mut b) = pair().await;
    let (mut incoming, asked) = begin(&a, &mut b, data(32 << 20)).await;
    b.transport.disconnect(&a.id, "enough");
    let error = within(incoming.read(32 << 20)).await.unwrap_err();
    assert!(matches!(error, FetchError::Lost(_)), "{error}");
    assert!(matches!(within(asked).await.unwrap(), Err(ServeError::Lost(_))));
}

#[tokio::test]
async fn more_runs_than_an_answer_holds_are_not_sent() {
    let (a, mut b) = pair().await;
    let id = b.id;
    let (answer, ()) = tokio::join!(a.transport.fetch(&id, request(0)), async {
        let error = b
            .request()
            .await
            .piece(vec![signed_run(); MAX_ANSWER_RUNS + 1], Bytes::new())
            .await;
        assert!(matches!(error, Err(ServeError::TooLong { runs: 9, .. })), "{error:?}");
    });
    assert!(matches!(answer, Err(FetchError::Lost(_))), "{answer:?}");
}

#[tokio::test]
async fn closing_lets_a_piece_finish_and_takes_no_more() {
    let (a, mut b) = pair().await;
    let id = b.id;
    let piece = data(16 << 20);
    let (mut incoming, asked) = begin(&a, &mut b, piece.clone()).await;
    let closing = b.transport.clone();
    let closing = tokio::spawn(async move { closing.close().await });
    let refused = async {
        // Until the close has begun, requests are still taken, and dropped here.
        loop {
            tokio::select! {
                answer = a.transport.fetch(&id, request(1)) => match answer {
                    Err(FetchError::Lost(_)) => {}
                    other => break other,
                },
                _ = b.events.recv() => {}
            }
        }
    };
    assert_eq!(within(refused).await.unwrap_err(), FetchError::Refused(Refusal::Busy));
    let chunks = within(incoming.read(piece.len())).await.unwrap();
    assert_eq!(chunks.concat(), piece);
    assert_eq!(within(asked).await.unwrap(), Ok(16 << 20));
    assert_eq!(b.disconnected().await, "shutting down");
    within(closing).await.unwrap();
}
