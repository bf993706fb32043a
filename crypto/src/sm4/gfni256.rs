#![expect(unsafe_code, reason = "calls functions that need instructions which this module checked for")]
//! `sm4-avx2-gfni`: 32 blocks in 256-bit vectors, S-boxes by the inversions and matrices of GFNI.
//!
//! Guarantees that no branch and no address depends on key or data. An S-box with the linear layer behind it is two
//! instructions (see [`super::sliced256`]).

use std::arch::x86_64::*;

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::inout::InOutBuf;
use zeroize::Zeroize;

use super::basis;
use super::sliced256::{GROUP_BLOCKS, GROUP_BYTES, SlicedKeys, byte_sliced, sliced_keys};
use super::{Block, RoundKeys, Sm4Kernel};
use crate::aead::ghash::GhashKey;
use crate::detect::{CpuFeatures, cpu_features};

/// SM4 on AVX2 and GFNI, under one key. That there is one proves that this CPU has both.
pub(crate) struct Gfni256 {
    keys: SlicedKeys,
}

impl Drop for Gfni256 {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl Sm4Kernel for Gfni256 {
    const NAME: &'static str = "sm4-avx2-gfni";

    fn is_supported(cpu: &CpuFeatures) -> bool {
        cpu.avx2 && cpu.gfni
    }

    fn new(keys: &RoundKeys) -> Self {
        assert!(Self::is_supported(&cpu_features()), "{} on {}", Self::NAME, cpu_features());
        Self { keys: sliced_keys(keys.words()) }
    }

    fn ghash_key(h: &Block) -> GhashKey {
        GhashKey::without_avx512(h)
    }

    fn encrypt_block(&self, block: Block) -> Block {
        // SAFETY: `new` found AVX2 and GFNI.
        unsafe { encrypt_block(&self.keys, block) }
    }

    fn ctr(&self, counter: &Block, data: InOutBuf<'_, '_, u8>) {
        // SAFETY: `new` found AVX2 and GFNI.
        unsafe { ctr(&self.keys, counter, data) }
    }
}

byte_sliced!("avx2,gfni");

#[inline]
#[target_feature(enable = "avx2,gfni")]
fn to_state(x: __m256i) -> __m256i {
    _mm256_gf2p8affine_epi64_epi8::<0>(x, _mm256_set1_epi64x(const { basis::matrix(basis::TO_STATE) }))
}

#[inline]
#[target_feature(enable = "avx2,gfni")]
fn from_state(x: __m256i) -> __m256i {
    _mm256_gf2p8affine_epi64_epi8::<0>(x, _mm256_set1_epi64x(const { basis::matrix(basis::FROM_STATE) }))
}

const IMAGE_CONSTANT: i32 = basis::IMAGE.constant as i32;
const CARRIED_CONSTANT: i32 = basis::CARRIED.constant as i32;

#[inline]
#[target_feature(enable = "avx2,gfni")]
fn images(x: __m256i) -> (__m256i, __m256i) {
    let image = _mm256_set1_epi64x(const { basis::matrix(basis::IMAGE.linear) });
    let carried = _mm256_set1_epi64x(const { basis::matrix(basis::CARRIED.linear) });
    (
        _mm256_gf2p8affineinv_epi64_epi8::<IMAGE_CONSTANT>(x, image),
        _mm256_gf2p8affineinv_epi64_epi8::<CARRIED_CONSTANT>(x, carried),
    )
}
