//! Cases made from a corpus: deterministic, so that a seed and a number are enough to see one again.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Changes that one case differs from its origin by, at most.
const MAX_CHANGES: u32 = 6;
/// Numbers at which lengths, counts and signs go wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// The cases of one seed.
#[derive(Debug)]
pub struct Cases<'c> {
    /// Where all randomness comes from.
    pub seed: u64,
    /// What is changed; itself the first cases.
    pub corpus: &'c [Vec<u8>],
    /// Words that a change may insert.
    pub words: &'c [&'c str],
    /// The longest case.
    pub max_len: usize,
}

impl Cases<'_> {
    /// The case with this number.
    pub fn case(&self, number: u64) -> Vec<u8> {
        if let Some(itself) = usize::try_from(number).ok().and_then(|at| self.corpus.get(at)) {
            return itself.clone();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        let mut change = Change { rng, cases: self };
        let mut bytes = change.origin();
        for _ in 0..=change.below(MAX_CHANGES as usize) {
            change.apply(&mut bytes);
        }
        bytes.truncate(self.max_len);
        bytes
    }
}

struct Change<'c> {
    rng: ChaCha8Rng,
    cases: &'c Cases<'c>,
}

impl Change<'_> {
    /// A number below `end`, which is 0 only for an `end` of 0 or 1.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            0
        } else {
            (self.rng.next_u64() % end as u64) as usize
        }
    }

    fn origin(&mut self) -> Vec<u8> {
        let at = self.below(self.cases.corpus.len());
        self.cases.corpus.get(at).cloned().unwrap_or_default()
    }

    /// A range within `len`, mostly a short one.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        let most = if self.below(4) == 0 { len } else { 16 };
        let count = 1 + self.below(most);
        start..(start + count).min(len)
    }

    fn apply(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(10) {
            0 | 1 => {
                let at = self.below(bytes.len());
                let bit = 1 << self.below(8);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
            }
            2 => {
                let (at, to) = (self.below(bytes.len()), self.rng.next_u32() as u8);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = to);
            }
            3 => drop(bytes.drain(self.range(bytes.len()))),
            4 => {
                let range = self.range(bytes.len());
                self.repeat(bytes, range);
            }
            5 => {
                let other = self.origin();
                let part = other[self.range(other.len())].to_vec();
                drop(bytes.splice(at..at, part));
            }
            6 => {
                let number = self.number();
                let end = (at + number.len()).min(bytes.len());
                drop(bytes.splice(at..end, number));
            }
            7 => bytes.truncate(at),
            8 | 9 => {
                let word = self.below(self.cases.words.len());
                let word = self.cases.words.get(word).copied().unwrap_or("\0");
                let over = if self.below(2) == 0 { 0 } else { word.len() };
                let end = (at + over).min(bytes.len());
                drop(bytes.splice(at..end, word.bytes()));
            }
            _ => unreachable!("below(10) is below 10"),
        }
    }

    fn repeat(&mut self, bytes: &mut Vec<u8>, range: std::ops::Range<usize>) {
        let part = bytes[range.clone()].to_vec();
        let room = self.cases.max_len.saturating_sub(bytes.len()) / part.len().max(1);
        let most = if self.below(16) == 0 { room } else { room.min(8) };
        let times = 1 + self.below(most);
        drop(bytes.splice(range.end..range.end, part.repeat(times)));
    }

    /// One of [`NUMBERS`], in one to eight bytes of either order.
    fn number(&mut self) -> Vec<u8> {
        let number = NUMBERS[self.below(NUMBERS.len())];
        let width = [1, 2, 4, 8][self.below(4)];
        if self.below(2) == 0 {
            number.to_be_bytes()[8 - width..].to_vec()
        } else {
            number.to_le_bytes()[..width].to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_are_a_case() {
        let corpus = [b"one".to_vec(), b"another".to_vec()];
        let cases = |seed| Cases {
            seed,
            corpus: &corpus,
            words: &["word"],
            max_len: 64,
        };
        let [one, same, other] = [cases(1), cases(1), cases(2)];
        assert_eq!((one.case(0), one.case(1)), (corpus[0].clone(), corpus[1].clone()));
        let made: Vec<_> = (2..200).map(|number| one.case(number)).collect();
        assert!(made.iter().all(|case| case.len() <= 64));
        assert!(made.iter().any(|case| case.windows(4).any(|part| part == b"word")));
        assert_eq!(made, (2..200).map(|number| same.case(number)).collect::<Vec<_>>());
        assert_ne!(made, (2..200).map(|number| other.case(number)).collect::<Vec<_>>());
    }
}
