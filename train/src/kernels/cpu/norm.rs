//! LayerNorm over rows and its gradients, in FP32 with the normalised rows kept in the compute dtype.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::lane::{Lane, dims, matrix, sum_in_order, zeros};
use crate::kernels::LAYER_NORM_EPSILON;

/// Rows per task.
const ROWS: usize = 64;

/// The number of columns as a divisor. Exact: rows are far shorter than 2^24.
fn count(columns: usize) -> f32 {
    u16::try_from(columns).map_or_else(|_| panic!("{columns} features in a row"), f32::from)
}

/// The output, the normalised rows, and one over each row's standard deviation.
pub(super) fn forward<E: Lane>(x: &FlexTensor, scale: &FlexTensor, shift: &FlexTensor) -> [FlexTensor; 3] {
    let [rows, columns] = dims(x);
    let (scale, shift) = (scale.storage::<f32>(), shift.storage::<f32>());
    let mut y = zeros::<E>([rows, columns]);
    let mut unit = zeros::<E>([rows, columns]);
    let mut inverse_deviation = vec![0.0f32; rows];
    let parts = (
        x.storage::<f32>().par_chunks(ROWS * columns),
        y.par_chunks_mut(ROWS * columns),
        unit.par_chunks_mut(ROWS * columns),
        inverse_deviation.par_chunks_mut(ROWS),
    );
    parts.into_par_iter().for_each(|(x, y, unit, inverse)| {
        let rows =
            x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).zip(unit.chunks_exact_mut(columns));
        for (((x, y), unit), inverse) in rows.zip(inverse) {
            let mean = sum(x.iter().copied()) / count(columns);
            let variance = sum(x.iter().map(|x| (x - mean) * (x - mean))) / count(columns);
            *inverse = (variance + LAYER_NORM_EPSILON).sqrt().recip();
            for ((((y, unit), x), scale), shift) in y.iter_mut().zip(unit).zip(x).zip(scale).zip(shift) {
                let normal = (x - mean) * *inverse;
                *unit = E::narrow(normal);
                *y = E::narrow(normal * scale + shift);
            }
        }
    });
    [matrix(y, [rows, columns]), matrix(unit, [rows, columns]), matrix(inverse_deviation, [rows, 1])]
}

/// Gradients of the input, of `scale` and of `shift`.
pub(super) fn backward<E: Lane>(
    unit: &FlexTensor,
    inverse_deviation: &FlexTensor,
    scale: &FlexTensor,
    grad: &FlexTensor,
) -> [FlexTensor; 3] {
    let [rows, columns] = dims(unit);
    let scale = scale.storage::<f32>();
    let mut grad_x = vec![0.0f32; rows * columns];
    let parts = (
        grad_x.par_chunks_mut(ROWS * columns),
        E::view(unit).par_chunks(ROWS * columns),
        E::view(grad).par_chunks(ROWS * columns),
        inverse_deviation.storage::<f32>().par_chunks(ROWS),
    );
    let partials: (Vec<Vec<f32>>, Vec<Vec<f32>>) = parts
        .into_par_iter()
        .map(|(grad_x, unit, grad, inverse)| {
            let (mut grad_scale, mut grad_shift) = (vec![0.0; columns], vec![0.0; columns]);
            let mut normal = vec![0.0f32; columns];
            let rows = grad_x.chunks_exact_mut(columns).zip(unit.chunks_exact(columns));
            for (((out, unit), grad), inverse) in rows.zip(grad.chunks_exact(columns)).zip(inverse) {
                let sums = grad_scale.iter_mut().zip(&mut grad_shift).zip(out.iter_mut().zip(&mut normal));
                for ((((sum_scale, sum_shift), (out, normal)), (unit, grad)), scale) in
                    sums.zip(unit.iter().zip(grad)).zip(scale)
                {
                    let grad = grad.widen();
                    *normal = unit.widen();
                    *sum_scale += grad * *normal;
                    *sum_shift += grad;
                    *out = grad * scale;
                }
                let along_mean = sum(out.iter().copied()) / count(columns);
                let along_unit = sum(out.iter().zip(&normal).map(|(x, y)| x * y)) / count(columns);
                for (out, normal) in out.iter_mut().zip(&normal) {
                    *out = (*out - along_mean - normal * along_unit) * inverse;
                }
            }
            (grad_scale, grad_shift)
        })
        .unzip();
    let grad_scale = matrix(sum_in_order(&partials.0, columns), [1, columns]);
    let grad_shift = matrix(sum_in_order(&partials.1, columns), [1, columns]);
    [matrix(grad_x, [rows, columns]), grad_scale, grad_shift]
}

/// A sum in eight lanes: an order the compiler may vectorise, which a plain FP32 fold is not.
fn sum(mut values: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 8];
    'all: loop {
        for lane in &mut lanes {
            match values.next() {
                Some(x) => *lane += x,
                None => break 'all,
            }
        }
    }
    lanes.iter().sum()
}
