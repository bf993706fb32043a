//! The basis in which AES's field inversion computes SM4's S-box, derived at compile time.
//!
//! SM4's S-box is `S(x) = A(1 / (A(x) + c)) + c` over GF(2^8) modulo SM4's polynomial. Instructions invert modulo
//! AES's polynomial. An isomorphism `f` between the fields makes these the same: with a state byte kept as
//! `y = f(A(x))`, the input of the inversion is `y` plus the round key in this form, and everything after it is one
//! affine map. So kernels change the basis once per block at each end, and never in a round.
//!
//! Guarantees only algebra; the tests of the kernels show that it is SM4's. Knows no instruction but the bit order
//! of GFNI's matrices.

/// A linear map of bytes: the images of `1 << 0` to `1 << 7`.
pub(super) type Linear = [u8; 8];

/// An affine map of bytes.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) linear: Linear,
    pub(super) constant: u8,
}

/// AES's polynomial.
const AES: u32 = 0x11b;
/// SM4's polynomial.
const SM4: u32 = 0x1f5;
/// SM4's constant `c`.
const C: u8 = 0xd3;
/// SM4's matrix `A`: bit `i` of the image is the parity of the byte under `0xa7` turned left by `i`.
const A: Linear = {
    let mut map = [0; 8];
    let mut bit = 0;
    while bit < 8 {
        let mut row = 0;
        while row < 8 {
            map[bit] |= (0xa7_u8.rotate_left(row) >> bit & 1) << row;
            row += 1;
        }
        bit += 1;
    }
    map
};
/// The isomorphism of SM4's field to AES's by the first root. All eight roots would do, as the test shows.
const F: Linear = {
    let mut root = 2;
    while !is_root(root) {
        root += 1;
    }
    embed(root)
};

/// The isomorphism of SM4's field to AES's that takes `x` to a root of SM4's polynomial.
const fn embed(root: u8) -> Linear {
    let mut map = [1; 8];
    let mut power = 1;
    while power < 8 {
        map[power] = multiply(map[power - 1], root);
        power += 1;
    }
    map
}

/// Into the basis of the state: `y = f(A(x))`.
pub(super) const TO_STATE: Linear = compose(F, A);
/// Out of it.
pub(super) const FROM_STATE: Linear = invert(TO_STATE);
/// What a round key byte gains on top of [`TO_STATE`]: `f(c)`.
pub(super) const ROUND_KEY: u8 = apply(F, C);
/// From the inverse in AES's field to the S-box's output.
const AFTER_INVERSE: Affine = Affine { linear: compose(A, invert(F)), constant: C };
/// The first image of the linear layer, in the state's basis: `s + (s >> 6)` of the S-box's output `s`.
pub(super) const IMAGE: Affine = image([1, 2, 4, 8, 16, 32, 64 ^ 1, 128 ^ 2]);
/// The second: `s + (s << 2)`.
pub(super) const CARRIED: Affine = image([1 ^ 4, 2 ^ 8, 4 ^ 16, 8 ^ 32, 16 ^ 64, 32 ^ 128, 64, 128]);

/// `layer` of the S-box's output, from the inverse and in the state's basis.
const fn image(layer: Linear) -> Affine {
    let map = compose(TO_STATE, layer);
    Affine { linear: compose(map, AFTER_INVERSE.linear), constant: apply(map, AFTER_INVERSE.constant) }
}

/// AES's affine map, which SubBytes applies to the inverse.
pub(super) const SUB_BYTES: Affine =
    Affine { linear: [0x1f, 0x3e, 0x7c, 0xf8, 0xf1, 0xe3, 0xc7, 0x8f], constant: 0x63 };

/// The map that takes the output of SubBytes to what `after_inverse` makes of the inverse.
pub(super) const fn after_sub_bytes(after_inverse: Affine) -> Affine {
    let linear = compose(after_inverse.linear, invert(SUB_BYTES.linear));
    Affine { linear, constant: after_inverse.constant ^ apply(linear, SUB_BYTES.constant) }
}

