//! Where tensors lie in a payload: aligned for vector loads, and within one block where that costs little.

use std::ops::Range;

use crate::units::align_up;

/// Every tensor starts at a multiple of this many bytes in the payload, and so in memory: a block holds a multiple of
/// it.
pub const ALIGN: u64 = 64;
/// A tensor is moved to the next block for a padding of up to this part of a block.
const PADDING_PART: u64 = 8;

/// The places of tensors of these lengths, in order, in blocks that hold `capacity` bytes: each at the next multiple of
/// [`ALIGN`], or at the start of the next block if it would else lie in two, fits one, and the padding is at most an
/// eighth of a block. So every tensor of up to an eighth of a block lies in one, and padding costs at most an eighth.
pub(super) fn places(lengths: impl Iterator<Item = u64>, capacity: u64) -> Vec<Range<u64>> {
    let mut end = 0;
    lengths
        .map(|length| {
            let mut start = align_up(end, ALIGN);
            let left = capacity - start % capacity;
            if length > left && length <= capacity && left <= capacity / PADDING_PART {
                start += left;
            }
            end = start.saturating_add(length);
            start..end
        })
        .collect()
}
