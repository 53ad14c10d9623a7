use proptest::prelude::*;

use super::*;
use crate::Digest;

/// 200 pieces, so boundaries 1 to 199 in groups 0 to 3.
fn blob() -> Blob {
    Blob {
        digest: Digest::of(b"a blob"),
        size: 50 << 20,
    }
}

fn key(of: u8) -> SigningKey {
    SigningKey::from_bytes(&[of; 32])
}

fn node(of: u8) -> NodeId {
    NodeId::from_bytes(key(of).verifying_key().to_bytes())
}

/// What everybody honest says about a boundary.
fn truth(boundary: u32) -> Midstate {
    Midstate([boundary; 8])
}

fn run_of(signer: u8, first: u32, midstates: Vec<Midstate>) -> SignedRun {
    let run = MidstateRun {
        blob: blob(),
        first,
        midstates,
        standing: Standing::Reader { epoch: 1 },
    };
    SignedRun::sign(run, &key(signer)).unwrap()
}

fn run(signer: u8, boundaries: Range<u32>) -> SignedRun {
    run_of(signer, boundaries.start, boundaries.map(truth).collect())
}

fn piece(number: u32) -> PieceIndex {
    blob().geometry().piece(number).unwrap()
}

#[test]
fn knows_start_and_end_of_itself() {
    let mut chain = Chain::new(blob());
    assert_eq!((chain.boundary(0), chain.known_prefix()), (Some(Midstate::START), 0));
    assert_eq!(
        (chain.boundary(1), chain.boundary(200), chain.boundary(u32::MAX)),
        (None, None, None)
    );
    assert_eq!(chain.link(piece(0)), None);
    assert_eq!(chain.learn(1, truth(1)), Ok(true));
    let first = Link::new(blob(), piece(0), Midstate::START, LinkEnd::Midstate(truth(1)));
    assert_eq!(chain.link(piece(0)), Some(first));
    assert_eq!(chain.learn(199, truth(199)), Ok(true));
    assert_eq!(
        chain.link(piece(199)),
        Some(Link::new(blob(), piece(199), truth(199), LinkEnd::Digest))
    );
    assert_eq!(chain.known_prefix(), 1);
}

#[test]
fn blobs_of_no_or_one_piece_have_no_boundaries() {
    let mut empty = Chain::new(Blob {
        digest: Digest::EMPTY,
        size: 0,
    });
    assert_eq!((empty.known_prefix(), empty.boundary(0)), (0, Some(Midstate::START)));
    assert_eq!(empty.learn(1, truth(1)), Err(ChainError::NoBoundary { boundary: 1 }));

    let one = Blob {
        digest: Digest::of(b"1"),
        size: 1,
    };
    let mut chain = Chain::new(one);
    let only = one.geometry().piece(0).unwrap();
    assert_eq!(
        chain.link(only),
        Some(Link::new(one, only, Midstate::START, LinkEnd::Digest))
    );
    assert!(chain.runs_for(only).is_empty());
    assert!(chain.sign_for(only, &key(1), Standing::Closed).is_empty());
}

