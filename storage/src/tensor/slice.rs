//! Slices of tensors as runs of bytes, in ascending order, so that only the blocks that hold them are read.

use std::ops::Range;

use super::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// The runs of a slice; an iterator of byte ranges within the tensor, ascending, none empty, none touching the next.
#[derive(Clone, Debug)]
pub struct Runs {
    // Of the axes outside a run: how far one step goes, the range, and where we are.
    outer: Vec<(u64, Range<u64>, u64)>,
    run_offset: u64,
    run_bytes: u64,
    done: bool,
}

impl Runs {
    /// Bytes of all runs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.done {
            return 0;
        }
        self.outer.iter().map(|(_, range, _)| range.end - range.start).product::<u64>() * self.run_bytes
    }
}

/// The runs of `ranges`, one range for each of the first axes of `shape`; axes without one are taken whole.
///
/// # Errors
/// `Misuse` for more ranges than axes, a range outside its axis, or elements of less than a byte that a range cuts.
pub fn runs(dtype: Dtype, shape: &[u64], ranges: &[Range<u64>]) -> Result<Runs> {
    let misuse = |why: String| Error::new(ErrorKind::Misuse, "slice", why);
    if ranges.len() > shape.len() {
        return Err(misuse(format!(
            "{} ranges for a shape of {} axes: {shape:?}",
            ranges.len(),
            shape.len()
        )));
    }
    for (axis, (range, length)) in ranges.iter().zip(shape).enumerate() {
        if range.start > range.end || range.end > *length {
            return Err(misuse(format!("{range:?} on axis {axis}, which has {length}")));
        }
    }
    if shape.iter().zip(ranges).any(|(_, range)| range.is_empty()) || shape.contains(&0) {
        // Nothing; and the other lengths may be so large that no product of theirs fits.
        return Ok(Runs { outer: Vec::new(), run_offset: 0, run_bytes: 0, done: true });
    }
    let range_of = |axis: usize| ranges.get(axis).cloned().unwrap_or(0..shape[axis]);
    let whole = |axis: usize| range_of(axis) == (0..shape[axis]);
    // A run spans the innermost axes that are taken whole, and a range of the one before them.
    let inner = (0..shape.len()).rev().find(|axis| !whole(*axis)).unwrap_or(0);
    let bits_below = |axis: usize| shape[axis + 1..].iter().product::<u64>() * dtype.bits();
    if shape.is_empty() {
        return Ok(Runs { outer: Vec::new(), run_offset: 0, run_bytes: dtype.bits() / 8, done: false });
    }
    let (step, cut) = (bits_below(inner), range_of(inner));
    let aligned = [step * cut.start, step * (cut.end - cut.start)].iter().all(|bits| bits % 8 == 0)
        && (0..inner).all(|axis| bits_below(axis) % 8 == 0);
    if !aligned {
        return Err(misuse(format!("{ranges:?} of {dtype} {shape:?} does not begin and end at whole bytes")));
    }
    let outer = (0..inner).map(|axis| (bits_below(axis) / 8, range_of(axis), range_of(axis).start)).collect();
    Ok(Runs {
        outer,
        run_offset: step * cut.start / 8,
        run_bytes: step * (cut.end - cut.start) / 8,
        done: false,
    })
}

impl Iterator for Runs {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        if self.done {
            return None;
        }
        let start: u64 = self.outer.iter().map(|(step, _, at)| step * at).sum::<u64>() + self.run_offset;
        self.done = true;
        for (_, range, at) in self.outer.iter_mut().rev() {
            *at += 1;
            if *at < range.end {
                self.done = false;
                break;
            }
            *at = range.start;
        }
        Some(start..start + self.run_bytes)
    }
}
