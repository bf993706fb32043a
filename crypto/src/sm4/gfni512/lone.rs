//! One block by itself, as GCM's tag mask needs one: a word of the state is the low 32 bits of an XMM register.
//!
//! Bound by latency, about 13 cycles a round with ten instructions in it: [`super::rounds`] runs it beside two groups,
//! where it is nearly free.

use std::arch::x86_64::*;

use super::bytes::{CARRIED, CARRIED_ADD, FROM_STATE, IMAGE, IMAGE_ADD, TO_STATE, others128};
use super::keys::Keys;
use crate::sm4::{BLOCK_BYTES, Block};
use crate::vector::{load128, store128};

/// A block between two rounds.
#[derive(Clone, Copy)]
pub(super) struct Lone {
    /// The four words in V form (see [`super`]), that of the next round first.
    words: [__m128i; 4],
    /// The sum of the last three and the next round key.
    sum: __m128i,
}

impl Lone {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn new(keys: &Keys, block: &Block) -> Self {
        let to_state = _mm_set1_epi64x(TO_STATE);
        let state = others128(_mm_gf2p8affine_epi64_epi8::<0>(load128(block), to_state));
        let words = [
            state,
            _mm_shuffle_epi32::<1>(state),
            _mm_shuffle_epi32::<2>(state),
            _mm_shuffle_epi32::<3>(state),
        ];
        let sum = _mm_ternarylogic_epi32::<0x96>(words[1], words[2], words[3]);
        Self { words, sum: _mm_xor_si128(sum, _mm_set1_epi32(keys.first.cast_signed())) }
    }

    /// One round, given what takes its round key to the next one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn round(&mut self, step: u32) {
        let input = others128(self.sum);
        let a = _mm_gf2p8affineinv_epi64_epi8::<IMAGE_ADD>(input, _mm_set1_epi64x(IMAGE));
        let b = _mm_gf2p8affineinv_epi64_epi8::<CARRIED_ADD>(input, _mm_set1_epi64x(CARRIED));
        let [first, second, third, fourth] = self.words;
        let new = _mm_ternarylogic_epi32::<0x96>(first, a, _mm_rol_epi32::<8>(b));
        let sum = _mm_xor_si128(self.sum, _mm_set1_epi32(step.cast_signed()));
        self.sum = _mm_ternarylogic_epi32::<0x96>(sum, second, new);
        self.words = [second, third, fourth, new];
    }

    /// The encrypted block, after 32 rounds.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn finish(self) -> Block {
        // The standard gives the words out in reverse.
        let [fourth, third, second, first] = self.words;
        let halves = [_mm_unpacklo_epi32(first, second), _mm_unpacklo_epi32(third, fourth)];
        let state = _mm_unpacklo_epi64(halves[0], halves[1]);
        let from_state = _mm_set1_epi64x(FROM_STATE);
        let mut block = [0; BLOCK_BYTES];
        store128(&mut block, _mm_gf2p8affine_epi64_epi8::<0>(others128(state), from_state));
        block
    }
}
