#![expect(unsafe_code, reason = "vector loads and stores take pointers: each gets a safe function here")]
//! The 512-bit operations that cipher and hash share, under names that say what they do here.
//!
//! Callable only from code that was compiled for the same CPU features; who calls that has checked them.

use std::arch::x86_64::*;

/// The sum of three.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

/// 64 bytes from anywhere.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes that the caller lends for the call; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 64 bytes to anywhere.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: 64 bytes that the caller lends for writing during the call; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// 16 bytes from anywhere.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn load128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes that the caller lends for the call; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// 16 bytes to anywhere.
#[inline]
#[target_feature(enable = "sse2")]
pub(crate) fn store128(bytes: &mut [u8; 16], value: __m128i) {
    // SAFETY: 16 bytes that the caller lends for writing during the call; the store needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}
