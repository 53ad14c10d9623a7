//! What has arrived of a piece, held until it is whole: the chunks as they came off the network, without a copy.
//!
//! quinn's chunks are views of what the system delivered at once, up to 64 KiB of packets, and each keeps all of that in
//! memory. What an honest neighbour sends is nearly all bytes of pieces that we asked for and count. A hostile one could
//! send little of a piece between much of nothing, and have us hold many times the piece. So short chunks are copied
//! together, and so is everything as soon as the neighbour has sent twice of what is wanted from it since the first of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Chunks below this length are copied together. A full packet, even of the smallest payload, is longer.
const SHORT: usize = 1 << 10;

/// The bytes of one piece, so far.
#[derive(Debug)]
pub(crate) struct Held {
    chunks: Vec<Bytes>,
    /// Those from here on are views.
    views: usize,
    /// What the neighbour had sent before the first of them.
    sent_before: u64,
    /// Short chunks that follow the others.
    short: Vec<u8>,
}

impl Held {
    /// Nothing yet, from a neighbour that has sent so many bytes, on the whole connection.
    pub(crate) fn new(sent: u64) -> Self {
        Self {
            chunks: Vec::new(),
            views: 0,
            sent_before: sent,
            short: Vec::new(),
        }
    }

    /// Takes the next chunk.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.len() < SHORT {
            self.short.extend_from_slice(&chunk);
        } else {
            self.close_short();
            self.chunks.push(chunk);
        }
    }

    /// Copies what is held only as views if the neighbour, which has `sent` so many bytes by now, sent more than twice the
    /// `wanted` ones since the first of them.
    pub(crate) fn bound(&mut self, sent: u64, wanted: u64) {
        if sent.saturating_sub(self.sent_before) <= wanted.saturating_mul(2) {
            return;
        }
        self.close_short();
        let copy = self.chunks[self.views..].concat();
        self.chunks.truncate(self.views);
        if !copy.is_empty() {
            self.chunks.push(copy.into());
        }
        self.views = self.chunks.len();
        self.sent_before = sent;
    }

    /// All of it, in order.
    pub(crate) fn into_chunks(mut self) -> Vec<Bytes> {
        self.close_short();
        self.chunks
    }

    fn close_short(&mut self) {
        if !self.short.is_empty() {
            self.chunks.push(std::mem::take(&mut self.short).into());
        }
    }
}

/// Bytes of pieces that are being received from one neighbour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted(Arc<AtomicU64>);

/// A share of them, until dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Wanted,
    bytes: u64,
}

impl Wanted {
    /// Adds a piece.
    pub(crate) fn add(&self, bytes: usize) -> Share {
        let bytes = bytes as u64;
        // Nothing else is ordered by this counter.
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Share {
            of: self.clone(),
            bytes,
        }
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(len: usize, byte: u8) -> Bytes {
        vec![byte; len].into()
    }

    #[test]
    fn full_chunks_stay_what_they_are_and_short_ones_go_together() {
        let full = [chunk(SHORT, 1), chunk(1440, 2)];
        let mut held = Held::new(0);
        held.push(chunk(1, 3));
        held.push(chunk(SHORT - 1, 4));
        full.iter().for_each(|chunk| held.push(chunk.clone()));
        held.push(chunk(5, 5));
        held.bound(8192, 4096);
        let chunks = held.into_chunks();
        let lengths: Vec<_> = chunks.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [SHORT, SHORT, 1440, 5]);
        assert_eq!(chunks[0][..2], [3, 4]);
        assert_eq!(
            [chunks[1].as_ptr(), chunks[2].as_ptr()],
            [full[0].as_ptr(), full[1].as_ptr()]
        );
    }

    #[test]
    fn what_would_keep_more_than_twice_its_length_is_copied_once() {
        let sent = [chunk(1440, 1), chunk(10, 2), chunk(1440, 3), chunk(1440, 4)];
        let mut held = Held::new(1000);
        sent[..2].iter().for_each(|chunk| held.push(chunk.clone()));
        held.bound(9000, 4000);
        assert_eq!(held.chunks[0].as_ptr(), sent[0].as_ptr(), "not yet too much");
        held.bound(9001, 4000);
        held.push(sent[2].clone());
        held.bound(17_001, 4000);
        held.push(sent[3].clone());
        let copied = held.chunks[0].as_ptr();
        held.bound(17_002, 4000);
        held.bound(99_999, 4000);
        let chunks = held.into_chunks();
        assert_eq!(chunks[0].as_ptr(), copied, "what is ours is not copied again");
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [1450, 2880]);
        assert_eq!(chunks.concat(), sent.concat());
        assert!(
            sent.iter().all(Bytes::is_unique),
            "nothing of what came is held any longer"
        );
    }

    #[test]
    fn shares_count_while_they_live() {
        let wanted = Wanted::default();
        let (one, two) = (wanted.add(5), wanted.clone().add(7));
        assert_eq!(wanted.bytes(), 12);
        drop(one);
        assert_eq!(wanted.bytes(), 7);
        drop(two);
        assert_eq!(wanted.bytes(), 0);
    }
}
