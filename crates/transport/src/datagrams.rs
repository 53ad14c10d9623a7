//! What the system delivers as one, taken apart where that may matter.
//!
//! The kernel joins the datagrams that one sender sends in a row, up to 64 KiB (GRO). quinn copies that into one allocation,
//! which every byte of a stream in it keeps whole for as long as it waits to be read: a hostile sender's byte per row costs
//! 64 KiB, and quinn's own limits, which count datagrams, see nothing of it. So a balance is kept of what has come and was not
//! read as bytes of pieces since. While it is small, which it is while honest neighbours send, rows go to quinn as they came;
//! what they keep is no more than the balance. Beyond that they come to it in groups of a few datagrams of equal length, and a shorter
//! one alone: then what a byte keeps is at most a few times what quinn counts. The price is a copy within the cache, and
//! more allocations.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};

use quinn::udp::RecvMeta;

/// Datagrams that come to quinn as one, at most, when rows are taken apart. One by one, pieces that are held until they are
/// whole cost a third more CPU where eight neighbours send them, for allocations; by fours a fifth, and with more than that
/// no less.
pub(crate) const GROUP: usize = 4;

/// What is read from the system, and what is handed on, at most at once: little enough to stay in the cache in between.
const ROWS: usize = 8;

/// What was read from the socket and not yet handed on.
pub(crate) struct Datagrams {
    /// [`ROWS`] rows of `row` bytes.
    room: Box<[u8]>,
    row: usize,
    /// What is in each row that is filled.
    metas: [RecvMeta; ROWS],
    filled: usize,
    /// What is handed on next: of which row, from which byte.
    at: (usize, usize),
    balance: Balance,
}

impl Datagrams {
    /// None yet; the system may deliver `row` bytes as one. `read` counts the bytes of pieces that were taken from quinn.
    pub(crate) fn new(row: usize, read: Arc<AtomicU64>) -> Self {
        Self {
            room: vec![0; row * ROWS].into(),
            row,
            metas: [RecvMeta::default(); ROWS],
            filled: 0,
            at: (0, 0),
            balance: Balance::new(read),
        }
    }

