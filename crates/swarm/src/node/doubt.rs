//! When honest pieces look bad: doubting the midstates, and punishing who forged them.

use std::collections::BTreeSet;
use std::time::Duration;

use piece::{Bitfield, Digest, NodeId, PieceIndex};
use wire::control::{Accusation, Offence, Retraction};

use super::Node;
use super::blob::Pieces;
use super::event::Output;
use super::spreading::Spread;

impl Node {
    /// A piece was refused. If several neighbours sent what the midstates refuse, the midstates are the likelier liars.
    pub(super) fn doubt(&mut self, _now: Duration, digest: Digest, piece: PieceIndex, out: &mut Vec<Output>) {
        let Some(pieces) = self.blobs.get(&digest).and_then(|state| state.pieces.as_ref()) else {
            return;
        };
        if pieces
            .refused
            .get(&piece)
            .is_some_and(|nodes| nodes.len() >= self.config.doubt_after)
        {
            out.push(Output::Distrust { digest, unblamed: None });
        }
    }

    /// What readers signed does not prove the blob, says the scheduler: begin again with nothing, unless that has happened
    /// since.
    pub(super) fn retracted(&mut self, digest: Digest, retraction: Retraction, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        if state.is_complete() || retraction.epoch <= state.retracted {
            return;
        }
        state.retracted = retraction.epoch;
        out.push(state.trust(digest));
        let Some(pieces) = &mut state.pieces else { return };
        // Its own reading may have begun since. What it has learnt from the registry itself, nobody has to vouch for.
        let anew = state
            .origin
            .as_ref()
            .is_some_and(|origin| origin.lease.epoch > retraction.epoch);
        if state.discarding || anew {
            return;
        }
        state.discarding = true;
        state.spread = Spread::default();
        pieces.have = Bitfield::empty(&pieces.geometry);
        self.cancel_all(digest, out);
        self.uploads.forget(&digest, out);
        out.push(Output::Distrust {
            digest,
            unblamed: retraction.by,
        });
    }

    /// Everybody who has what is missing has been banned, and nothing has moved for long: doubt with less evidence.
    pub(super) fn doubt_if_stuck(&mut self, now: Duration, digest: Digest, out: &mut Vec<Output>) {
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        let (Some(pieces), Some(wanted)) = (&state.pieces, &mut state.wanted) else {
            return;
        };
        let bad: BTreeSet<NodeId> = pieces.refused.values().flatten().copied().collect();
        let stuck = now.saturating_sub(wanted.progress) >= self.config.origin_wait;
        let all_banned = state
            .mates
            .values()
            .all(|mate| mate.banned || mate.field.as_ref().is_none_or(Bitfield::is_empty));
        if stuck && all_banned && !bad.is_empty() && state.origin.is_none() {
            wanted.progress = now;
            out.push(Output::Distrust { digest, unblamed: None });
        }
    }

    /// The vouched midstates were dropped: begin again with what is still proven, and with everybody.
    pub(super) fn chain_broken(
        &mut self,
        now: Duration,
        digest: Digest,
        bits: Bitfield,
        vouchers: &[NodeId],
        out: &mut Vec<Output>,
    ) {
        self.cancel_all(digest, out);
        let Some(state) = self.blobs.get_mut(&digest) else {
            return;
        };
        state.discarding = false;
        state.spread = Spread::default();
        let Some(old) = &mut state.pieces else { return };
        let mut pieces = Pieces::new(old.geometry, bits);
        pieces.rarity = std::mem::take(&mut old.rarity);
        pieces.in_flight = std::mem::take(&mut old.in_flight);
        pieces.piece_time = old.piece_time;
        state.pieces = Some(pieces);
        for (node, mate) in &mut state.mates {
            // Who vouched is not asked again; whoever was blamed for the vouchers' lies gets another chance.
            mate.banned = vouchers.contains(node);
            mate.told = false;
        }
        if let [only] = vouchers {
            self.reporter.accuse(Accusation {
                node: *only,
                digest,
                offence: Offence::ForgedMidstates,
            });
        }
        self.reporter.changed(digest);
        self.reporter.lonely(digest);
        self.introduce(now, digest, out);
    }

    /// The closed chain shows a false signature: its signer is out, for every blob.
    pub(super) fn forged(&mut self, digest: Digest, signer: NodeId, out: &mut Vec<Output>) {
        self.reporter.accuse(Accusation {
            node: signer,
            digest,
            offence: Offence::ForgedMidstates,
        });
        self.links.ban(signer);
        out.push(Output::Ban { node: signer });
    }
}
