//! What neighbours say on the data plane.

use std::fmt::Debug;

use minicbor::{Decode, Encode};
use piece::{Bitfield, Blob, MAX_PIECES};
use wire::exchange::{Answer, Fetch, Hello, Message};

use crate::Decoder;

pub(crate) const DECODER: Decoder = Decoder {
    name: "exchange",
    check,
    words: &["\u{0}\u{1}", "sha256:", "\u{18}c"],
    max_len: wire::exchange::MAX_MESSAGE,
    // Bits and runs are copied once, and twice more by what is asserted here.
    memory: 1 << 20,
};

fn check(bytes: &[u8]) {
    round_trip::<Hello>(bytes);
    match round_trip::<Message>(bytes) {
        Some(Message::Holding { blob, bits, .. }) => {
            geometry(&blob);
            if let Some(bits) = bits {
                bitfield(&blob, &bits);
            }
        }
        Some(Message::Have { .. } | Message::Gone { .. }) | None => {}
    }
    if let Some(fetch) = round_trip::<Fetch>(bytes) {
        let blob = Blob {
            digest: fetch.digest,
            size: fetch.size,
        };
        let piece = blob.geometry().piece(fetch.piece);
        assert_eq!(piece.is_some(), fetch.piece < geometry(&blob));
    }
    if let Some(Answer::Piece { runs }) = round_trip::<Answer>(bytes) {
        // Whether a run holds is decided without anything being allocated for what it claims to be about.
        let held = runs.iter().filter(|run| run.check().is_ok()).count();
        assert!(held <= runs.len());
    }
}

/// Decodes; what comes out encodes and decodes to the same again.
pub(crate) fn round_trip<T>(bytes: &[u8]) -> Option<T>
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug,
{
    let decoded: T = wire::decode(bytes).ok()?;
    let again = wire::encode(&decoded);
    let same: T = wire::decode(&again).expect("what was encoded can be decoded");
    assert_eq!(decoded, same);
    assert_eq!(wire::encode(&same), again, "there is one encoding of a message");
    Some(decoded)
}

/// The pieces of a blob of any size cover it, each once; returns how many there are.
pub(crate) fn geometry(blob: &Blob) -> u32 {
    let geometry = blob.geometry();
    let count = geometry.count();
    assert!(u64::from(count) <= MAX_PIECES);
    assert_eq!(count == 0, blob.size == 0);
    if let Some(last) = count.checked_sub(1).and_then(|last| geometry.piece(last)) {
        assert_eq!(geometry.range(last).end, blob.size);
        assert!(geometry.len(last) > 0 && geometry.len(last) <= geometry.piece_len());
        assert_eq!(geometry.piece_at(blob.size - 1), Some(last));
    }
    assert!(geometry.piece(count).is_none() && geometry.piece_at(blob.size).is_none());
    count
}

fn bitfield(blob: &Blob, bits: &[u8]) {
    let geometry = blob.geometry();
    let Ok(field) = Bitfield::from_bytes(&geometry, bits) else {
        return;
    };
    assert_eq!(field.as_bytes(), bits);
    let held = geometry.pieces().filter(|piece| field.has(*piece)).count();
    assert_eq!(held, field.count() as usize);
    assert!(field.prefix() <= geometry.count());
    assert_eq!(field.is_full(), field.prefix() == geometry.count());
}