    /// Puts a row or a group into each of `bufs`, and what it is into `metas`, and returns how many there were. When none is
    /// left, asks `receive` for more, which is [`quinn::AsyncUdpSocket::poll_recv`]. A group longer than its buffer is dropped:
    /// its datagrams are longer than they may be.
    pub(crate) fn poll(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        mut receive: impl FnMut(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let most = ROWS.min(bufs.len()).min(metas.len());
        loop {
            let mut count = 0;
            while count < most
                && let Some((group, meta)) = self.next()
            {
                if let Some(buf) = bufs[count].get_mut(..group.len()) {
                    buf.copy_from_slice(group);
                    metas[count] = meta;
                    count += 1;
                }
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if self.balance.is_small() && bufs.iter().take(most).all(|buf| buf.len() >= self.row) {
                let count = ready!(receive(&mut bufs[..most], &mut metas[..most]))?;
                metas[..count].iter().for_each(|meta| self.balance.came(meta));
                return Poll::Ready(Ok(count));
            }
            let mut rows = self.room.chunks_exact_mut(self.row).map(IoSliceMut::new);
            let mut rows: [_; ROWS] = std::array::from_fn(|_| rows.next().expect("there are ROWS rows"));
            (self.filled, self.at) = (0, (0, 0));
            self.filled = ready!(receive(&mut rows, &mut self.metas))?;
            self.metas[..self.filled]
                .iter()
                .for_each(|meta| self.balance.came(meta));
        }
    }

    /// The next group that is here already.
    fn next(&mut self) -> Option<(&[u8], RecvMeta)> {
        while self.at.0 < self.filled {
            let (row, from) = self.at;
            let meta = self.metas[row];
            let left = &self.room[row * self.row..][from..meta.len];
            if left.is_empty() {
                self.at = (row + 1, 0);
                continue;
            }
            let stride = meta.stride.clamp(1, left.len());
            let len = stride * (left.len() / stride).min(GROUP);
            self.at = (row, from + len);
            return Some((&left[..len], RecvMeta { len, stride, ..meta }));
        }
        None
    }
}

/// Bytes that came in rows longer than a group, less those that were read.
struct Balance {
    /// Of pieces, taken from quinn.
    read: Arc<AtomicU64>,
    /// How many of those are in the balance.
    seen: u64,
    bytes: u64,
}

impl Balance {
    /// What honest neighbours have under way between the socket and whoever reads, with room to spare.
    const SMALL: u64 = 2 << 20;
    /// More is not remembered: who has sent it is gone some time, and others then need as long as this takes to be believed.
    const MOST: u64 = 32 << 20;
    /// A byte that is read stands for this share of a byte more: for headers, tags and acknowledgements.
    const OVERHEAD: u64 = 32;

    const fn new(read: Arc<AtomicU64>) -> Self {
        Self {
            read,
            seen: 0,
            bytes: 0,
        }
    }

    fn came(&mut self, meta: &RecvMeta) {
        if meta.len > meta.stride * GROUP {
            self.bytes = (self.bytes + meta.len as u64).min(Self::MOST);
        }
    }

    fn is_small(&mut self) -> bool {
        // Nothing else is ordered by this counter.
        let read = self.read.load(Ordering::Relaxed);
        let new = read - self.seen;
        self.seen = read;
        self.bytes = self.bytes.saturating_sub(new + new / Self::OVERHEAD);
        self.bytes < Self::SMALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of at most 100 bytes, after many of which none was read.
    fn suspicious() -> Datagrams {
        let mut datagrams = Datagrams::new(100, Arc::default());
        datagrams.balance.bytes = Balance::SMALL;
        datagrams
    }

    /// What comes of `deliveries`, each a length and a stride, into so many buffers of that length: bytes, which count on
    /// through all of them, and strides.
    fn received(deliveries: &[(usize, usize)], room: (usize, usize)) -> Vec<(Vec<u8>, usize)> {
        let mut datagrams = suspicious();
        let (mut deliveries, mut byte, mut got) = (deliveries.chunks(2), 0, Vec::new());
        loop {
            let mut bufs = vec![vec![0; room.1]; room.0];
            let mut metas = vec![RecvMeta::default(); room.0];
            let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
            let poll = datagrams.poll(&mut slices, &mut metas, |rows, metas| {
                let Some(batch) = deliveries.next() else {
                    return Poll::Pending;
                };
                for (at, (len, stride)) in batch.iter().copied().enumerate() {
                    rows[at][..len].fill_with(|| {
                        byte += 1;
                        byte
                    });
                    metas[at] = RecvMeta {
                        len,
                        stride,
                        ..RecvMeta::default()
                    };
                }
                Poll::Ready(Ok(batch.len()))
            });
            let Poll::Ready(count) = poll else {
                return got;
            };
            for (buf, meta) in bufs.iter().zip(&metas).take(count.unwrap()) {
                got.push((buf[..meta.len].to_vec(), meta.stride));
            }
        }
    }

    #[test]
    fn equal_datagrams_come_in_groups_and_shorter_ones_alone() {
        let deliveries = [(90, 10), (5, 5), (0, 0), (40, 40), (41, 20)];
        for bufs in [1, 2, 3, 32] {
            let got = received(&deliveries, (bufs, 40));
            let lengths: Vec<_> = got.iter().map(|(bytes, stride)| (bytes.len(), *stride)).collect();
            let wanted = [(40, 10), (40, 10), (10, 10), (5, 5), (40, 40), (40, 20), (1, 1)];
            assert_eq!(lengths, wanted, "{bufs}");
            let bytes: Vec<u8> = got.into_iter().flat_map(|(bytes, _)| bytes).collect();
            assert_eq!(bytes, (1..=176).collect::<Vec<u8>>(), "{bufs}");
        }
    }

    #[test]
    fn what_is_longer_than_its_buffer_is_dropped_and_the_rest_comes() {
        let got = received(&[(61, 60), (20, 20), (90, 90), (7, 0)], (2, 50));
        let lengths: Vec<_> = got.iter().map(|(bytes, _)| bytes.len()).collect();
        assert_eq!(lengths, [1, 20, 4, 3]);
    }

    /// A row of a hundred datagrams, and how it is handed on.
    fn hand_on(datagrams: &mut Datagrams) -> (usize, usize) {
        let (mut row, mut metas) = ([0; 100], [RecvMeta::default()]);
        let poll = datagrams.poll(&mut [IoSliceMut::new(&mut row)], &mut metas, |_, metas| {
            metas[0] = RecvMeta {
                len: 100,
                stride: 1,
                ..RecvMeta::default()
            };
            Poll::Ready(Ok(1))
        });
        assert!(matches!(poll, Poll::Ready(Ok(1))));
        (metas[0].len, metas[0].stride)
    }

    #[test]
    fn rows_are_whole_while_they_are_read_and_taken_apart_when_they_are_not() {
        let read = Arc::new(AtomicU64::new(0));
        let mut datagrams = Datagrams::new(100, read.clone());
        for _ in 0..Balance::MOST / 100 {
            assert_eq!(hand_on(&mut datagrams), (100, 1));
            read.fetch_add(97, Ordering::Relaxed);
        }
        for _ in 0..Balance::SMALL.div_ceil(100) {
            assert_eq!(hand_on(&mut datagrams), (100, 1), "they may be read later");
        }
        for _ in 0..Balance::MOST / 4 {
            assert_eq!(hand_on(&mut datagrams), (GROUP, 1));
        }
        read.fetch_add(Balance::MOST - Balance::SMALL, Ordering::Relaxed);
        let groups = (0..100).take_while(|_| hand_on(&mut datagrams) == (GROUP, 1)).count();
        assert!(groups < 100 / GROUP, "what is left of a row, and then rows again");
    }

    #[test]
    fn what_came_while_others_read_is_not_forgotten_with_theirs() {
        let read = Arc::new(AtomicU64::new(0));
        let mut datagrams = Datagrams::new(100, read.clone());
        let mut whole = 0;
        for _ in 0..1 << 20 {
            let (len, _) = hand_on(&mut datagrams);
            whole += if len == 100 { 100 } else { 0 };
            // Half of all bytes are.
            read.fetch_add(len as u64 / 2, Ordering::Relaxed);
        }
        assert!(whole / 2 < 2 * Balance::SMALL, "{whole} bytes came whole");
    }
}
