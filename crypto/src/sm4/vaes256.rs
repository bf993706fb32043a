#![expect(unsafe_code, reason = "calls functions that need instructions which this module checked for")]
//! `sm4-avx2-vaes`: 32 blocks in 256-bit vectors, S-boxes by AES's, for CPUs that have them on 256 bits but no GFNI
//! (AMD's Zen 3).
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

/// SM4 on AVX2 and VAES, under one key. That there is one proves that this CPU has both.
pub(crate) struct Vaes256 {
    keys: SlicedKeys,
}

impl Drop for Vaes256 {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl Sm4Kernel for Vaes256 {
    const NAME: &'static str = "sm4-avx2-vaes";

    fn is_supported(cpu: &CpuFeatures) -> bool {
        cpu.avx2 && cpu.vaes
    }

    fn new(keys: &RoundKeys) -> Self {
        assert!(Self::is_supported(&cpu_features()), "{} on {}", Self::NAME, cpu_features());
        Self { keys: sliced_keys(keys.words()) }
    }

    fn ghash_key(h: &Block) -> GhashKey {
        GhashKey::without_avx512(h)
    }

    fn encrypt_block(&self, block: Block) -> Block {
        // SAFETY: `new` found AVX2 and VAES.
        unsafe { encrypt_block(&self.keys, block) }
    }

    fn ctr(&self, counter: &Block, data: InOutBuf<'_, '_, u8>) {
        // SAFETY: `new` found AVX2 and VAES.
        unsafe { ctr(&self.keys, counter, data) }
    }
}

byte_sliced!("avx2,vaes");
aes_sbox!("avx2,vaes");

/// AES's last round under a key of zeroes, on both halves.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn last_round(x: __m256i) -> __m256i {
    _mm256_aesenclast_epi128(x, _mm256_setzero_si256())
}
