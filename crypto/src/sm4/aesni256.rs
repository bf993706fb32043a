#![expect(unsafe_code, reason = "calls functions that need instructions which this module checked for")]
//! `sm4-avx2-aesni`: 32 blocks in 256-bit vectors, S-boxes by AES's, for CPUs without GFNI.
//!
//! Guarantees that no branch and no address depends on key or data. See [`super::sliced256`] for the rounds and
//! [`super::aes_sbox`] for the S-box.

use std::arch::x86_64::*;

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::inout::InOutBuf;
use zeroize::Zeroize;

use super::aes_sbox::{self, aes_sbox};
use super::sliced256::{GROUP_BLOCKS, GROUP_BYTES, SlicedKeys, byte_sliced, sliced_keys};
use super::{Block, RoundKeys, Sm4Kernel};
use crate::aead::ghash::GhashKey;
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

    fn ghash_key(h: &Block) -> GhashKey {
        GhashKey::without_avx512(h)
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
aes_sbox!("avx2,aes");

/// AES's last round under a key of zeroes, on both halves.
#[inline]
#[target_feature(enable = "avx2,aes")]
fn last_round(x: __m256i) -> __m256i {
    let zero = _mm_setzero_si128();
    let low = _mm_aesenclast_si128(_mm256_castsi256_si128(x), zero);
    let high = _mm_aesenclast_si128(_mm256_extracti128_si256::<1>(x), zero);
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}
