#![expect(unsafe_code, reason = "calls into code compiled for VPCLMULQDQ, which the constructor checks for")]
//! GHASH on VPCLMULQDQ for CPUs without AVX-512: two blocks in a register, up to 64 blocks per reduction.
//!
//! The same algebra as [`super::wide`], where it is explained.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::BLOCK_BYTES;
use crate::detect::{CpuFeatures, cpu_features};
use crate::vector::{load128, store128};

/// Blocks that share one reduction.
const BATCH_BLOCKS: usize = 64;
/// Their bytes.
const BATCH_BYTES: usize = BATCH_BLOCKS * BLOCK_BYTES;

/// H^64 to H^1, then zero for the lane behind a last vector of one block. Wiped on drop.
pub(crate) struct Powers([[u8; BLOCK_BYTES]; BATCH_BLOCKS + 1]);

impl Drop for Powers {
    fn drop(&mut self) {
        self.0.as_flattened_mut().zeroize();
    }
}

impl Powers {
    /// Whether a CPU with these features multiplies so.
    pub(super) fn is_supported(cpu: &CpuFeatures) -> bool {
        cpu.avx2 && cpu.clmul && cpu.vpclmulqdq
    }

    /// The powers of `h`.
    pub(super) fn new(h: &[u8; BLOCK_BYTES]) -> Self {
        assert!(Self::is_supported(&cpu_features()), "VPCLMULQDQ on a CPU without it");
        // SAFETY: this CPU has the features that the code was compiled for.
        unsafe { Self::compute(h) }
    }

    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
    fn compute(h: &[u8; BLOCK_BYTES]) -> Self {
        let first = load128(&super::times_x(h));
        let mut powers = Self([[0; BLOCK_BYTES]; BATCH_BLOCKS + 1]);
        let mut power = first;
        for to in powers.0[..BATCH_BLOCKS].iter_mut().rev() {
            store128(to, power);
            let mut products = Products::none();
            products.multiply(_mm256_zextsi128_si256(power), _mm256_zextsi128_si256(first));
            power = products.reduce();
        }
        powers
    }

    /// An empty sum.
    pub(super) fn start(&self) -> HalfGhash<'_> {
        HalfGhash { powers: self, sum: [0; BLOCK_BYTES] }
    }
}

/// Products that are not reduced yet.
struct Products {
    low: __m256i,
    middle: __m256i,
    high: __m256i,
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
    fn none() -> Self {
        let zero = _mm256_setzero_si256();
        Self { low: zero, middle: zero, high: zero }
    }

    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
    fn multiply(&mut self, a: __m256i, b: __m256i) {
        self.low = _mm256_xor_si256(self.low, _mm256_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm256_xor_si256(self.high, _mm256_clmulepi64_epi128::<0x11>(a, b));
        let outer = _mm256_clmulepi64_epi128::<0x01>(a, b);
        let inner = _mm256_clmulepi64_epi128::<0x10>(a, b);
        self.middle = _mm256_xor_si256(self.middle, _mm256_xor_si256(outer, inner));
    }

    /// Their sum, reduced.
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
    fn reduce(self) -> __m128i {
        let low = _mm256_xor_si256(self.low, _mm256_bslli_epi128::<8>(self.middle));
        let high = _mm256_xor_si256(self.high, _mm256_bsrli_epi128::<8>(self.middle));
        let polynomial = _mm256_set1_epi64x(0xc200_0000_0000_0000_u64.cast_signed());
        let folded = _mm256_clmulepi64_epi128::<0x00>(low, polynomial);
        let low = _mm256_xor_si256(_mm256_shuffle_epi32::<0x4e>(low), folded);
        let folded = _mm256_clmulepi64_epi128::<0x00>(low, polynomial);
        let lanes = _mm256_xor_si256(_mm256_xor_si256(_mm256_shuffle_epi32::<0x4e>(low), folded), high);
        _mm_xor_si128(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes))
    }
}

/// Two blocks, each with its bytes reversed.
#[inline]
#[target_feature(enable = "avx2")]
fn reversed(blocks: &[u8; 32]) -> __m256i {
    let order = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f));
    _mm256_shuffle_epi8(load(blocks), order)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes that the caller lends for the call; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The hash of one message so far.
pub(crate) struct HalfGhash<'k> {
    powers: &'k Powers,
    /// With its bytes reversed.
    sum: [u8; BLOCK_BYTES],
}

impl HalfGhash<'_> {
    /// Adds `bytes`, filled up with zeros to whole blocks.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for batch in bytes.chunks(BATCH_BYTES) {
            // SAFETY: a `Powers` exists only where its constructor found the features.
            unsafe { self.update_batch(batch) }
        }
    }

    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
    fn update_batch(&mut self, bytes: &[u8]) {
        // The first of n blocks meets H^n; a lane that has no block meets zero.
        let powers = self.powers.0[BATCH_BLOCKS - bytes.len().div_ceil(BLOCK_BYTES)..].as_flattened();
        let mut sum = _mm256_zextsi128_si256(load128(&self.sum));
        let mut products = Products::none();
        let (vectors, rest) = bytes.as_chunks::<32>();
        let (vector_powers, _) = powers.as_chunks::<32>();
        for (blocks, powers) in vectors.iter().zip(vector_powers) {
            products.multiply(_mm256_xor_si256(reversed(blocks), sum), load(powers));
            sum = _mm256_setzero_si256();
        }
        if !rest.is_empty() {
            let mut blocks = [0; 32];
            blocks[..rest.len()].copy_from_slice(rest);
            let powers = vector_powers.get(vectors.len()).expect("a zero behind the last power");
            products.multiply(_mm256_xor_si256(reversed(&blocks), sum), load(powers));
        }
        store128(&mut self.sum, products.reduce());
    }

    /// The hash.
    pub(super) fn finish(self) -> [u8; BLOCK_BYTES] {
        u128::from_le_bytes(self.sum).to_be_bytes()
    }
}
