//! The maps of [`crate::sm4::basis`] as this kernel's instructions take them, and bytes moved between registers.

use std::arch::x86_64::*;

use crate::sm4::basis;
use crate::vector::xor3;

/// From SM4's bytes to the state's.
pub(super) const TO_STATE: i64 = basis::matrix(basis::TO_STATE);
/// What a round key's byte gains beside.
pub(super) const KEY_ADD: i32 = basis::ROUND_KEY as i32;
/// From the state's bytes to SM4's.
pub(super) const FROM_STATE: i64 = basis::matrix(basis::FROM_STATE);
/// From the inverse to the first image of the S-box's output, s + (s >> 6).
pub(super) const IMAGE: i64 = basis::matrix(basis::IMAGE.linear);
/// What is added to it.
pub(super) const IMAGE_ADD: i32 = basis::IMAGE.constant as i32;
/// From the inverse to the second image, s + (s << 2).
pub(super) const CARRIED: i64 = basis::matrix(basis::CARRIED.linear);
/// What is added to it.
pub(super) const CARRIED_ADD: i32 = basis::CARRIED.constant as i32;

/// In each byte of a 32-bit word, the sum of the other three: from X to V form and back.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
pub(super) fn others(x: __m512i) -> __m512i {
    xor3(_mm512_rol_epi32::<8>(x), _mm512_rol_epi32::<16>(x), _mm512_rol_epi32::<24>(x))
}

/// [`others`] of four words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
pub(super) fn others128(x: __m128i) -> __m128i {
    _mm_ternarylogic_epi32::<0x96>(_mm_rol_epi32::<8>(x), _mm_rol_epi32::<16>(x), _mm_rol_epi32::<24>(x))
}

/// Transposes 16 registers of 4 x 16 bytes within their four lanes: byte i of lane l of register j goes to byte j of
/// lane l of register i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,gfni,vpclmulqdq")]
pub(super) fn transpose(mut rows: [__m512i; 16]) -> [__m512i; 16] {
    // Interleaving the first half with the second rotates the eight bits of (register, byte) by one.
    for _ in 0..4 {
        let mut next = rows;
        for i in 0..8 {
            next[2 * i] = _mm512_unpacklo_epi8(rows[i], rows[i + 8]);
            next[2 * i + 1] = _mm512_unpackhi_epi8(rows[i], rows[i + 8]);
        }
        rows = next;
    }
    rows
}
