//! Rounding to 16-bit floating point as the kernels do it (`kernels/convert.cu`): to nearest, ties to even.

pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[expect(clippy::cast_possible_truncation, reason = "results have 15 bits")]
pub(super) fn to_fp16(value: f32) -> u16 {
    let (bits, magnitude) = (value.to_bits(), value.to_bits() & 0x7fff_ffff);
    let sign = (bits >> 16) as u16 & 0x8000;
    let rounded = match magnitude {
        0x7f80_0001.. => 0x7e00,
        // From 65520 on, what rounds is no longer finite.
        0x477f_f000.. => 0x7c00,
        0x3880_0000.. => {
            let rebased = magnitude - 0x3800_0000;
            ((rebased + 0xfff + (rebased >> 13 & 1)) >> 13) as u16
        }
        // Half of the smallest subnormal rounds to zero, being even.
        0..=0x3300_0000 => 0,
        _ => {
            let (shift, mantissa) = (126 - (magnitude >> 23), magnitude & 0x7f_ffff | 0x80_0000);
            let (kept, rest, half) = (mantissa >> shift, mantissa & ((1 << shift) - 1), 1 << (shift - 1));
            kept as u16 + u16::from(rest > half || rest == half && kept & 1 == 1)
        }
    };
    sign | rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_round_as_they_should() {
        let cases = [
            (1.0, 0x3c00, 0x3f80),
            (-2.0, 0xc000, 0xc000),
            (65504.0, 0x7bff, 0x4780),
            (65520.0, 0x7c00, 0x4780),
            (5.960_464_5e-8, 0x0001, 0x3380),
            (2.980_232_2e-8, 0x0000, 0x3300),
            (0.333_333_34, 0x3555, 0x3eab),
            (f32::INFINITY, 0x7c00, 0x7f80),
        ];
        for (value, fp16, bf16) in cases {
            assert_eq!((to_fp16(value), to_bf16(value)), (fp16, bf16), "{value}");
        }
        assert!(to_fp16(f32::NAN) & 0x7fff > 0x7c00 && to_bf16(f32::NAN) & 0x7fff > 0x7f80);
    }
}
