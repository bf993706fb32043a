//! GELU, the residual sum and conversions: one pass over memory each.

use burn_flex::FlexTensor;

use super::lane::{CHUNK, Lane, dims, exp, fill, map};
use crate::kernels::reference::{GELU_CUBIC, GELU_SLOPE};

/// `sigmoid(2 u)` of GELU's tanh form, with `u = slope (x + cubic x^3)`.
#[inline(always)]
fn gate(x: f32) -> f32 {
    1.0 / (1.0 + exp(-2.0 * GELU_SLOPE * (x + GELU_CUBIC * x * x * x)))
}

pub(super) fn gelu<E: Lane>(x: &FlexTensor) -> FlexTensor {
    map::<E, E>(x, |x| x * gate(x))
}

pub(super) fn gelu_backward<E: Lane>(x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    zip::<E, E, E>(x, grad, |x, grad| {
        let gate = gate(x);
        let inner = 2.0 * GELU_SLOPE * (1.0 + 3.0 * GELU_CUBIC * x * x);
        grad * (gate + x * gate * (1.0 - gate) * inner)
    })
}

pub(super) fn residual<E: Lane>(stream: &FlexTensor, branch: &FlexTensor) -> FlexTensor {
    zip::<f32, E, f32>(stream, branch, |stream, branch| stream + branch)
}

pub(super) fn convert<E: Lane, F: Lane>(x: &FlexTensor) -> FlexTensor {
    if E::dtype() == F::dtype() {
        return x.clone();
    }
    map::<E, F>(x, |x| x)
}

fn zip<E: Lane, F: Lane, G: Lane>(
    x: &FlexTensor,
    y: &FlexTensor,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> FlexTensor {
    assert!(dims(x) == dims(y), "shapes {:?} and {:?} differ", dims(x), dims(y));
    let (left, right) = (E::view(x), F::view(y));
    fill(dims(x), CHUNK, |start, part: &mut [G]| {
        let range = start..start + part.len();
        for ((out, x), y) in part.iter_mut().zip(&left[range.clone()]).zip(&right[range]) {
            *out = G::narrow(f(x.widen(), y.widen()));
        }
    })
}
