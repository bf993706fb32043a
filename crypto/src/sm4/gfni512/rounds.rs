//! Thirty-two rounds of two groups of 64 counter blocks, with a hash and a lone block in the gaps.
//!
//! A register holds one byte position of 64 blocks, so that the rotations by 8, 16 and 24 of SM4's linear layer are
//! names of registers. With the forms of [`super`] a round of a group is 16 logic and 8 GFNI instructions.
//! One group would wait for itself (about 11 cycles from round to round on Zen 5, 6 of them at work), two nearly fill
//! the machine, and what they leave takes one vector of GHASH per round.
//!
//! The words of the state stay in memory: a round reads the oldest word and the one after it and writes one, three
//! rounds before it is read again, which hides the store. In registers is only what the next round waits for: the sum
//! of the last three words and the round key.

use std::arch::x86_64::*;

use aes_gcm::aead::inout::InOutBuf;

use super::bytes::{CARRIED, CARRIED_ADD, FROM_STATE, IMAGE, IMAGE_ADD, TO_STATE, transpose};
use super::keys::{Keys, Message};
use super::lone::Lone;
use crate::aead::ghash::wide::Products;
use crate::vector::{load, store, xor3};

/// Groups in flight.
pub(super) const GROUPS: usize = 2;
/// Bytes of one group.
pub(super) const GROUP_BYTES: usize = 64 * 16;

/// One byte position of a word in each of its registers.
type Word = [__m512i; 4];

/// The words of two groups, in V form.
#[repr(C, align(64))]
pub(super) struct State([[Word; 4]; GROUPS]);

impl State {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn new() -> Self {
        Self([[[_mm512_setzero_si512(); 4]; 4]; GROUPS])
    }

    /// Encrypts the counter blocks of `message` from `counter` on. With `HASH`, `products` takes in the 32 vectors that
    /// it was given; with `LONE`, the lone block goes through its rounds.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    pub(super) fn encrypt<const HASH: bool, const LONE: bool>(
        &mut self,
        keys: &Keys,
        message: &Message,
        counter: u32,
        products: &mut Products<'_>,
        lone: &mut Lone,
    ) {
        let mut sums = [message.sum; GROUPS];
        for ((words, sum), number) in self.0.iter_mut().zip(&mut sums).zip(0_u32..) {
            words[3] = counter_word(counter.wrapping_add(64 * number));
            for j in 0..4 {
                sum[j] = _mm512_xor_si512(sum[j], words[3][j]);
            }
        }
        // Copies, so that they are in registers.
        let (mut copy_of_products, mut copy_of_lone) = (*products, *lone);
        let mut beside = |round: usize| {
            if HASH {
                copy_of_products.add(round);
            }
            if LONE {
                copy_of_lone.round(keys.steps[round]);
            }
        };
        // The first three words are the message's.
        let shared = &message.words;
        for (words, sum) in self.0.iter_mut().zip(&mut sums) {
            words[0] = round(sum, &keys.wide_steps[0], &shared[0], &shared[1]);
        }
        beside(0);
        for (words, sum) in self.0.iter_mut().zip(&mut sums) {
            words[1] = round(sum, &keys.wide_steps[1], &shared[1], &shared[2]);
        }
        beside(1);
        for (words, sum) in self.0.iter_mut().zip(&mut sums) {
            words[2] = round(sum, &keys.wide_steps[2], &shared[2], &words[3]);
        }
        beside(2);
        for number in 3..32 {
            let (oldest, next) = (number % 4, (number + 1) % 4);
            for (words, sum) in self.0.iter_mut().zip(&mut sums) {
                words[oldest] = round(sum, &keys.wide_steps[number], &words[oldest], &words[next]);
            }
            beside(number);
        }
        if HASH {
            *products = copy_of_products;
        }
        if LONE {
            *lone = copy_of_lone;
        }
    }

    /// Adds the key stream of a group to its bytes.
    ///
    /// # Panics
    /// When `data` is not as long as a group.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    pub(super) fn apply(&self, group: usize, mut data: InOutBuf<'_, '_, u8>) {
        assert_eq!(data.len(), GROUP_BYTES, "a group");
        for (number, stream) in self.key_stream(group).into_iter().enumerate() {
            let sum = _mm512_xor_si512(load(&data.get_in().as_chunks().0[number]), stream);
            store(&mut data.get_out().as_chunks_mut().0[number], sum);
        }
    }

    /// The key stream of a group: register i holds blocks 4 i to 4 i + 3.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
    fn key_stream(&self, group: usize) -> [__m512i; 16] {
        let from_state = _mm512_set1_epi64(FROM_STATE);
        let mut rows = [from_state; 16];
        for (word, row) in self.0[group].iter().rev().zip(rows.as_chunks_mut::<4>().0) {
            for j in 0..4 {
                let sum = xor3(word[(j + 1) % 4], word[(j + 2) % 4], word[(j + 3) % 4]);
                row[j] = _mm512_gf2p8affine_epi64_epi8::<0>(sum, from_state);
            }
        }
        transpose(rows)
    }
}

