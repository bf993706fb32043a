//! SM4 key expansion without table look-ups: the S-box is computed, so that its time depends on nothing.
//!
//! SM4's S-box is S(x) = A(1 / A(x)) in GF(2^8) modulo x^8 + x^7 + x^6 + x^5 + x^4 + x^2 + 1, with A affine
//! (F. Liu et al., Analysis of the SMS4 block cipher, ACISP 2007). The four bytes of a word are computed at once in a
//! `u32`; the inverse is x^254.

use zeroize::Zeroize;

/// The family key of the standard.
const FK: [u32; 4] = [0xa3b1_bac6, 0x56aa_3350, 0x677d_9197, 0xb270_22dc];

/// The 32 round keys, wiped on drop.
#[derive(Clone)]
pub(crate) struct RoundKeys([u32; 32]);

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RoundKeys {
    /// Expands a key.
    pub(crate) fn expand(key: &[u8; 16]) -> Self {
        let mut k: [u32; 4] = std::array::from_fn(|i| {
            u32::from_be_bytes(key[4 * i..4 * i + 4].try_into().expect("4 bytes")) ^ FK[i]
        });
        let mut keys = Self([0; 32]);
        for (round, key) in (0..).zip(&mut keys.0) {
            let b = s_box(k[1] ^ k[2] ^ k[3] ^ ck(round));
            *key = k[0] ^ b ^ b.rotate_left(13) ^ b.rotate_left(23);
            k = [k[1], k[2], k[3], *key];
        }
        k.zeroize();
        keys
    }

    /// The keys in the order of the rounds; the first byte of a word is its highest.
    pub(crate) fn words(&self) -> &[u32; 32] {
        &self.0
    }
}

/// The standard's constant of a round: bytes (4 round + j) * 7 modulo 256.
fn ck(round: u32) -> u32 {
    (0..4).fold(0, |word, j| (word << 8) | ((4 * round + j) * 7 % 256))
}

/// The S-box on each byte of a word.
pub(super) fn s_box(x: u32) -> u32 {
    affine(inverse(affine(x)))
}

/// A on each byte: the sum of its rotations to the right by 0, 1, 2, 5 and 7, and of 0xd3.
fn affine(x: u32) -> u32 {
    let rotated = |by: u32| {
        let low = 0x0101_0101 * (0xff >> by);
        (x >> by) & low | (x << (8 - by)) & !low
    };
    x ^ rotated(1) ^ rotated(2) ^ rotated(5) ^ rotated(7) ^ 0xd3d3_d3d3
}

/// The product of each pair of bytes in the field.
fn multiply(mut a: u32, b: u32) -> u32 {
    let mut product = 0;
    for bit in 0..8 {
        product ^= a & bytes_of_bit(b, bit);
        a = (a << 1) & 0xfefe_fefe ^ 0xf5f5_f5f5 & bytes_of_bit(a, 7);
    }
    product
}

/// 0xff in each byte that has the bit, 0 in the others.
fn bytes_of_bit(x: u32, bit: u32) -> u32 {
    // One times 255 does not reach the next byte.
    ((x >> bit) & 0x0101_0101) * 0xff
}

/// 1 / x in each byte, 0 for 0: x^254 = (x^127)^2.
fn inverse(x: u32) -> u32 {
    let x127 = (0..6).fold(x, |power, _| multiply(multiply(power, power), x));
    multiply(x127, x127)
}
