//! Cross-entropy of logits against class numbers, in FP32.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::lane::{Lane, dims, exp, fill, matrix};

/// Rows per task.
const ROWS: usize = 64;

/// The class of each row.
fn classes<'a>(targets: &'a FlexTensor, logits: [usize; 2]) -> Vec<usize> {
    let [rows, columns] = logits;
    let targets: &'a [i32] = targets.storage::<i32>();
    assert!(targets.len() == rows, "{} targets for {rows} rows of logits", targets.len());
    let class = |&target: &i32| usize::try_from(target).ok().filter(|&class| class < columns);
    targets.iter().map(|t| class(t).unwrap_or_else(|| panic!("target {t} with {columns} classes"))).collect()
}

/// One over the number of rows.
fn share(rows: usize) -> f64 {
    u32::try_from(rows).map_or_else(|_| panic!("{rows} rows in a batch"), |rows| 1.0 / f64::from(rows))
}

/// The largest value of a row in FP32, and the row's sum of exponentials below it.
fn softmax_terms<E: Lane>(row: &[E], wide: &mut [f32]) -> (f32, f32) {
    for (wide, x) in wide.iter_mut().zip(row) {
        *wide = x.widen();
    }
    // `f32::max` drops NaN; the sum below brings it back.
    let max = wide.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0.0f32; 8];
    for part in wide.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane += exp(x - max);
        }
    }
    (max, lanes.iter().sum())
}

pub(super) fn forward<E: Lane>(logits: &FlexTensor, targets: &FlexTensor) -> FlexTensor {
    let [rows, columns] = dims(logits);
    let classes = classes(targets, [rows, columns]);
    let partials: Vec<f64> = E::view(logits)
        .par_chunks(ROWS * columns)
        .zip(classes.par_chunks(ROWS))
        .map(|(logits, classes)| {
            let mut wide = vec![0.0f32; columns];
            let loss = |(row, &class): (&[E], &usize)| {
                let (max, sum) = softmax_terms(row, &mut wide);
                f64::from(max + sum.ln() - row[class].widen())
            };
            logits.chunks_exact(columns).zip(classes).map(loss).sum()
        })
        .collect();
    let mean = partials.iter().sum::<f64>() * share(rows);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the loss is an FP32 number; FP64 only carried the sum"
    )]
    let mean = mean as f32;
    matrix(vec![mean], [1, 1])
}

pub(super) fn backward<E: Lane>(logits: &FlexTensor, targets: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let [rows, columns] = dims(logits);
    let classes = classes(targets, [rows, columns]);
    let from = E::view(logits);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounds the scaled gradient to the FP32 it is used in"
    )]
    let factor = (f64::from(grad.storage::<f32>()[0]) * share(rows)) as f32;
    fill([rows, columns], ROWS * columns, |start, part: &mut [E]| {
        let mut wide = vec![0.0f32; columns];
        let from = from[start..start + part.len()].chunks_exact(columns);
        for ((out, row), &class) in part.chunks_exact_mut(columns).zip(from).zip(&classes[start / columns..])
        {
            let (max, sum) = softmax_terms(row, &mut wide);
            let inverse = sum.recip();
            wide.iter_mut().for_each(|x| *x = exp(*x - max) * inverse);
            wide[class] -= 1.0;
            for (out, x) in out.iter_mut().zip(&wide) {
                *out = E::narrow(x * factor);
            }
        }
    })
}
