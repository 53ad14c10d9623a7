//! What neighbours tell each other about a blob: `Holding` once each way, then coalesced `Have`s.

use std::time::Duration;

use piece::{Digest, NodeId, PieceIndex};
use wire::control::Role;
use wire::exchange::{MAX_HAVE_RANGES, Message};

use super::Node;
use super::event::Output;
use crate::rendezvous::rank_zone;

impl Node {
    /// Says what we hold of a blob to one connected neighbour, unless it has heard.
    pub(super) fn tell(&mut self, to: NodeId, digest: Digest, out: &mut Vec<Output>) {
        if self.links.get(&to).is_none() {
            return;
        }
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let (Some(blob), Some(pieces)) = (state.blob(digest), &state.pieces) else {
            return;
        };
        let mut shown = pieces.have.clone();
        for piece in state.spread.hidden_from(&to) {
            shown.clear(piece);
        }
        let bits = (!shown.is_full()).then(|| shown.as_bytes().to_vec());
        let wants = state.is_hungry();
        let spare = self.me.role == Role::Seed || state.origin.is_some();
        let media_type = state.media_type.clone();
        let imports = state.importing.active;
        let mate = state.mate(to);
        if mate.told {
            return;
        }
        mate.told = true;
        mate.news.clear();
        self.links.join(&to, digest);
        out.push(Output::Send {
            to,
            message: Message::Holding {
                blob,
                bits,
                wants,
                media_type,
                spare,
                zone: self.me.zone.clone(),
                imports,
            },
        });
    }

    /// Whether somebody with such a label is in another zone.
    pub(super) fn is_far(&self, zone: Option<&String>) -> bool {
        self.me
            .zone
            .as_ref()
            .zip(zone)
            .is_some_and(|(here, there)| here != there)
    }

    /// This node is to fetch its share of what only other zones hold.
    pub(super) fn begin_importing(&mut self, digest: Digest, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if !std::mem::replace(&mut state.importing.active, true) {
            self.tell_mates_again(digest, out);
        }
    }