/// The map as GFNI's instructions take it: the row of the highest bit is the lowest byte.
pub(super) const fn matrix(map: Linear) -> i64 {
    let mut matrix = 0;
    let mut row = 0;
    while row < 8 {
        let mut column = 0;
        while column < 8 {
            matrix |= ((map[column] >> row & 1) as u64) << (8 * (7 - row) + column);
            column += 1;
        }
        row += 1;
    }
    matrix.cast_signed()
}

/// The map's values of the sixteen low nibbles, constant included, and of the sixteen high ones.
pub(super) const fn nibbles(map: Affine) -> [[u8; 16]; 2] {
    let mut tables = [[0; 16]; 2];
    let mut nibble = 0;
    while nibble < 16 {
        tables[0][nibble as usize] = apply(map.linear, nibble) ^ map.constant;
        tables[1][nibble as usize] = apply(map.linear, nibble << 4);
        nibble += 1;
    }
    tables
}

/// The image of a byte, by the same steps for every byte: round keys pass here.
pub(super) const fn apply(map: Linear, byte: u8) -> u8 {
    let (mut image, mut bit) = (0, 0);
    while bit < 8 {
        image ^= map[bit] & 0_u8.wrapping_sub(byte >> bit & 1);
        bit += 1;
    }
    image
}

/// First `inner`, then `outer`.
const fn compose(outer: Linear, inner: Linear) -> Linear {
    let mut map = [0; 8];
    let mut bit = 0;
    while bit < 8 {
        map[bit] = apply(outer, inner[bit]);
        bit += 1;
    }
    map
}

const fn invert(map: Linear) -> Linear {
    let mut inverse = [0; 8];
    let mut byte = u8::MAX;
    while byte > 0 {
        let image = apply(map, byte);
        if image.is_power_of_two() {
            inverse[image.trailing_zeros() as usize] = byte;
        }
        byte -= 1;
    }
    inverse
}

/// The product in AES's field.
const fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut bit) = (0_u32, 0);
    while bit < 8 {
        if b >> bit & 1 == 1 {
            product ^= (a as u32) << bit;
        }
        bit += 1;
    }
    let mut degree = 14;
    while degree >= 8 {
        if product >> degree & 1 == 1 {
            product ^= AES << (degree - 8);
        }
        degree -= 1;
    }
    product.to_le_bytes()[0]
}

/// Whether SM4's polynomial is zero at `x` in AES's field.
const fn is_root(x: u8) -> bool {
    let (mut sum, mut power, mut degree) = (0, 1, 0);
    while degree <= 8 {
        if SM4 >> degree & 1 == 1 {
            sum ^= power;
        }
        power = multiply(power, x);
        degree += 1;
    }
    sum == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_eight_roots_gives_the_s_box() {
        // The standard's first row, and the last entry.
        let row =
            [0xd6, 0x90, 0xe9, 0xfe, 0xcc, 0xe1, 0x3d, 0xb7, 0x16, 0xb6, 0x14, 0xc2, 0x28, 0xfb, 0x2c, 0x05];
        let entries = (0..=15).zip(row).chain([(255, 0x48)]);
        let inverse = |x| (1..=255).find(|y| multiply(x, *y) == 1).unwrap_or(0);
        let roots: Vec<u8> = (0..=255).filter(|x| is_root(*x)).collect();
        assert_eq!(roots.len(), 8);
        assert_eq!(embed(roots[0]), F);
        for root in roots {
            let f = embed(root);
            for (x, s) in entries.clone() {
                let inverted = inverse(apply(compose(f, A), x) ^ apply(f, C));
                assert_eq!(apply(compose(A, invert(f)), inverted) ^ C, s, "root {root:#x}, S({x})");
            }
        }
    }
}
