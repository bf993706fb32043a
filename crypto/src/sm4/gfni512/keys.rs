//! Round keys and messages in the form that the rounds add.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::bytes::{KEY_ADD, TO_STATE, others};
use crate::sm4::{Block, RoundKeys};
use crate::vector::{load, store, xor3};

/// Round keys in V form (see [`super`]), as differences: the rounds keep the sum of three words and the
/// round key, and this is what takes it from one round to the next. Wiped on drop.
#[repr(C, align(64))]
pub(super) struct Keys {
    /// Round key 0, a word; byte j, from below, is the standard's byte j.
    pub(super) first: u32,
    /// Round key i plus round key i + 1; the last, after which nobody asks, is the last key.
    pub(super) steps: [u32; 32],
    /// The same with each byte of a word replicated to four, which a load broadcasts to 64 blocks.
    pub(super) wide_steps: [[u32; 4]; 32],
    /// The same of round key 0.
    pub(super) wide_first: [u32; 4],
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.first.zeroize();
        self.steps.zeroize();
        self.wide_steps.as_flattened_mut().zeroize();
        self.wide_first.zeroize();
    }
}

impl Keys {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn new(round_keys: &RoundKeys) -> Self {
        let mut bytes = [0; 128];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(round_keys.words()) {
            *bytes = word.to_be_bytes();
        }
        let to_state = _mm512_set1_epi64(TO_STATE);
        for half in bytes.as_chunks_mut::<64>().0 {
            let image = _mm512_gf2p8affine_epi64_epi8::<KEY_ADD>(load(half), to_state);
            store(half, others(image));
        }
        let mut words = [0; 33];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let mut keys =
            Self { first: words[0], steps: [0; 32], wide_steps: [[0; 4]; 32], wide_first: wide(words[0]) };
        for round in 0..32 {
            keys.steps[round] = words[round] ^ words[round + 1];
            keys.wide_steps[round] = wide(keys.steps[round]);
        }
        bytes.zeroize();
        words.zeroize();
        keys
    }
}

fn wide(word: u32) -> [u32; 4] {
    word.to_le_bytes().map(|byte| u32::from(byte) * 0x0101_0101)
}

/// What all counter blocks of one message share: their first three words.
pub(super) struct Message {
    /// In V form, each byte in all lanes.
    pub(super) words: [[__m512i; 4]; 3],
    /// Of words 1 and 2 and round key 0.
    pub(super) sum: [__m512i; 4],
}

impl Message {
    /// Of the messages whose counter blocks begin as `counter` does.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn new(keys: &Keys, counter: &Block) -> Self {
        let to_state = _mm512_set1_epi64(TO_STATE);
        let block = _mm512_broadcast_i32x4(_mm_set_epi64x(
            i64::from_le_bytes(counter[8..].try_into().expect("8 bytes")),
            i64::from_le_bytes(counter[..8].try_into().expect("8 bytes")),
        ));
        let state = others(_mm512_gf2p8affine_epi64_epi8::<0>(block, to_state));
        let mut words = [[state; 4]; 3];
        for (number, byte) in (0_i8..).zip(words.as_flattened_mut()) {
            *byte = _mm512_shuffle_epi8(state, _mm512_set1_epi8(number));
        }
        let mut sum = [state; 4];
        for j in 0..4 {
            let key = _mm512_set1_epi32(keys.wide_first[j].cast_signed());
            sum[j] = xor3(words[1][j], words[2][j], key);
        }
        Self { words, sum }
    }
}