/// One round of a group: from `oldest` to the new word. `next` leaves the sum as the new word enters it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
fn round(sum: &mut Word, step: &[u32; 4], oldest: &Word, next: &Word) -> Word {
    let (image, carried) = (_mm512_set1_epi64(IMAGE), _mm512_set1_epi64(CARRIED));
    let input = [
        xor3(sum[1], sum[2], sum[3]),
        xor3(sum[0], sum[2], sum[3]),
        xor3(sum[0], sum[1], sum[3]),
        xor3(sum[0], sum[1], sum[2]),
    ];
    let mut new = *oldest;
    for j in 0..4 {
        sum[j] = _mm512_xor_si512(sum[j], _mm512_set1_epi32(step[j].cast_signed()));
        let own = _mm512_gf2p8affineinv_epi64_epi8::<IMAGE_ADD>(input[j], image);
        let other = _mm512_gf2p8affineinv_epi64_epi8::<CARRIED_ADD>(input[(j + 3) % 4], carried);
        new[j] = xor3(own, other, oldest[j]);
        sum[j] = xor3(sum[j], new[j], next[j]);
    }
    new
}

/// The lanes of a group by block: the transpose leaves byte i of lane l as block 4 i + l.
static LANES: [u8; 64] = {
    let mut lanes = [0; 64];
    let mut block = 0;
    while block < 64 {
        lanes[16 * (block as usize % 4) + block as usize / 4] = block;
        block += 1;
    }
    lanes
};

/// The last word of 64 counter blocks from `counter` on, in V form.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
fn counter_word(counter: u32) -> Word {
    // Bytes 0 to 3 of both, from the lowest: the counter, and what it is where the lowest byte overflowed.
    let both = u64::from(counter) | u64::from(counter.wrapping_add(256)) << 32;
    let both = _mm512_set1_epi64(both.cast_signed());
    let low = _mm512_shuffle_epi8(both, _mm512_set1_epi8(0));
    let sum = _mm512_add_epi8(low, load(&LANES));
    let overflowed = _mm512_cmplt_epu8_mask(sum, low);
    let to_state = _mm512_set1_epi64(TO_STATE);
    let mut word = [_mm512_gf2p8affine_epi64_epi8::<0>(sum, to_state); 4];
    for (byte, j) in (1_i8..4).zip((0..3).rev()) {
        let without = _mm512_shuffle_epi8(both, _mm512_set1_epi8(byte));
        let with = _mm512_mask_shuffle_epi8(without, overflowed, both, _mm512_set1_epi8(byte + 4));
        word[j] = _mm512_gf2p8affine_epi64_epi8::<0>(with, to_state);
    }
    [
        xor3(word[1], word[2], word[3]),
        xor3(word[0], word[2], word[3]),
        xor3(word[0], word[1], word[3]),
        xor3(word[0], word[1], word[2]),
    ]
}
