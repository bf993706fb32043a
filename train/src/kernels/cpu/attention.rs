//! Causal attention in blocks of queries, and its gradient with the scores computed again.
//!
//! A block of queries sees only the keys up to its own last row, so about half of the score matrix is never formed and
//! the largest thing in memory is `QUERIES * context` numbers per core. Sequences are the parallel unit.

use std::ops::Range;

use burn_flex::{Flex, FlexTensor};
use burn_tensor::ops::FloatTensorOps;
use rayon::prelude::*;

use super::lane::{Lane, dims, exp, matrix, zeros};
use crate::kernels::AttentionShape;
use crate::kernels::reference::attention_scale;

/// Queries per block: wide enough for gemm, narrow enough to skip most of the future.
const QUERIES: usize = 64;

/// The FP32 queries, keys and values of one sequence: `[context, 3 d]`.
struct Sequence {
    qkv: FlexTensor,
    context: usize,
    width: usize,
    head: usize,
}

impl Sequence {
    fn new<E: Lane>(qkv: &[E], shape: AttentionShape) -> Self {
        let width = qkv.len() / (3 * shape.context);
        let wide = qkv.iter().map(|x| x.widen()).collect();
        let qkv = matrix(wide, [shape.context, 3 * width]);
        Self { qkv, context: shape.context, width, head: width / shape.heads }
    }

    /// Columns of one head's queries (part 0), keys (1) or values (2).
    fn columns(&self, part: usize, head: usize) -> Range<usize> {
        let start = part * self.width + head * self.head;
        start..start + self.head
    }

    /// Some rows of one head's part, as a view.
    fn part(&self, part: usize, head: usize, rows: Range<usize>) -> FlexTensor {
        view(&self.qkv, rows, self.columns(part, head))
    }

    /// Softmax of the scores of some queries against all keys up to the last of them, FP32: `[rows, rows.end]`.
    fn probabilities(&self, head: usize, rows: Range<usize>) -> FlexTensor {
        let keys = self.part(1, head, 0..rows.end).transpose(0, 1);
        let mut scores = Flex::float_matmul(self.part(0, head, rows.clone()), keys);
        let scale = attention_scale(self.head);
        for (row, query) in scores.storage_mut::<f32>().chunks_exact_mut(rows.end).zip(rows) {
            let (seen, future) = row.split_at_mut(query + 1);
            softmax(seen, scale);
            future.fill(0.0);
        }
        scores
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let context = self.context;
        (0..context).step_by(QUERIES).map(move |start| start..context.min(start + QUERIES))
    }
}

fn view(x: &FlexTensor, rows: Range<usize>, columns: Range<usize>) -> FlexTensor {
    x.narrow(0, rows.start, rows.len()).narrow(1, columns.start, columns.len())
}

/// `softmax(scale * row)` in place. NaN anywhere makes all of it NaN.
fn softmax(row: &mut [f32], scale: f32) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0.0f32; 8];
    for part in row.chunks_mut(8) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *x = exp((*x - max) * scale);
            *lane += *x;
        }
    }
    let inverse = lanes.iter().sum::<f32>().recip();
    row.iter_mut().for_each(|x| *x *= inverse);
}

/// Rounds to what a product in the compute dtype would read.
fn round_in_place<E: Lane>(x: &mut FlexTensor) {
    x.storage_mut::<f32>().iter_mut().for_each(|x| *x = E::round(*x));
}

pub(super) fn forward<E: Lane>(qkv: &FlexTensor, shape: AttentionShape) -> FlexTensor {
    let [rows, columns] = dims(qkv);
    let width = columns / 3;
    let mut out = zeros::<E>([rows, width]);
    let sequences = E::view(qkv).par_chunks(shape.context * columns);
    let outputs = out.par_chunks_mut(shape.context * width);
    sequences.zip(outputs).for_each(|(qkv, out)| {
        let sequence = Sequence::new(qkv, shape);
        for head in 0..shape.heads {
            let columns = sequence.columns(0, head);
            for block in sequence.blocks() {
                let mut probability = sequence.probabilities(head, block.clone());
                round_in_place::<E>(&mut probability);
                let y = Flex::float_matmul(probability, sequence.part(2, head, 0..block.end));
                let y = y.storage::<f32>().chunks_exact(sequence.head);
                for (out, y) in out[block.start * width..].chunks_exact_mut(width).zip(y) {
                    for (out, y) in out[columns.clone()].iter_mut().zip(y) {
                        *out = E::narrow(*y);
                    }
                }
            }
        }
    });
    matrix(out, [rows, width])
}

