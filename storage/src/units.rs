//! Offsets, lengths and alignment, and the conversions between the sizes of memory and of files.

use std::ops::Range;

/// Every boundary of a sealed file and of a buffer is a multiple of this many bytes, so that O_DIRECT works on any
/// device (the largest logical block in use is 4096).
pub const ALIGN_BYTES: usize = 4096;

/// A half-open range of bytes, `start..end`, in a file or a payload.
pub type ByteRange = Range<u64>;

// Files larger than memory addresses are the point of this crate; a 32-bit build would need other types.
const _: () = assert!(usize::BITS == 64, "tierstream needs a 64-bit machine");

/// A file size as a memory size.
#[must_use]
pub fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("usize has 64 bits")
}

/// A memory size as a file size.
#[must_use]
pub fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize has 64 bits")
}

/// `value` rounded up to a multiple of `align`, which is a power of two.
///
/// # Panics
/// When the result does not fit.
#[must_use]
pub fn align_up(value: u64, align: u64) -> u64 {
    debug_assert!(align.is_power_of_two(), "alignment {align} is no power of two");
    value.checked_add(align - 1).expect("a length far below 2^64") & !(align - 1)
}

/// `value` bytes for people: `12.3 MiB`.
#[must_use]
pub fn human_bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = value as f64;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_and_printing() {
        assert_eq!(align_up(0, 4096), 0);
        assert_eq!(align_up(1, 4096), 4096);
        assert_eq!(align_up(4096, 4096), 4096);
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
    }
}
