//! SM4's S-box by AES's, for kernels with 256-bit vectors and AES instructions of any kind.
//!
//! AES's last round is SubBytes behind a permutation of bytes, which is undone first. What follows the inversion, with
//! SubBytes's own affine map taken back, is two linear images of a byte, each the sum of two look-ups of four bits in a
//! register. The macro [`aes_sbox`] writes these functions for each set of instructions, as
//! [`byte_sliced`](super::sliced256::byte_sliced) does; the module that uses it provides `last_round`.

use super::basis::{self, Affine, Linear};

/// The values of an affine map for low and for high nibbles.
pub(super) type Nibbles = [[u8; 16]; 2];

pub(super) const TO_STATE: Nibbles = linear(basis::TO_STATE);
pub(super) const FROM_STATE: Nibbles = linear(basis::FROM_STATE);
pub(super) const IMAGE: Nibbles = basis::nibbles(basis::after_sub_bytes(basis::IMAGE));
pub(super) const CARRIED: Nibbles = basis::nibbles(basis::after_sub_bytes(basis::CARRIED));

const fn linear(map: Linear) -> Nibbles {
    basis::nibbles(Affine { linear: map, constant: 0 })
}

/// What [`byte_sliced`](super::sliced256::byte_sliced) asks for, with the instructions named.
macro_rules! aes_sbox {
    ($features:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn to_state(x: __m256i) -> __m256i {
            look_up(&aes_sbox::TO_STATE, split(x))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn from_state(x: __m256i) -> __m256i {
            look_up(&aes_sbox::FROM_STATE, split(x))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn images(x: __m256i) -> (__m256i, __m256i) {
            // AESENCLAST shifts AES's rows before it substitutes.
            const UNSHIFTED: [i64; 2] = [0x0b0e_0104_070a_0d00, 0x0306_090c_0f02_0508];
            let [low, high] = UNSHIFTED;
            let nibbles = split(last_round(_mm256_shuffle_epi8(x, _mm256_setr_epi64x(low, high, low, high))));
            (look_up(&aes_sbox::IMAGE, nibbles), look_up(&aes_sbox::CARRIED, nibbles))
        }

        /// The low and the high nibbles of each byte.
        #[inline]
        #[target_feature(enable = $features)]
        fn split(x: __m256i) -> [__m256i; 2] {
            let mask = _mm256_set1_epi8(0x0f);
            [_mm256_and_si256(x, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(x), mask)]
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn look_up(tables: &aes_sbox::Nibbles, nibbles: [__m256i; 2]) -> __m256i {
            let twice = |table: &[u8; 16]| {
                let [low, high] = [&table[..8], &table[8..]]
                    .map(|half| i64::from_le_bytes(half.try_into().expect("eight of sixteen bytes")));
                _mm256_setr_epi64x(low, high, low, high)
            };
            let low = _mm256_shuffle_epi8(twice(&tables[0]), nibbles[0]);
            add(low, _mm256_shuffle_epi8(twice(&tables[1]), nibbles[1]))
        }
    };
}
pub(super) use aes_sbox;
