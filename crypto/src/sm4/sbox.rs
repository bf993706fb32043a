//! SM4's S-box as a circuit of 115 gates, for as many bytes at once as a word has bits.
//!
//! Guarantees that the work is the same for all inputs: ANDs and XORs on whole words, no table, no branch. Knows
//! neither rounds nor keys, and not how bytes came to be bit planes.
//!
//! The S-box is `A(1 / A(x + 0x75)) + 0xd3` over GF(2^8) modulo x^8 + x^7 + x^6 + x^5 + x^4 + x^2 + 1, with a linear
//! map `A`. That field is mapped to AES's (of the eight isomorphisms, the one with the cheapest maps), where the
//! inversion of Boyar and Peralta's AES S-box (eprint 2011/332) takes 62 gates. The linear map before it, with `A`
//! merged in, takes 22 XORs, the one after it 31; both were found by a randomised greedy search.

use std::ops::{BitAnd, BitXor};

/// What the circuit expects to have been added to its input.
pub(super) const INPUT: u8 = 0x75;
/// What is still to be added to its output.
pub(super) const OUTPUT: u8 = 0xd3;

/// The S-box of the bytes whose bit `b` stands in plane `b`, without its two constants: `S(x)` is
/// `circuit(x + INPUT) + OUTPUT`. Callers merge both into the round keys.
#[inline(always)]
pub(super) fn circuit<W>(x: [W; 8]) -> [W; 8]
where
    W: Copy + BitAnd<Output = W> + BitXor<Output = W>,
{
    // Into the field of AES, and the sums that the inversion shares.
    let y5 = x[2] ^ x[6];
    let y2 = x[1] ^ y5;
    let y20 = x[2] ^ x[7];
    let y10 = x[4] ^ y20;
    let y7 = x[0] ^ y10;
    let y18 = y2 ^ y7;
    let a0 = x[3] ^ y18;
    let y9 = x[6] ^ a0;
    let y4 = y2 ^ y9;
    let y19 = x[5] ^ a0;
    let y11 = y20 ^ y9;
    let y0 = y7 ^ y11;
    let y21 = x[5] ^ y11;
    let y8 = y10 ^ y19;
    let y14 = y9 ^ y8;
    let y12 = x[1] ^ y14;
    let y3 = y5 ^ y8;
    let y15 = x[6] ^ y12;
    let y16 = x[1] ^ y21;
    let y17 = x[0] ^ y0;
    let y1 = y7 ^ y16;
    let y6 = y0 ^ y15;
    let y13 = x[1];

    // The inverse, as 18 products whose sums are its bits.
    let t2 = y12 & y15;
    let t3 = y3 & y6;
    let t4 = t3 ^ t2;
    let t5 = y4 & y0;
    let t6 = t5 ^ t2;
    let t7 = y13 & y16;
    let t8 = y5 & y1;
    let t9 = t8 ^ t7;
    let t10 = y2 & y7;
    let t11 = t10 ^ t7;
    let t12 = y9 & y11;
    let t13 = y14 & y17;
    let t14 = t13 ^ t12;
    let t15 = y8 & y10;
    let t16 = t15 ^ t12;
    let t17 = t4 ^ t14;
    let t18 = t6 ^ t16;
    let t19 = t9 ^ t14;
    let t20 = t11 ^ t16;
    let t21 = t17 ^ y20;
    let t22 = t18 ^ y19;
    let t23 = t19 ^ y21;
    let t24 = t20 ^ y18;
    let t25 = t21 ^ t22;
    let t26 = t21 & t23;
    let t27 = t24 ^ t26;
    let t28 = t25 & t27;
    let t29 = t28 ^ t22;
    let t30 = t23 ^ t24;
    let t31 = t22 ^ t26;
    let t32 = t31 & t30;
    let t33 = t32 ^ t24;
    let t34 = t23 ^ t33;
    let t35 = t27 ^ t33;
    let t36 = t24 & t35;
    let t37 = t36 ^ t34;
    let t38 = t27 ^ t36;
    let t39 = t29 & t38;
    let t40 = t25 ^ t39;
    let t41 = t40 ^ t37;
    let t42 = t29 ^ t33;
    let t43 = t29 ^ t40;
    let t44 = t33 ^ t37;
    let t45 = t42 ^ t41;
    let z0 = t44 & y15;
    let z1 = t37 & y6;
    let z2 = t33 & y0;
    let z3 = t43 & y16;
    let z4 = t40 & y1;
    let z5 = t29 & y7;
    let z6 = t42 & y11;
    let z7 = t45 & y17;
    let z8 = t41 & y10;
    let z9 = t44 & y12;
    let z10 = t37 & y3;
    let z11 = t33 & y4;
    let z12 = t43 & y13;
    let z13 = t40 & y5;
    let z14 = t29 & y2;
    let z15 = t42 & y9;
    let z16 = t45 & y14;
    let z17 = t41 & y8;

    // Out of the field of AES, through `A`.
    let s0 = z6 ^ z10;
    let s1 = z9 ^ z15;
    let s2 = z14 ^ s0;
    let s3 = z13 ^ s2;
    let s4 = z0 ^ z5;
    let s5 = z1 ^ s4;
    let s6 = z17 ^ s1;
    let s7 = z4 ^ s3;
    let s8 = z8 ^ s5;
    let s9 = z11 ^ s7;
    let s10 = z16 ^ s1;
    let s11 = z3 ^ z7;
    let s12 = s8 ^ s10;
    let s13 = z12 ^ z15;
    let s14 = z0 ^ z1;
    let s15 = z4 ^ s12;
    let s16 = s3 ^ s6;
    let s17 = z11 ^ s6;
    let s18 = s8 ^ s9;
    let s19 = s0 ^ s15;
    let s20 = z2 ^ z7;
    let s21 = z10 ^ s12;
    let s22 = s6 ^ s7;
    let s23 = z7 ^ s16;
    let s24 = z13 ^ z16;
    let s25 = s14 ^ s23;
    let s26 = s4 ^ s20;
    let s27 = s11 ^ s21;
    let s28 = s11 ^ s22;
    let s29 = s9 ^ s26;
    let s30 = s13 ^ s24;
    [s27, s18, s28, s17, s19, s25, s29, s30]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The product in SM4's field.
    fn multiply(a: u32, b: u32) -> u32 {
        let product = (0..8).filter(|bit| b >> bit & 1 == 1).fold(0, |sum, bit| sum ^ a << bit);
        (8..15)
            .rev()
            .fold(product, |rest, bit| if rest >> bit & 1 == 1 { rest ^ 0x1f5 << (bit - 8) } else { rest })
    }

    /// `A(x) + 0xd3`: each bit is the parity of the byte under a mask that turns with it.
    fn affine(x: u32) -> u32 {
        (0..8).fold(0xd3, |sum, bit| {
            let mask = u32::from(0xa7_u8.rotate_left(bit));
            sum ^ ((x & mask).count_ones() & 1) << bit
        })
    }

    #[test]
    fn the_circuit_is_the_s_box() {
        // All 256 bytes at once, as bits of four words.
        let mut planes = [[0_u64; 4]; 8];
        for byte in 0..256_usize {
            for (bit, plane) in planes.iter_mut().enumerate() {
                plane[byte / 64] |= ((byte ^ usize::from(INPUT)) as u64 >> bit & 1) << (byte % 64);
            }
        }
        let words: Vec<[u64; 8]> =
            (0..4).map(|word| circuit(std::array::from_fn(|bit| planes[bit][word]))).collect();
        let circuit = |byte: usize| {
            let bits = words[byte / 64].iter().enumerate();
            bits.fold(u64::from(OUTPUT), |sum, (bit, plane)| sum ^ (plane >> (byte % 64) & 1) << bit)
        };
        for byte in 0..256_u32 {
            // The inverse, 0 for 0, is the 254th power.
            let y = affine(byte);
            let inverse = (0..254).fold(1, |power, _| multiply(power, y));
            assert_eq!(circuit(byte as usize), u64::from(affine(inverse)), "S({byte:#x})");
        }
        // The standard's first and last.
        assert_eq!((circuit(0), circuit(255)), (0xd6, 0x48));
    }
}
