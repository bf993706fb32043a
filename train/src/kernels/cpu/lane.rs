//! The three compute element types, and the loops that all kernels share.

use std::ops::Range;

use burn_flex::FlexTensor;
use burn_tensor::{DType, Element, Shape, TensorData, bf16, f16};
use rayon::prelude::*;

/// Elements per parallel task of a pointwise loop: 32 KiB to 64 KiB, large against the cost of a task and small
/// against the caches.
pub(super) const CHUNK: usize = 16 * 1024;

/// An element of an activation matrix.
pub(super) trait Lane: Element {
    /// The whole storage of a contiguous tensor of this type.
    fn view(tensor: &FlexTensor) -> &[Self];

    /// The value in FP32, exactly.
    fn widen(self) -> f32;

    /// The nearest value of this type, ties to even. Overflows to infinity.
    fn narrow(value: f32) -> Self;

    /// The nearest value of this type, in FP32.
    fn round(value: f32) -> f32 {
        Self::narrow(value).widen()
    }
}

impl Lane for f32 {
    fn view(tensor: &FlexTensor) -> &[Self] {
        tensor.storage::<Self>()
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Lane for bf16 {
    fn view(tensor: &FlexTensor) -> &[Self] {
        tensor.storage::<Self>()
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// `half`'s own conversion branches on NaN, which keeps the loop from being vectorised.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // Rounding could carry a NaN into infinity: keep its upper half and make it quiet.
        let bits = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
        let [low, high, ..] = (bits >> 16).to_le_bytes();
        Self::from_bits(u16::from_le_bytes([low, high]))
    }
}

impl Lane for f16 {
    fn view(tensor: &FlexTensor) -> &[Self] {
        tensor.storage::<Self>()
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Runs an expression with `E` as the [`Lane`] of a tensor or of a dtype.
macro_rules! by_dtype {
    ($tensor:expr, $E:ident => $body:expr) => {
        by_dtype!($tensor.dtype() => $tensor, $E => $body)
    };
    ($dtype:expr => $name:expr, $E:ident => $body:expr) => {
        match $dtype {
            burn_tensor::DType::F32 => { type $E = f32; $body }
            burn_tensor::DType::BF16 => { type $E = burn_tensor::bf16; $body }
            burn_tensor::DType::F16 => { type $E = burn_tensor::f16; $body }
            other => panic!("compute dtype {other:?} of {:?} is none of f32, bf16, f16", $name),
        }
    };
}
pub(super) use by_dtype;

/// Rows and columns of a matrix.
pub(super) fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    assert!(shape.num_dims() == 2, "expected a matrix, found shape {shape:?}");
    [shape[0], shape[1]]
}

/// A matrix from its elements in row order.
pub(super) fn matrix<E: Lane>(elements: Vec<E>, [rows, columns]: [usize; 2]) -> FlexTensor {
    assert!(elements.len() == rows * columns, "{} elements for {rows} x {columns}", elements.len());
    FlexTensor::from_data(TensorData::new(elements, Shape::new([rows, columns])))
}

/// Elements for a matrix, to be overwritten.
pub(super) fn zeros<E: Lane>([rows, columns]: [usize; 2]) -> Vec<E> {
    vec![E::default(); rows * columns]
}

/// A new matrix, filled in parallel: `f` gets the index of its chunk's first element and the chunk.
///
/// The storage comes zeroed from the allocator, untouched; a `vec![E::default(); n]` of half-precision numbers would be
/// written, and its pages faulted in, by one core.
pub(super) fn fill<E: Lane>(
    dims: [usize; 2],
    chunk: usize,
    f: impl Fn(usize, &mut [E]) + Sync,
) -> FlexTensor {
    let mut out = zeros::<E>(dims);
    out.par_chunks_mut(chunk).enumerate().for_each(|(index, part)| f(index * chunk, part));
    matrix(out, dims)
}

/// `f` of every element, computed in FP32.
pub(super) fn map<E: Lane, F: Lane>(x: &FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let from = E::view(x);
    fill(dims(x), CHUNK, |start, part: &mut [F]| {
        let length = part.len();
        for (out, x) in part.iter_mut().zip(&from[start..start + length]) {
            *out = F::narrow(f(x.widen()));
        }
    })
}

/// Some rows of a matrix in FP32: a view if it is FP32 already, else widened.
pub(super) fn widened_rows<E: Lane>(x: &FlexTensor, rows: Range<usize>) -> FlexTensor {
    if E::dtype() == DType::F32 {
        return x.narrow(0, rows.start, rows.len());
    }
    let [_, columns] = dims(x);
    let from = &E::view(x)[rows.start * columns..rows.end * columns];
    fill([rows.len(), columns], CHUNK, |start, part: &mut [f32]| {
        let length = part.len();
        for (out, x) in part.iter_mut().zip(&from[start..start + length]) {
            *out = x.widen();
        }
    })
}

/// The FP32 matrix with every value rounded to `E` but still FP32: shared if `E` is FP32.
pub(super) fn rounded<E: Lane>(x: &FlexTensor) -> FlexTensor {
    if E::dtype() == DType::F32 { x.clone() } else { map::<f32, f32>(x, E::round) }
}

/// Sums partial rows in order, which makes the sum independent of how many threads computed them.
pub(super) fn sum_in_order(partials: &[Vec<f32>], columns: usize) -> Vec<f32> {
    let mut sum = vec![0.0; columns];
    for partial in partials {
        for (sum, x) in sum.iter_mut().zip(partial) {
            *sum += x;
        }
    }
    sum
}

/// `e^x` within 2 units in the last place for `x` in [-87, 88]; outside it is clamped.
///
/// The C library's `expf` is one call per element; this is straight-line code that the compiler vectorises, and
/// the exponentials of softmax and GELU were a third of a step without it.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const SHIFT: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let rest = x - whole * LN2_HIGH - whole * LN2_LOW;
    // Cephes expf: minimax polynomial on [-ln 2 / 2, ln 2 / 2].
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * rest + coefficient;
    }
    let p = p * rest * rest + rest + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_c_library() {
        let mut worst = 0.0f64;
        for step in 0..=2_000_000u32 {
            let x = -87.0 + 175.0 * f64::from(step) / 2_000_000.0;
            #[expect(clippy::cast_possible_truncation, reason = "the nearest FP32 input is what is tested")]
            let x = x as f32;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.4e-7, "worst relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), exp(-87.0));
    }

    #[test]
    fn bf16_rounds_as_half_does() {
        let specials = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45];
        let mut state = 7u32;
        let random = (0..1_000_000).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            f32::from_bits(state)
        });
        for x in specials.into_iter().chain(random) {
            let (ours, theirs) = (<bf16 as Lane>::narrow(x), bf16::from_f32(x));
            if x.is_nan() {
                assert!(ours.is_nan(), "{:08x}", x.to_bits());
            } else {
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{:08x}", x.to_bits());
                assert_eq!(Lane::widen(ours).to_bits(), ours.to_f32().to_bits());
            }
        }
    }
}
