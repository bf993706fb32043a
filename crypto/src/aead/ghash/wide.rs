#![expect(
    unsafe_code,
    reason = "calls into code compiled for AVX-512 and VPCLMULQDQ, which the constructor checks for"
)]
//! GHASH on VPCLMULQDQ: four blocks in a register, up to 128 blocks per reduction.
//!
//! The elements are those of POLYVAL (RFC 8452, appendix A): blocks with their bytes reversed, powers of H times x. The
//! product of two is then an ordinary carry-less product and a Montgomery reduction by x^128. The sum of n blocks, the
//! hash so far in the first, is X_1 H^n + ... + X_n H, so that n products share one reduction.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::BLOCK_BYTES;
use crate::detect::{CpuFeatures, cpu_features};
use crate::vector::{load, load128, store128, xor3};

/// Blocks that share one reduction.
pub(crate) const BATCH_BLOCKS: usize = 128;
/// Their bytes.
pub(crate) const BATCH_BYTES: usize = BATCH_BLOCKS * BLOCK_BYTES;
/// The bytes of a batch in vectors.
pub(crate) type Batch = [[u8; 64]; BATCH_BYTES / 64];

/// H^128 to H^1, then zeros for the lanes behind a last vector of less than four blocks. Wiped on drop.
#[repr(C, align(64))]
pub(crate) struct Powers([[u8; BLOCK_BYTES]; BATCH_BLOCKS + 3]);

impl Drop for Powers {
    fn drop(&mut self) {
        self.0.as_flattened_mut().zeroize();
    }
}

impl Powers {
    /// Whether a CPU with these features multiplies so.
    pub(super) fn is_supported(cpu: &CpuFeatures) -> bool {
        cpu.avx512 && cpu.vbmi && cpu.gfni && cpu.clmul && cpu.vpclmulqdq
    }

    /// The powers of `h`.
    pub(super) fn new(h: &[u8; BLOCK_BYTES]) -> Self {
        assert!(Self::is_supported(&cpu_features()), "VPCLMULQDQ on a CPU without it");
        // SAFETY: this CPU has the features that the code was compiled for.
        unsafe { Self::compute(h) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn compute(h: &[u8; BLOCK_BYTES]) -> Self {
        let first = load128(&super::times_x(h));
        let mut powers = Self([[0; BLOCK_BYTES]; BATCH_BLOCKS + 3]);
        let mut power = first;
        for to in powers.0[..BATCH_BLOCKS].iter_mut().rev() {
            store128(to, power);
            let mut products = Products::idle();
            products.multiply(_mm512_zextsi128_si512(power), _mm512_zextsi128_si512(first));
            power = products.reduce();
        }
        powers
    }

    /// Those of a whole batch, by vector.
    fn batch(&self) -> &Batch {
        let (vectors, _) = self.0[..BATCH_BLOCKS].as_flattened().as_chunks::<64>();
        vectors.try_into().expect("a batch")
    }

    /// An empty sum.
    pub(super) fn start(&self) -> WideGhash<'_> {
        WideGhash { powers: self, sum: [0; BLOCK_BYTES] }
    }
}

/// The products of a batch that are not reduced yet.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    blocks: &'a Batch,
    powers: &'a Batch,
    sum: __m512i,
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

static NOTHING: Batch = [[0; 64]; BATCH_BYTES / 64];

impl Products<'static> {
    /// No batch at all.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    pub(crate) fn idle() -> Self {
        let zero = _mm512_setzero_si512();
        Self { blocks: &NOTHING, powers: &NOTHING, sum: zero, low: zero, middle: zero, high: zero }
    }
}

impl Products<'_> {
    /// Takes in vector `number` of the batch; each must be taken once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    pub(crate) fn add(&mut self, number: usize) {
        let mut blocks = reversed(load(&self.blocks[number]));
        if number == 0 {
            blocks = _mm512_xor_si512(blocks, self.sum);
        }
        self.multiply(blocks, load(&self.powers[number]));
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn multiply(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
        let outer = _mm512_clmulepi64_epi128::<0x01>(a, b);
        let inner = _mm512_clmulepi64_epi128::<0x10>(a, b);
        self.middle = xor3(self.middle, outer, inner);
    }

    /// Their sum, reduced.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn reduce(self) -> __m128i {
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(self.middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(self.middle));
        // Montgomery: x^63 + x^62 + x^57 times each half of the low part cancels it and lands 64 bits higher.
        let polynomial = _mm512_set1_epi64(0xc200_0000_0000_0000_u64.cast_signed());
        let folded = _mm512_clmulepi64_epi128::<0x00>(low, polynomial);
        let low = _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(low), folded);
        let folded = _mm512_clmulepi64_epi128::<0x00>(low, polynomial);
        let lanes = xor3(_mm512_shuffle_epi32::<0x4e>(low), folded, high);
        let half = _mm256_xor_si256(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
        _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    }
}

/// Each block of four with its bytes reversed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn reversed(blocks: __m512i) -> __m512i {
    let order = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f));
    _mm512_shuffle_epi8(blocks, order)
}

/// The hash of one message so far.
pub(crate) struct WideGhash<'k> {
    powers: &'k Powers,
    /// With its bytes reversed.
    sum: [u8; BLOCK_BYTES],
}

impl<'k> WideGhash<'k> {
    /// The products of a whole batch, to be added one by one and given to [`WideGhash::finish_batch`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    pub(crate) fn batch<'a>(&self, blocks: &'a [u8; BATCH_BYTES]) -> Products<'a>
    where
        'k: 'a,
    {
        let (vectors, _) = blocks.as_chunks::<64>();
        let blocks = vectors.try_into().expect("a batch");
        let sum = _mm512_zextsi128_si512(load128(&self.sum));
        Products { blocks, powers: self.powers.batch(), sum, ..Products::idle() }
    }

    /// The hash after a batch all of whose products were added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    pub(crate) fn finish_batch(&mut self, products: Products<'_>) {
        store128(&mut self.sum, products.reduce());
    }

    /// Adds `bytes`, filled up with zeros to whole blocks.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for batch in bytes.chunks(BATCH_BYTES) {
            // SAFETY: a `Powers` exists only where its constructor found the features.
            unsafe { self.update_batch(batch) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
    fn update_batch(&mut self, bytes: &[u8]) {
        // The first of n blocks meets H^n; lanes that have no block meet zeros.
        let powers = self.powers.0[BATCH_BLOCKS - bytes.len().div_ceil(BLOCK_BYTES)..].as_flattened();
        let mut sum = _mm512_zextsi128_si512(load128(&self.sum));
        let mut products = Products::idle();
        let (vectors, rest) = bytes.as_chunks::<64>();
        let (vector_powers, _) = powers.as_chunks::<64>();
        for (blocks, powers) in vectors.iter().zip(vector_powers) {
            products.multiply(_mm512_xor_si512(reversed(load(blocks)), sum), load(powers));
            sum = _mm512_setzero_si512();
        }
        if !rest.is_empty() {
            let mut blocks = [0; 64];
            blocks[..rest.len()].copy_from_slice(rest);
            let powers = vector_powers.get(vectors.len()).expect("three zeros behind the last power");
            products.multiply(_mm512_xor_si512(reversed(load(&blocks)), sum), load(powers));
        }
        store128(&mut self.sum, products.reduce());
    }

    /// The hash.
    pub(super) fn finish(self) -> [u8; BLOCK_BYTES] {
        u128::from_le_bytes(self.sum).to_be_bytes()
    }
}
