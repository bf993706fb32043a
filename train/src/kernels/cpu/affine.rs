//! `x weight + bias` and its gradients, a panel of rows at a time.
//!
//! Panels bound the FP32 scratch of a half-precision product: widened as a whole, the operands of one layer would take a
//! quarter of the memory that keeping activations in half precision saves.

use std::ops::Range;

use burn_flex::{Flex, FlexTensor};
use burn_tensor::ops::FloatTensorOps;
use rayon::prelude::*;

use super::lane::{CHUNK, Lane, dims, matrix, rounded, sum_in_order, widened_rows, zeros};

/// Rows per panel: enough for gemm to run at full speed, and a few MiB of scratch.
const PANEL: usize = 512;
/// Rows per task when adding the bias and when summing its gradient.
const ROWS: usize = 64;

fn panels(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(PANEL).map(move |start| start..rows.min(start + PANEL))
}

pub(super) fn forward<E: Lane>(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor) -> FlexTensor {
    let ([rows, _], [_, outputs]) = (dims(x), dims(weight));
    let (weight, bias) = (rounded::<E>(weight), bias.storage::<f32>());
    let mut y = zeros::<E>([rows, outputs]);
    for panel in panels(rows) {
        let product = Flex::float_matmul(widened_rows::<E>(x, panel.clone()), weight.clone());
        let out = &mut y[panel.start * outputs..panel.end * outputs];
        let product = product.storage::<f32>().par_chunks(ROWS * outputs);
        out.par_chunks_mut(ROWS * outputs).zip(product).for_each(|(out, product)| {
            for (out, product) in out.chunks_exact_mut(outputs).zip(product.chunks_exact(outputs)) {
                for ((out, x), bias) in out.iter_mut().zip(product).zip(bias) {
                    *out = E::narrow(x + bias);
                }
            }
        });
    }
    matrix(y, [rows, outputs])
}

/// Gradients of `x` (compute dtype), `weight` and `bias` (FP32).
pub(super) fn backward<E: Lane>(x: &FlexTensor, weight: &FlexTensor, grad: &FlexTensor) -> [FlexTensor; 3] {
    let ([rows, inputs], [_, outputs]) = (dims(x), dims(weight));
    let transposed = rounded::<E>(weight).transpose(0, 1);
    let mut grad_x = zeros::<E>([rows, inputs]);
    let mut grad_weight = zeros::<f32>([inputs, outputs]);
    let mut grad_bias = Vec::new();
    for panel in panels(rows) {
        let grad = widened_rows::<E>(grad, panel.clone());
        grad_bias.extend(column_sums(&grad, outputs));
        let product = Flex::float_matmul(widened_rows::<E>(x, panel.clone()).transpose(0, 1), grad.clone());
        add(&mut grad_weight, product.storage::<f32>());
        let product = Flex::float_matmul(grad, transposed.clone());
        let out = &mut grad_x[panel.start * inputs..panel.end * inputs];
        narrow_into(out, product.storage::<f32>());
    }
    let grad_bias = sum_in_order(&grad_bias, outputs);
    [matrix(grad_x, [rows, inputs]), matrix(grad_weight, [inputs, outputs]), matrix(grad_bias, [1, outputs])]
}

fn add(sum: &mut [f32], x: &[f32]) {
    let parts = sum.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    parts.for_each(|(sum, x)| sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x));
}

fn narrow_into<E: Lane>(out: &mut [E], x: &[f32]) {
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        for (out, x) in out.iter_mut().zip(x) {
            *out = E::narrow(*x);
        }
    });
}

/// One partial sum of the rows per task, in order.
fn column_sums(panel: &FlexTensor, columns: usize) -> Vec<Vec<f32>> {
    let (start, end) = panel.layout().contiguous_offsets().unwrap_or_else(|| panic!("a panel is contiguous"));
    let sum = |part: &[f32]| {
        let mut sum = vec![0.0; columns];
        for row in part.chunks_exact(columns) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
        sum
    };
    panel.storage::<f32>()[start..end].par_chunks(ROWS * columns).map(sum).collect()
}
