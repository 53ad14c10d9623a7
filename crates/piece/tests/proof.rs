//! What the crate promises as a whole: a blob whose pieces all passed has its digest, and nothing else passes.

use ed25519_dalek::SigningKey;
use piece::{
    Bitfield, Blob, Chain, Digest, Geometry, MAX_RUN, MIN_PIECE_LEN, Midstate, MidstateRun, PieceIndex, PrefixHasher,
    Proven, SignedRun, Standing, prove, prove_two,
};
use proptest::prelude::*;

const PIECE: usize = MIN_PIECE_LEN as usize;

/// Bytes that look random and follow from the seed.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

fn blob_of(data: &[u8]) -> Blob {
    Blob {
        digest: Digest::of(data),
        size: data.len() as u64,
    }
}

fn slice(data: &[u8], piece: PieceIndex) -> &[u8] {
    let range = Geometry::of(data.len() as u64).range(piece);
    &data[range.start as usize..range.end as usize]
}

/// The bytes cut at these places, some of which may be the same.
fn chunks<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// The midstates at boundaries 1 to count - 1, and the digest, as the registry's reader computes them.
fn read(data: &[u8]) -> (Vec<Midstate>, Digest) {
    let mut hasher = PrefixHasher::new();
    let mut pieces = Geometry::of(data.len() as u64).pieces();
    let last = pieces.next_back();
    let midstates = pieces.map(|piece| hasher.piece(slice(data, piece))).collect();
    (midstates, hasher.last(last.map_or(&[], |last| slice(data, last))))
}

/// The chain as somebody has it who was told these midstates.
fn chain_of(blob: Blob, midstates: &[Midstate]) -> Chain {
    let mut chain = Chain::new(blob);
    for (group, midstates) in (0u32..).zip(midstates.chunks(MAX_RUN)) {
        let first = 1 + group * MAX_RUN as u32;
        let run = MidstateRun {
            blob,
            first,
            midstates: midstates.to_vec(),
            standing: Standing::Reader { epoch: 1 },
        };
        let signed = SignedRun::sign(run, &SigningKey::from_bytes(&[7; 32])).expect("the midstates fit the blob");
        assert_eq!(chain.accept(signed), Ok(true));
    }
    chain
}

/// Pieces that prove, one after another; panics if a link is missing.
fn proven(chain: &Chain, data: &[u8]) -> Vec<u32> {
    let geometry = chain.blob().geometry();
    let passes = |piece: &PieceIndex| {
        prove(
            &chain.link(*piece).expect("all boundaries are known"),
            vec![slice(data, *piece)],
        )
        .is_ok()
    };
    geometry.pieces().filter(passes).map(PieceIndex::get).collect()
}

/// Piece lengths ± 1, block lengths around the padding's spill, alone and after whole pieces.
fn lengths_that_matter() -> Vec<usize> {
    let edges = [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128];
    let around = |pieces: usize| {
        let after = edges.iter().map(move |edge| pieces * PIECE + edge);
        after.chain((pieces > 0).then(|| pieces * PIECE - 1))
    };
    (0..=3).flat_map(around).collect()
}

#[test]
fn the_chain_closes_at_every_length_that_matters() {
    for len in lengths_that_matter() {
        let data = bytes(len as u64, len);
        let (midstates, digest) = read(&data);
        assert_eq!(digest, Digest::of(&data), "length {len}");
        let chain = chain_of(blob_of(&data), &midstates);
        let count = chain.blob().geometry().count();
        assert_eq!(proven(&chain, &data), (0..count).collect::<Vec<_>>(), "length {len}");
    }
}

#[test]
fn two_at_once_equal_one_at_a_time_at_every_length_that_matters() {
    let blobs: Vec<Vec<u8>> = lengths_that_matter()
        .into_iter()
        .map(|len| bytes(len as u64, len))
        .collect();
    let chains: Vec<Chain> = blobs
        .iter()
        .map(|data| chain_of(blob_of(data), &read(data).0))
        .collect();
    let last = |at: usize| {
        let link = chains[at].link(chains[at].blob().geometry().pieces().next_back()?)?;
        Some((link, slice(&blobs[at], link.piece())))
    };
    for a in (0..blobs.len()).filter_map(last) {
        for b in (0..blobs.len()).step_by(5).filter_map(last) {
            let both = prove_two((&a.0, vec![a.1]), (&b.0, vec![b.1]));
            assert_eq!(both, (prove(&a.0, vec![a.1]), prove(&b.0, vec![b.1])));
            assert!(both.0.is_ok() && both.1.is_ok());
            let crossed = prove_two((&a.0, vec![b.1]), (&b.0, vec![a.1]));
            assert_eq!(
                crossed.0.is_ok() && crossed.1.is_ok(),
                a.1 == b.1,
                "bytes of one for the other"
            );
        }
    }
}

