//! SHA-256's compression of two independent chains at once. One chain is bound by the latency of `sha256rnds2` (4 cycles, each
//! needs the last one's result); the second one fills its gaps, for 1.5 to 1.8 times the throughput of a core
//! (`benches/verify.rs`). A third and a fourth gain nothing reliable: by then the unit is busy, and there are only sixteen
//! registers.
//!
//! The only `unsafe` code of this crate.

use sha2::block_api::compress256;

/// A chaining value, and the blocks to compress into it.
type Lane<'a> = (&'a mut [u32; 8], &'a [[u8; 64]]);

/// Compresses each lane's blocks into its state: what both have interleaved where the processor can, the rest of the longer
/// one alone.
pub(crate) fn compress_two(a: Lane<'_>, b: Lane<'_>) {
    let common = a.1.len().min(b.1.len());
    let (a_common, a_rest) = a.1.split_at(common);
    let (b_common, b_rest) = b.1.split_at(common);
    #[cfg(target_arch = "x86_64")]
    let done = x86::compress_pairs((a.0, a_common), (b.0, b_common));
    #[cfg(not(target_arch = "x86_64"))]
    let done = false;
    if !done {
        compress256(a.0, a_common);
        compress256(b.0, b_common);
    }
    compress256(a.0, a_rest);
    compress256(b.0, b_rest);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::Lane;

    /// SHA-256's round constants (FIPS 180-4, section 4.2.2).
    #[rustfmt::skip]
    const K: [[[u32; 4]; 4]; 4] = [
        [
            [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5], [0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5],
            [0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3], [0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
        ],
        [
            [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc], [0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da],
            [0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7], [0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
        ],
        [
            [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13], [0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85],
            [0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3], [0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
        ],
        [
            [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5], [0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3],
            [0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208], [0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
        ],
    ];

    /// Compresses blocks of two lanes in pairs, as many as both have. False, and nothing done, if the processor cannot.
    pub(super) fn compress_pairs(a: Lane<'_>, b: Lane<'_>) -> bool {
        // The detection reads a cached word; `sse2` is part of x86-64.
        let able =
            is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
        if able {
            // SAFETY: `interleave` is safe but for the instructions it is compiled to. Those are of the three extensions that
            // were just found on this processor (and every core of a machine has the same).
            unsafe { interleave(a, b) };
        }
        able
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn interleave(a: Lane<'_>, b: Lane<'_>) {
        let (mut a_state, mut b_state) = (State::load(a.0), State::load(b.0));
        for (a_block, b_block) in a.1.iter().zip(b.1) {
            let (a_start, b_start) = (a_state, b_state);
            let (mut a_words, mut b_words) = (load_words(a_block), load_words(b_block));
            let [first, second, third, last] = &K;
            for k in [first, second, third] {
                sixteen_rounds::<true>((&mut a_state, &mut a_words), (&mut b_state, &mut b_words), k);
            }
            sixteen_rounds::<false>((&mut a_state, &mut a_words), (&mut b_state, &mut b_words), last);
            a_state.add(a_start);
            b_state.add(b_start);
        }
        a_state.store(a.0);
        b_state.store(b.0);
    }

    /// Sixteen rounds of both lanes, after which their words are the next sixteen if they were to be scheduled. The loop is
    /// short enough to be unrolled, so that most words stay in registers: one loop of sixteen steps was a tenth slower.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn sixteen_rounds<const SCHEDULE: bool>(
        a: (&mut State, &mut Words),
        b: (&mut State, &mut Words),
        k: &[[u32; 4]; 4],
    ) {
        for (quad, k) in k.iter().enumerate() {
            let k = pack(k);
            a.0.four_rounds(a.1[quad], k);
            b.0.four_rounds(b.1[quad], k);
            if SCHEDULE {
                a.1[quad] = schedule(a.1, quad);
                b.1[quad] = schedule(b.1, quad);
            }
        }
    }

    /// Sixteen message words, four in a register.
    type Words = [__m128i; 4];

    /// The eight state words in the order that `sha256rnds2` wants them: from the highest, A B E F and C D G H.
    #[derive(Clone, Copy)]
    struct State {
        abef: __m128i,
        cdgh: __m128i,
    }

    impl State {
        #[inline]
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        fn load(words: &[u32; 8]) -> Self {
            let [a, b, c, d, e, f, g, h] = *words;
            Self {
                abef: pack(&[f, e, b, a]),
                cdgh: pack(&[h, g, d, c]),
            }
        }

        #[inline]
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        fn store(self, words: &mut [u32; 8]) {
            let ([f, e, b, a], [h, g, d, c]) = (unpack(self.abef), unpack(self.cdgh));
            *words = [a, b, c, d, e, f, g, h];
        }

        #[inline]
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        fn four_rounds(&mut self, words: __m128i, k: __m128i) {
            let mixed = _mm_add_epi32(words, k);
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, mixed);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, _mm_shuffle_epi32::<0x0e>(mixed));
        }

        #[inline]
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        fn add(&mut self, other: Self) {
            self.abef = _mm_add_epi32(self.abef, other.abef);
            self.cdgh = _mm_add_epi32(self.cdgh, other.cdgh);
        }
    }

    /// The sixteen message words of a block, big-endian.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load_words(block: &[u8; 64]) -> Words {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (quads, _) = block.as_chunks::<16>();
        [0, 1, 2, 3].map(|quad| _mm_shuffle_epi8(load(&quads[quad]), swap))
    }

    /// The message schedule (FIPS 180-4, section 6.2.2, step 1): what takes the place of the oldest four words, those at `quad`.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn schedule(words: &Words, quad: usize) -> __m128i {
        let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|age| words[(quad + age) % 4]);
        let partial = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        _mm_sha256msg2_epu32(partial, w3)
    }

    /// Four words as a register, the first one lowest.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn pack(words: &[u32; 4]) -> __m128i {
        let [w0, w1, w2, w3] = words.map(u32::cast_signed);
        _mm_set_epi32(w3, w2, w1, w0)
    }

    /// The words of a register, the lowest first.
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn unpack(quad: __m128i) -> [u32; 4] {
        [
            _mm_extract_epi32::<0>(quad),
            _mm_extract_epi32::<1>(quad),
            _mm_extract_epi32::<2>(quad),
            _mm_extract_epi32::<3>(quad),
        ]
        .map(i32::cast_unsigned)
    }

    /// Sixteen bytes as a register, the first one lowest.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the reference makes sixteen bytes readable, and this load asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of bytes that depend on the seed and on their place.
    fn blocks(seed: u64, count: usize) -> Vec<[u8; 64]> {
        let mut state = seed | 1;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(|_| std::array::from_fn(|_| byte())).collect()
    }

    proptest! {
        /// Whichever way this processor goes, both lanes equal the fallback, whatever their lengths.
        #[test]
        fn equals_the_fallback(
            states in any::<[[u32; 8]; 2]>(), seeds in any::<[u64; 2]>(), counts in prop::array::uniform2(0usize..70),
        ) {
            let given = [blocks(seeds[0], counts[0]), blocks(seeds[1], counts[1])];
            let (mut wanted, [mut a, mut b]) = (states, states);
            compress256(&mut wanted[0], &given[0]);
            compress256(&mut wanted[1], &given[1]);
            compress_two((&mut a, &given[0]), (&mut b, &given[1]));
            prop_assert_eq!([a, b], wanted);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn interleaves_where_the_processor_can() {
        let (mut a, mut b) = ([1; 8], [2; 8]);
        let given = blocks(3, 4);
        let done = x86::compress_pairs((&mut a, &given), (&mut b, &given));
        assert_eq!(
            done,
            is_x86_feature_detected!("sha"),
            "a processor with SHA-NI has SSSE3 and SSE4.1 as well"
        );
        assert_eq!(a != [1; 8] && b != [2; 8], done, "nothing is done without it");
    }
}