    /// Every neighbour that wants the blob is to hear of a piece.
    pub(super) fn announce(&mut self, digest: Digest, piece: PieceIndex) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        for mate in state.mates.values_mut().filter(|mate| mate.wants && mate.told) {
            mate.news(piece);
        }
    }

    /// Says what we hold to every neighbour that takes part in the blob.
    pub(super) fn tell_mates(&mut self, digest: Digest, out: &mut Vec<Output>) {
        let mates: Vec<NodeId> = self
            .blobs
            .get(&digest)
            .map(|state| state.mates.keys().copied().collect())
            .unwrap_or_default();
        for mate in mates {
            self.tell(mate, digest, out);
        }
    }

    /// Says it once more, as it is not as it was.
    pub(super) fn tell_mates_again(&mut self, digest: Digest, out: &mut Vec<Output>) {
        if let Some(state) = self.blobs.get_mut(&digest) {
            state.mates.values_mut().for_each(|mate| mate.told = false);
            self.tell_mates(digest, out);
        }
    }

    /// The blob's file is open: tell everybody who might care.
    pub(super) fn introduce(&mut self, now: Duration, digest: Digest, out: &mut Vec<Output>) {
        self.tell_mates(digest, out);
        self.connect_more(now, digest, out);
    }

    /// A neighbour said something.
    pub(super) fn message(&mut self, now: Duration, from: NodeId, message: Message, out: &mut Vec<Output>) {
        if self.links.get(&from).is_none() {
            return;
        }
        match message {
            Message::Holding {
                blob,
                bits,
                wants,
                media_type,
                spare,
                zone,
                imports,
            } => {
                let far = self.is_far(zone.as_ref());
                let Some(state) = self.blobs.get_mut(&blob.digest) else {
                    out.push(Output::Send {
                        to: from,
                        message: Message::Gone { digest: blob.digest },
                    });
                    return;
                };
                let was_plain = state
                    .mates
                    .get(&from)
                    .is_some_and(|mate| !mate.spare && mate.field.is_some());
                if state.size.is_some_and(|size| size != blob.size) || !state.set_field(from, bits) {
                    // It means another blob, or lies: either way there is nothing to exchange.
                    return;
                }
                if state.media_type.is_none() {
                    state.media_type = media_type;
                }
                let mate = state.mate(from);
                // A reader counts what others hold, and has not heard of what it held before.
                mate.told &= !(was_plain && spare);
                mate.wants = wants;
                mate.spare = spare;
                (mate.far, mate.imports) = (far, imports);
                mate.zone = zone.map_or(0, |label| rank_zone(&blob.digest, &label));
                state.survey(now);
                self.links.join(&from, blob.digest);
                self.tell(from, blob.digest, out);
                self.spread(now, blob.digest);
            }
            Message::Have { digest, ranges, load } => {
                if let Some(link) = self.links.get_mut(&from) {
                    link.heard_load(now, load);
                }
                let ranges = &ranges[..ranges.len().min(MAX_HAVE_RANGES)];
                self.hear_of(now, digest, from, ranges);
                if let Some(state) = self.blobs.get_mut(&digest) {
                    state.add_pieces(from, ranges);
                    state.offer(now, &from, ranges);
                    let whole = state
                        .mates
                        .get(&from)
                        .and_then(|mate| mate.field.as_ref())
                        .is_some_and(|f| f.is_full());
                    if whole {
                        state.mate(from).wants = false;
                    }
                }
            }
            Message::Gone { digest } => {
                if let Some(state) = self.blobs.get_mut(&digest) {
                    state.remove_mate(&from);
                    state.survey(now);
                    self.links.leave(&from, &digest);
                    self.lose_requests_of(now, from, Some(digest), out);
                }
            }
        }
    }

    /// Sends the `Have`s that are due: at once to a neighbour that has heard nothing lately, else gathered. Of a piece that it
    /// has itself by then only a reader hears, who counts what others hold.
    pub(super) fn send_news(&mut self, now: Duration, out: &mut Vec<Output>) {
        let load = self.uploads.load();
        let mut left = Vec::new();
        while let Some(digest) = self.news.take_due(now) {
            let mates = self
                .blobs
                .get_mut(&digest)
                .into_iter()
                .flat_map(|state| &mut state.mates);
            for (node, mate) in mates.filter(|(_, mate)| !mate.news.is_empty()) {
                let due = mate.last_have + self.config.have_interval;
                if mate.last_have != Duration::ZERO && now < due {
                    left.push((digest, due));
                    continue;
                }
                mate.forget_stale_news();
                if mate.news.is_empty() {
                    continue;
                }
                mate.last_have = now;
                let ranges = ranges(&mut mate.news);
                if !mate.news.is_empty() {
                    left.push((digest, now + self.config.have_interval));
                }
                out.push(Output::Send {
                    to: *node,
                    message: Message::Have { digest, ranges, load },
                });
            }
        }
        for (digest, due) in left {
            self.news.note(digest, due);
        }
    }
}

/// Takes the pieces as ranges, at most a message full of them; the rest stays.
fn ranges(news: &mut Vec<PieceIndex>) -> Vec<(u32, u32)> {
    news.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    let mut taken = 0;
    for piece in news.iter().map(|piece| piece.get()) {
        let full = ranges.len() == MAX_HAVE_RANGES;
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == piece => *count += 1,
            _ if full => break,
            _ => ranges.push((piece, 1)),
        }
        taken += 1;
    }
    news.drain(..taken);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use piece::Geometry;

    #[test]
    fn pieces_become_ranges_and_the_rest_stays() {
        let geometry = Geometry::of(8192 * (4 << 20));
        let piece = |n| geometry.piece(n).unwrap();
        let mut news = vec![piece(3), piece(1), piece(2), piece(9)];
        assert_eq!(ranges(&mut news), [(1, 3), (9, 1)]);
        assert!(news.is_empty());
        let mut news: Vec<PieceIndex> = (0..3000).map(|n| piece(n * 2)).collect();
        assert_eq!(ranges(&mut news).len(), MAX_HAVE_RANGES);
        assert_eq!(news.len(), 3000 - MAX_HAVE_RANGES);
    }
}