#[test]
fn a_taken_over_reader_continues_from_a_midstate() {
    let data = bytes(1, 5 * PIECE + 7);
    let (midstates, digest) = read(&data);
    for (number, midstate) in (1usize..).zip(&midstates) {
        let mut hasher = PrefixHasher::resume(*midstate, (number * PIECE) as u64);
        let geometry = Geometry::of(data.len() as u64);
        let rest: Vec<_> = geometry.pieces().skip(number).collect();
        let (last, whole) = rest.split_last().unwrap();
        whole
            .iter()
            .for_each(|piece| assert_eq!(hasher.piece(slice(&data, *piece)), midstates[piece.as_usize()]));
        assert_eq!(hasher.last(slice(&data, *last)), digest);
    }
}

#[test]
fn a_proof_says_what_was_proven() {
    let data = bytes(2, 2 * PIECE + 9);
    let blob = blob_of(&data);
    let chain = chain_of(blob, &read(&data).0);
    let piece = blob.geometry().piece(1).unwrap();
    let owned = slice(&data, piece).to_vec();
    let proof = prove(&chain.link(piece).unwrap(), vec![owned.clone()]).unwrap();
    assert_eq!(
        (proof.blob(), proof.digest(), proof.piece()),
        (&blob, &blob.digest, piece)
    );
    assert_eq!(proof.chunks(), std::slice::from_ref(&owned));
    assert_eq!(proof.into_inner(), [owned]);
}

/// A forger may choose any midstates. If those of no blocks pass for pieces of no bytes, then the whole blob passes as its
/// last piece, and the chain closes over a file of holes.
#[test]
fn pieces_of_the_wrong_length_close_no_chain() {
    let data = bytes(3, 2 * PIECE + 100);
    let chain = chain_of(blob_of(&data), &[Midstate::START; 2]);
    let links: Vec<_> = chain
        .blob()
        .geometry()
        .pieces()
        .map(|piece| chain.link(piece).unwrap())
        .collect();
    assert!(prove::<&[u8]>(&links[0], vec![]).is_err());
    assert!(prove(&links[1], vec![[0u8; 0]; 3]).is_err());
    assert!(prove(&links[2], vec![&data[..]]).is_err());
    let (first, last) = prove_two((&links[0], vec![]), (&links[2], vec![&data[..]]));
    assert!(first.is_err() && last.is_err());
}

