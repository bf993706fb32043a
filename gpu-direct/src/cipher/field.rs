//! GCM's field, for the powers of a hash key that a key table holds.
//!
//! Guarantees that time does not depend on the values. A few hundred products are made per key, none per message: so
//! one bit after the other is fast enough.

/// An element: the block as a big-endian number, whose highest bit is the coefficient of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element(pub(super) u128);

/// GCM's polynomial without its highest term, reflected.
const POLYNOMIAL: u128 = 0xe1 << 120;

impl Element {
    pub(super) fn from_block(block: &[u8; 16]) -> Self {
        Self(u128::from_be_bytes(*block))
    }

    /// The product in GF(2^128).
    pub(super) fn times(self, other: Self) -> Self {
        let (mut sum, mut shifted) = (0, self.0);
        for bit in (0..128).rev() {
            sum ^= shifted & 0u128.wrapping_sub(other.0 >> bit & 1);
            shifted = shifted >> 1 ^ POLYNOMIAL & 0u128.wrapping_sub(shifted & 1);
        }
        Self(sum)
    }

    /// The power with exponent `2^squarings`.
    pub(super) fn squared(self, squarings: u32) -> Self {
        (0..squarings).fold(self, |power, _| power.times(power))
    }

    /// Its four 32-bit words, lowest first, as the kernels have them.
    pub(super) fn words(self) -> [u32; 4] {
        #[expect(clippy::cast_possible_truncation, reason = "cut into words")]
        std::array::from_fn(|word| (self.0 >> (32 * word)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_standard() {
        // The GCM specification's test case 2: GHASH of one block and its length.
        let h = Element(0x66e9_4bd4_ef8a_2c3b_884c_fa59_ca34_2b2e);
        let x1 = Element(0x0388_dace_60b6_a392_f328_c2b9_71b2_fe78).times(h);
        assert_eq!(x1, Element(0x5e2e_c746_9170_6288_2c85_b068_5353_deb7));
        let hash = Element(x1.0 ^ 0x80).times(h);
        assert_eq!(hash, Element(0xf38c_bb1a_d692_23dc_c345_7ae5_b6b0_f885));
    }

    #[test]
    fn squaring_is_multiplying_by_itself() {
        let h = Element(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(h.squared(2), h.times(h).times(h).times(h));
        assert_eq!(h.times(Element(1 << 127)), h, "the highest bit is one");
    }
}