pub(super) fn backward<E: Lane>(qkv: &FlexTensor, shape: AttentionShape, grad: &FlexTensor) -> FlexTensor {
    let [rows, columns] = dims(qkv);
    let width = columns / 3;
    let mut out = zeros::<E>([rows, columns]);
    let sequences = E::view(qkv).par_chunks(shape.context * columns);
    let grads = E::view(grad).par_chunks(shape.context * width);
    let outputs = out.par_chunks_mut(shape.context * columns);
    sequences.zip(grads).zip(outputs).for_each(|((qkv, grad), out)| {
        let sequence = Sequence::new(qkv, shape);
        let grad = matrix(grad.iter().map(|x| x.widen()).collect::<Vec<f32>>(), [shape.context, width]);
        let mut sum = vec![0.0f32; out.len()];
        for head in 0..shape.heads {
            for block in sequence.blocks() {
                backward_block::<E>(&sequence, &grad, head, block, &mut sum);
            }
        }
        for (out, x) in out.iter_mut().zip(&sum) {
            *out = E::narrow(*x);
        }
    });
    matrix(out, [rows, columns])
}

/// Adds what one block of queries contributes to the gradient of its sequence, `[context, 3 d]`.
fn backward_block<E: Lane>(
    sequence: &Sequence,
    grad: &FlexTensor,
    head: usize,
    block: Range<usize>,
    sum: &mut [f32],
) {
    let seen = 0..block.end;
    let mut probability = sequence.probabilities(head, block.clone());
    let grad = view(grad, block.clone(), sequence.columns(0, head));
    let values = sequence.part(2, head, seen.clone()).transpose(0, 1);
    let mut grad_score = Flex::float_matmul(grad.clone(), values);
    softmax_backward::<E>(&mut grad_score, &probability, attention_scale(sequence.head));
    round_in_place::<E>(&mut probability);

    let mut add = |part: usize, rows: Range<usize>, x: FlexTensor| {
        let columns = sequence.columns(part, head);
        let width = 3 * sequence.width;
        let target = sum[rows.start * width..rows.end * width].chunks_exact_mut(width);
        for (target, x) in target.zip(x.storage::<f32>().chunks_exact(sequence.head)) {
            for (target, x) in target[columns.clone()].iter_mut().zip(x) {
                *target += x;
            }
        }
    };
    add(2, seen.clone(), Flex::float_matmul(probability.transpose(0, 1), grad));
    let queries = sequence.part(0, head, block.clone());
    add(1, seen.clone(), Flex::float_matmul(grad_score.transpose(0, 1), queries));
    add(0, block, Flex::float_matmul(grad_score, sequence.part(1, head, seen)));
}

/// From the gradient of the probabilities to that of the unscaled scores, in place.
fn softmax_backward<E: Lane>(grad: &mut FlexTensor, probability: &FlexTensor, scale: f32) {
    let [_, columns] = dims(grad);
    let rows = grad.storage_mut::<f32>().chunks_exact_mut(columns);
    for (grad, probability) in rows.zip(probability.storage::<f32>().chunks_exact(columns)) {
        let mut lanes = [0.0f32; 8];
        for (grad, probability) in grad.chunks(8).zip(probability.chunks(8)) {
            for (lane, (g, p)) in lanes.iter_mut().zip(grad.iter().zip(probability)) {
                *lane += g * p;
            }
        }
        let along: f32 = lanes.iter().sum();
        for (g, p) in grad.iter_mut().zip(probability) {
            *g = E::round((*g - along) * p * scale);
        }
    }
}
