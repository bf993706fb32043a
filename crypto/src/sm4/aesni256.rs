#![expect(unsafe_code, reason = "calls functions that need instructions which this module checked for")]
//! `sm4-avx2-aesni`: 32 blocks in 256-bit vectors, S-boxes by AES's, for CPUs without GFNI.
//!
//! Guarantees that no branch and no address depends on key or data. AES's last round is SubBytes behind a permutation
//! of bytes, which is undone first. What follows the inversion, SubBytes's own affine map taken back, is two linear
//! images of a byte, each the sum of two look-ups of four bits in a register (see [`super::sliced256`]).

use std::arch::x86_64::*;

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::inout::InOutBuf;
use zeroize::Zeroize;

use super::basis::{self, Affine};
use super::sliced256::{GROUP_BLOCKS, GROUP_BYTES, SlicedKeys, byte_sliced, sliced_keys};
use super::{Block, RoundKeys, Sm4Kernel};
use crate::detect::{CpuFeatures, cpu_features};

/// SM4 on AVX2 and AES-NI, under one key. That there is one proves that this CPU has both.
pub(crate) struct AesNi256 {
    keys: SlicedKeys,
}

impl Drop for AesNi256 {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl Sm4Kernel for AesNi256 {
    const NAME: &'static str = "sm4-avx2-aesni";

    fn is_supported(cpu: &CpuFeatures) -> bool {
        cpu.avx2 && cpu.aes
    }

    fn new(keys: &RoundKeys) -> Self {
        assert!(Self::is_supported(&cpu_features()), "{} on {}", Self::NAME, cpu_features());
        Self { keys: sliced_keys(keys.words()) }
    }

    fn encrypt_block(&self, block: Block) -> Block {
        // SAFETY: `new` found AVX2 and AES-NI.
        unsafe { encrypt_block(&self.keys, block) }
    }

    fn ctr(&self, counter: &Block, data: InOutBuf<'_, '_, u8>) {
        // SAFETY: `new` found AVX2 and AES-NI.
        unsafe { ctr(&self.keys, counter, data) }
    }
}

byte_sliced!("avx2,aes");

/// The values of an affine map for low and high nibbles, ready to be looked up in.
const TO_STATE: [[u8; 16]; 2] = linear(basis::TO_STATE);
const FROM_STATE: [[u8; 16]; 2] = linear(basis::FROM_STATE);
const IMAGE: [[u8; 16]; 2] = basis::nibbles(basis::after_sub_bytes(basis::IMAGE));
const CARRIED: [[u8; 16]; 2] = basis::nibbles(basis::after_sub_bytes(basis::CARRIED));

const fn linear(map: basis::Linear) -> [[u8; 16]; 2] {
    basis::nibbles(Affine { linear: map, constant: 0 })
}

#[inline]
#[target_feature(enable = "avx2,aes")]
fn to_state(x: __m256i) -> __m256i {
    look_up(&TO_STATE, split(x))
}

#[inline]
#[target_feature(enable = "avx2,aes")]
fn from_state(x: __m256i) -> __m256i {
    look_up(&FROM_STATE, split(x))
}

#[inline]
#[target_feature(enable = "avx2,aes")]
fn images(x: __m256i) -> (__m256i, __m256i) {
    let nibbles = split(sub_bytes(x));
    (look_up(&IMAGE, nibbles), look_up(&CARRIED, nibbles))
}

/// AES's S-box on each byte.
#[inline]
#[target_feature(enable = "avx2,aes")]
fn sub_bytes(x: __m256i) -> __m256i {
    // AESENCLAST shifts AES's rows before it substitutes.
    let unshifted = _mm256_setr_epi64x(
        0x0b0e_0104_070a_0d00,
        0x0306_090c_0f02_0508,
        0x0b0e_0104_070a_0d00,
        0x0306_090c_0f02_0508,
    );
    let x = _mm256_shuffle_epi8(x, unshifted);
    let zero = _mm_setzero_si128();
    let low = _mm_aesenclast_si128(_mm256_castsi256_si128(x), zero);
    let high = _mm_aesenclast_si128(_mm256_extracti128_si256::<1>(x), zero);
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}

/// The low and the high nibbles of each byte.
#[inline]
#[target_feature(enable = "avx2,aes")]
fn split(x: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(0x0f);
    [_mm256_and_si256(x, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(x), mask)]
}

#[inline]
#[target_feature(enable = "avx2,aes")]
fn look_up(tables: &[[u8; 16]; 2], nibbles: [__m256i; 2]) -> __m256i {
    let twice = |table: &[u8; 16]| {
        let [low, high] = [&table[..8], &table[8..]]
            .map(|half| i64::from_le_bytes(half.try_into().expect("eight of sixteen bytes")));
        _mm256_setr_epi64x(low, high, low, high)
    };
    let low = _mm256_shuffle_epi8(twice(&tables[0]), nibbles[0]);
    add(low, _mm256_shuffle_epi8(twice(&tables[1]), nibbles[1]))
}