#[test]
fn refuses_what_is_wrong_in_itself() {
    let mut chain = Chain::new(blob());
    let other = Blob {
        size: blob().size + 1,
        ..blob()
    };
    assert_eq!(Chain::new(other).accept(run(1, 1..3)), Err(ChainError::OtherBlob));
    let mut bytes = minicbor::to_vec(run(1, 1..3)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(
        chain.accept(minicbor::decode(&bytes).unwrap()),
        Err(ChainError::Run(RunError::Signature))
    );
    assert_eq!((chain.known_prefix(), chain.runs().count()), (0, 0));
}

#[test]
fn the_first_midstate_stays_and_a_contradiction_names_both_sides() {
    let mut chain = Chain::new(blob());
    assert_eq!(chain.accept(run(1, 1..5)), Ok(true));
    assert_eq!(chain.accept(run(2, 4..6)), Ok(true));
    assert_eq!(
        (chain.voucher(4), chain.voucher(5), chain.voucher(6)),
        (Some(node(1)), Some(node(2)), None)
    );

    let forged = run_of(3, 5, vec![truth(9), truth(6)]);
    let refused = ChainError::Contradiction {
        boundary: 5,
        held_from: Some(node(2)),
        told_by: node(3),
    };
    assert_eq!(chain.accept(forged.clone()), Err(refused));
    assert_eq!(
        (chain.boundary(5), chain.boundary(6)),
        (Some(truth(5)), None),
        "a refused run changes nothing"
    );
    assert_eq!(chain.refutes(&forged), Some(5));
    assert_eq!(chain.refutes(&run(3, 1..9)), None);
    assert!(refused.to_string().contains(&node(2).to_string()));
}

#[test]
fn learning_overrules_nothing_but_confirms() {
    let mut chain = Chain::new(blob());
    chain.accept(run(1, 1..3)).unwrap();
    assert_eq!(chain.learn(1, truth(1)), Ok(false));
    assert_eq!(chain.voucher(1), None, "computed here, it rests on nobody's word");
    let refuted = |boundary, held_from| Err(ChainError::Refuted { boundary, held_from });
    assert_eq!(chain.learn(2, truth(7)), refuted(2, Some(node(1))));
    assert_eq!(chain.learn(1, truth(7)), refuted(1, None));
    assert_eq!(chain.learn(0, truth(7)), refuted(0, None));
    assert_eq!(chain.learn(0, Midstate::START), Ok(false));
    let contradiction = ChainError::Contradiction {
        boundary: 1,
        held_from: None,
        told_by: node(2),
    };
    assert_eq!(chain.accept(run_of(2, 1, vec![truth(7)])), Err(contradiction));
}

#[test]
fn what_repeats_the_known_is_neither_kept_nor_new() {
    let mut chain = Chain::new(blob());
    chain.accept(run(1, 1..30)).unwrap();
    assert_eq!(chain.accept(run(1, 1..30)), Ok(false));
    assert_eq!(chain.accept(run(2, 3..20)), Ok(false));
    assert_eq!(chain.runs().map(SignedRun::signer).collect::<Vec<_>>(), vec![node(1)]);
    assert_eq!(chain.accept(run(2, 1..31)), Ok(true));
    assert_eq!(
        chain.runs().map(SignedRun::signer).collect::<Vec<_>>(),
        vec![node(2)],
        "the longer one replaces it"
    );
    assert_eq!(chain.voucher(3), Some(node(1)), "the first to vouch stays named");

    (100..110).for_each(|n| assert_eq!(chain.learn(n, truth(n)), Ok(true)));
    assert_eq!(chain.accept(run(1, 100..110)), Ok(false));
    assert_eq!(chain.runs().count(), 1, "what was learnt here needs no other signature");
}

#[test]
fn relays_the_runs_at_both_ends_of_a_piece() {
    let mut chain = Chain::new(blob());
    chain.accept(run(1, 1..64)).unwrap();
    chain.accept(run(1, 64..100)).unwrap();
    let firsts = |number: u32| {
        chain
            .runs_for(piece(number))
            .iter()
            .map(|run| run.run().first)
            .collect::<Vec<_>>()
    };
    assert_eq!(firsts(0), [1]);
    assert_eq!(firsts(10), [1]);
    assert_eq!(firsts(63), [1, 64]);
    assert_eq!(firsts(99), [64], "boundary 100 is unknown");
    assert_eq!(firsts(150), [0; 0]);
}

#[test]
fn signs_aligned_groups_once() {
    let mut chain = Chain::new(blob());
    (1..=70).for_each(|n| assert_eq!(chain.learn(n, truth(n)), Ok(true)));
    let reader = Standing::Reader { epoch: 4 };
    let extents = |runs: &[SignedRun]| runs.iter().map(extent).collect::<Vec<_>>();

    let both = chain.sign_for(piece(63), &key(1), reader);
    assert_eq!(extents(&both), [1..64, 64..71]);
    assert!(both.iter().all(|run| run.check().is_ok() && run.signer() == node(1)));
    assert_eq!(
        chain.runs_for(piece(63)),
        both,
        "what was signed here can be relayed later"
    );
    assert_eq!(chain.sign_for(piece(3), &key(1), reader), both[..1]);
    assert!(chain.sign_for(piece(150), &key(1), reader).is_empty());

    chain.learn(71, truth(71)).unwrap();
    let grown = chain.sign_for(piece(70), &key(1), reader);
    assert_eq!(extent(&grown[0]), 64..72, "it grows with the prefix");
    let closed = chain.sign_for(piece(3), &key(1), Standing::Closed);
    assert_eq!(
        closed[0].run().standing,
        Standing::Closed,
        "another standing is signed anew"
    );
    assert_eq!(
        chain.sign_for(piece(3), &key(2), Standing::Closed)[0].signer(),
        node(2),
        "and so for another key"
    );

    let mut elsewhere = Chain::new(blob());
    assert!(both.into_iter().all(|run| elsewhere.accept(run) == Ok(true)));
    assert_eq!(elsewhere.known_prefix(), 70);
}

#[test]
fn a_reader_signs_only_what_it_learnt() {
    let mut chain = Chain::new(blob());
    chain.accept(run(9, 1..10)).unwrap();
    (10..15).for_each(|n| assert_eq!(chain.learn(n, truth(n)), Ok(true)));
    let reader = Standing::Reader { epoch: 2 };
    assert!(chain.sign_for(piece(3), &key(1), reader).is_empty());
    assert_eq!(extent(&chain.sign_for(piece(9), &key(1), reader)[0]), 10..15);
    assert_eq!(extent(&chain.sign_for(piece(9), &key(1), Standing::Closed)[0]), 1..15);
}

#[test]
fn forgets_all_that_rests_on_somebodys_word() {
    let mut chain = Chain::new(blob());
    (1..4).for_each(|n| assert_eq!(chain.learn(n, truth(n)), Ok(true)));
    let forged = run_of(8, 4, vec![Midstate([666; 8]); 2]);
    let followed = run_of(9, 6, vec![Midstate([667; 8]); 2]);
    chain.accept(forged.clone()).unwrap();
    chain.accept(followed.clone()).unwrap();
    chain.learn(8, truth(8)).unwrap();
    chain.sign_for(piece(2), &key(1), Standing::Closed);

    assert_eq!(chain.forget_vouched(), vec![forged.clone(), followed.clone()]);
    assert_eq!((chain.known_prefix(), chain.runs().count()), (3, 0));
    assert_eq!(chain.boundary(8), None, "learnt beyond a vouched boundary");
    assert!(
        chain.runs_for(piece(2)).is_empty(),
        "what was signed in error is not relayed"
    );

    (4..9).for_each(|n| assert_eq!(chain.learn(n, truth(n)), Ok(true)));
    assert_eq!(
        (chain.refutes(&forged), chain.refutes(&followed)),
        (Some(4), Some(6)),
        "the lowest one lied"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against the obvious model: a map of first-told midstates, where a run goes in whole or not at all.
    #[test]
    fn is_a_map_of_what_was_told_first(
        told in prop::collection::vec((1u8..4, 1u32..180, 1u32..=20, prop::option::weighted(0.2, 0u32..20)), 1..24),
    ) {
        let mut chain = Chain::new(blob());
        let mut model = std::collections::BTreeMap::new();
        for (signer, first, count, lie) in told {
            let mut midstates: Vec<_> = (first..first + count).map(truth).collect();
            if let Some(lie) = lie {
                midstates[(lie % count) as usize] = Midstate([1000; 8]);
            }
            let differs = (first..).zip(&midstates).find(|(n, m)| model.get(n).is_some_and(|(held, _)| held != *m));
            let expected = match differs {
                Some((boundary, _)) => {
                    let held_from = Some(model[&boundary].1);
                    Err(ChainError::Contradiction { boundary, held_from, told_by: node(signer) })
                }
                None => Ok((first..first + count).any(|n| !model.contains_key(&n))),
            };
            prop_assert_eq!(chain.accept(run_of(signer, first, midstates.clone())), expected);
            if expected.is_ok() {
                for (n, midstate) in (first..).zip(midstates) {
                    model.entry(n).or_insert((midstate, node(signer)));
                }
            }
            let prefix = (1..).take_while(|n| model.contains_key(n)).count() as u32;
            prop_assert_eq!(chain.known_prefix(), prefix);
        }
        for n in 1..200 {
            prop_assert_eq!(chain.boundary(n), model.get(&n).map(|(midstate, _)| *midstate));
            prop_assert_eq!(chain.voucher(n), model.get(&n).map(|(_, signer)| *signer));
            prop_assert_eq!(chain.runs().any(|run| extent(run).contains(&n)), model.contains_key(&n));
        }
        let mut restored = Chain::new(blob());
        chain.runs().for_each(|run| assert!(restored.accept(run.clone()).is_ok(), "kept runs agree"));
        prop_assert_eq!(restored.known_prefix(), chain.known_prefix());
    }
}