#[test]
fn threads_verify_out_of_order() {
    let data = bytes(4, 11 * PIECE + 321);
    let chain = chain_of(blob_of(&data), &read(&data).0);
    let mut order: Vec<PieceIndex> = chain.blob().geometry().pieces().collect();
    order.reverse();
    order.swap(2, 9);
    let verified: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = order
            .chunks(4)
            .map(|share| {
                let (chain, data) = (&chain, &data);
                scope.spawn(move || {
                    let pairs = share.chunks_exact(2).map(|pair| {
                        let [a, b] = [pair[0], pair[1]].map(|piece| chain.link(piece).unwrap());
                        let both = prove_two((&a, vec![slice(data, a.piece())]), (&b, vec![slice(data, b.piece())]));
                        usize::from(both.0.is_ok()) + usize::from(both.1.is_ok())
                    });
                    pairs.sum::<usize>()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(verified, 12);
}

/// A blob of up to 3 MiB, and its chain.
fn blobs() -> impl Strategy<Value = (Vec<u8>, Chain)> {
    (any::<u64>(), 1..=12 * PIECE).prop_map(|(seed, len)| {
        let data = bytes(seed, len);
        let (midstates, digest) = read(&data);
        assert_eq!(digest, Digest::of(&data));
        let chain = chain_of(blob_of(&data), &midstates);
        (data, chain)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_blob_proves_itself((data, chain) in blobs()) {
        let count = chain.blob().geometry().count();
        prop_assert_eq!(proven(&chain, &data), (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn a_flipped_bit_is_refused_in_its_piece_alone((mut data, chain) in blobs(), at: prop::sample::Index, bit in 0u8..8) {
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        let geometry = chain.blob().geometry();
        let hit = geometry.piece_at(at as u64).unwrap();
        let rest: Vec<_> = geometry.pieces().filter(|piece| *piece != hit).map(PieceIndex::get).collect();
        prop_assert_eq!(proven(&chain, &data), rest);
        let link = chain.link(hit).unwrap();
        let (a, b) = prove_two((&link, vec![slice(&data, hit)]), (&link, vec![slice(&data, hit)]));
        prop_assert!(a.is_err() && b.is_err());
    }

    #[test]
    fn a_truncated_or_extended_piece_is_refused(
        (data, chain) in blobs(), piece: prop::sample::Index, cut: prop::sample::Index, extra in 1usize..130,
    ) {
        let geometry = chain.blob().geometry();
        let piece = geometry.piece(piece.index(geometry.count() as usize) as u32).unwrap();
        let (link, good) = (chain.link(piece).unwrap(), slice(&data, piece));
        let truncated = &good[..cut.index(good.len())];
        let extended = [good, &vec![0; extra]].concat();
        prop_assert!(prove(&link, vec![truncated]).is_err());
        prop_assert!(prove(&link, vec![&extended]).is_err());
        let (a, b) = prove_two((&link, vec![truncated]), (&link, vec![good]));
        prop_assert!(a.is_err() && b.is_ok(), "a bad neighbour does not spoil a good piece");
    }

    #[test]
    fn a_piece_in_chunks_proves_as_it_does_in_one(
        (data, chain) in blobs(),
        pieces in any::<[prop::sample::Index; 2]>(),
        cuts in prop::array::uniform2(prop::collection::vec(any::<prop::sample::Index>(), 0..40)),
        flip in prop::option::of((any::<prop::sample::Index>(), 0u8..8)),
    ) {
        let geometry = chain.blob().geometry();
        let [a, b] = pieces.map(|at| geometry.piece(at.index(geometry.count() as usize) as u32).unwrap());
        let (a_link, b_link) = (chain.link(a).unwrap(), chain.link(b).unwrap());
        let mut bytes = slice(&data, a).to_vec();
        if let Some((at, bit)) = flip {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let (a_chunks, b_chunks) = (chunks(&bytes, &cuts[0]), chunks(slice(&data, b), &cuts[1]));
        let alone = prove(&a_link, a_chunks.clone());
        prop_assert_eq!(alone.is_ok(), flip.is_none());
        prop_assert_eq!(alone.is_ok(), prove(&a_link, vec![&bytes[..]]).is_ok());
        let (first, second) = prove_two((&a_link, a_chunks.clone()), (&b_link, b_chunks));
        prop_assert_eq!(&first, &alone);
        prop_assert!(second.is_ok(), "a bad neighbour does not spoil a good piece");
        let given_back = first.map_or_else(|chunks| chunks, Proven::into_inner);
        prop_assert_eq!(&given_back, &a_chunks);
        prop_assert!(flip.is_some() || prove(&a_link, [&a_chunks[..], &[&bytes[..1]]].concat()).is_err(), "a byte more");
        prop_assert!(prove(&a_link, chunks(&bytes[1..], &cuts[0])).is_err(), "a byte less");
    }

    #[test]
    fn swapped_pieces_are_refused((data, chain) in blobs(), a: prop::sample::Index, b: prop::sample::Index) {
        let geometry = chain.blob().geometry();
        let [a, b] = [a, b].map(|at| geometry.piece(at.index(geometry.count() as usize) as u32).unwrap());
        let [a_link, b_link] = [a, b].map(|piece| chain.link(piece).unwrap());
        let swapped = prove_two((&a_link, vec![slice(&data, b)]), (&b_link, vec![slice(&data, a)]));
        prop_assert_eq!((swapped.0.is_ok(), swapped.1.is_ok()), (a == b, a == b));
    }

    #[test]
    fn a_forged_midstate_opens_the_chain_on_both_sides(
        seed: u64, len in PIECE + 1..=6 * PIECE, at: prop::sample::Index, word in 0usize..32, bit in 0u8..8,
    ) {
        let data = bytes(seed, len);
        let (mut midstates, _) = read(&data);
        let at = at.index(midstates.len());
        let mut forged = midstates[at].to_bytes();
        forged[word] ^= 1 << bit;
        midstates[at] = Midstate::from_bytes(forged);
        let chain = chain_of(blob_of(&data), &midstates);
        let count = chain.blob().geometry().count();
        let around = [at as u32, at as u32 + 1];
        prop_assert_eq!(proven(&chain, &data), (0..count).filter(|piece| !around.contains(piece)).collect::<Vec<_>>());
    }
}

proptest! {
    #[test]
    fn midstates_travel_unchanged(raw: [u8; 32]) {
        let midstate = Midstate::from_bytes(raw);
        prop_assert_eq!(midstate.to_bytes(), raw);
        let encoded = minicbor::to_vec(midstate).unwrap();
        prop_assert_eq!(minicbor::decode::<Midstate>(&encoded).unwrap(), midstate);
    }

    #[test]
    fn runs_travel_unchanged(raw in prop::collection::vec(any::<[u8; 32]>(), 1..=MAX_RUN), first in 1u32..100, epoch: u64) {
        let blob = Blob { digest: Digest::of(b"x"), size: 4 << 30 };
        let midstates = raw.into_iter().map(Midstate::from_bytes).collect();
        let run = MidstateRun { blob, first, midstates, standing: Standing::Reader { epoch } };
        let signed = SignedRun::sign(run.clone(), &SigningKey::from_bytes(&[9; 32])).unwrap();
        let decoded: SignedRun = minicbor::decode(&minicbor::to_vec(&signed).unwrap()).unwrap();
        prop_assert_eq!(decoded.check(), Ok(&run));
        prop_assert_eq!(decoded, signed);
    }

    /// A run with changed bytes fails to decode, fails its check, or says what it said before (CBOR has several spellings).
    #[test]
    fn altered_runs_never_pass(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let blob = Blob { digest: Digest::of(b"x"), size: 4 << 30 };
        let run = MidstateRun { blob, first: 3, midstates: vec![Midstate::START; 5], standing: Standing::Closed };
        let signed = SignedRun::sign(run.clone(), &SigningKey::from_bytes(&[9; 32])).unwrap();
        let mut encoded = minicbor::to_vec(&signed).unwrap();
        for (at, byte) in changes {
            let at = at.index(encoded.len());
            encoded[at] = byte;
        }
        if let Ok(altered) = minicbor::decode::<SignedRun>(&encoded) {
            prop_assert!(altered == signed || altered.check().is_err());
            let mut chain = Chain::new(blob);
            prop_assert_eq!(chain.accept(altered.clone()).is_ok(), altered == signed);
            prop_assert!(chain.refutes(&altered).is_none_or(|n| (3..8).contains(&n)));
        }
    }

    #[test]
    fn decoders_survive_anything(raw in prop::collection::vec(any::<u8>(), 0..400), size in 0u64..1 << 40) {
        if let Ok(run) = minicbor::decode::<SignedRun>(&raw) {
            prop_assert!(run.check().is_err(), "random bytes carry no signature");
        }
        let geometry = Geometry::of(size);
        if let Ok(field) = Bitfield::from_bytes(&geometry, &raw) {
            prop_assert_eq!(field.as_bytes(), &raw[..]);
            prop_assert_eq!(geometry.pieces().filter(|piece| field.has(*piece)).count() as u32, field.count());
            prop_assert!(field.prefix() <= geometry.count());
        }
    }

    #[test]
    fn bitfields_of_the_right_length_keep_their_bits(raw in prop::collection::vec(any::<u8>(), 1..64), spare in 0u32..8) {
        let count = raw.len() as u32 * 8 - spare;
        // Blobs of up to 1024 pieces are cut into the shortest.
        let geometry = Geometry::of(u64::from(count) * MIN_PIECE_LEN);
        prop_assert_eq!(geometry.count(), count);
        let excess = raw[raw.len() - 1] & ((1u16 << spare) - 1) as u8 != 0;
        prop_assert_eq!(Bitfield::from_bytes(&geometry, &raw).is_err(), excess);
    }
}
