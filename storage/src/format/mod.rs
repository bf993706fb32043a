//! The bytes of a sealed file, as docs/specs/format.md says: parsing and writing, with every limit checked.
//!
//! Knows no keys: what is parsed here is hostile until [`crate::codec`] has authenticated it. Parsers neither panic nor
//! allocate by a length they read.

mod fields;
mod header;
mod index;
mod manifest;
mod slots;
mod trailer;

pub use header::{FileId, HEADER_BYTES, Header, Kind, PROLOGUE_BYTES, SealParams};
pub use index::{INDEX_HEAD_BYTES, Index, SectionType};
pub use manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, ShardEntry};
pub use slots::{WRAP_SLOTS, WrapSlot, put_wrap, wrap_slots};
pub use trailer::{BlockKind, Coding, TRAILER_BYTES, Trailer};

use crate::units::{ALIGN_BYTES, align_up, to_u64};

/// Smallest stored length of a full block.
pub const BLOCK_BYTES_MIN: u32 = 4096;
/// Largest stored length of a full block.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// Most payload in one file, far below GCM's limits for one key.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 30;

/// Longest dictionary. zstd's own default is 110 KiB; more than a few times that is never worth its memory.
pub const DICTIONARY_BYTES_MAX: u64 = 1 << 20;

/// Payload bytes that fit a block of `block_bytes` stored bytes.
#[must_use]
pub fn capacity(block_bytes: u32) -> u64 {
    u64::from(block_bytes) - to_u64(TRAILER_BYTES)
}

/// Blocks of `block_bytes` that `bytes` of payload take.
#[must_use]
pub fn block_count(bytes: u64, block_bytes: u32) -> u64 {
    bytes.div_ceil(capacity(block_bytes))
}

/// Payload bytes in block `number` of a payload of `bytes`.
#[must_use]
pub fn plain_bytes(bytes: u64, block_bytes: u32, number: u64) -> u64 {
    let capacity = capacity(block_bytes);
    bytes.saturating_sub(number.saturating_mul(capacity)).min(capacity)
}

/// Stored length of a block whose body must hold `coded` bytes.
#[must_use]
pub fn stored_bytes(coded: u64) -> u64 {
    align_up(coded + to_u64(TRAILER_BYTES), to_u64(ALIGN_BYTES))
}

/// Stored length of `bytes` in raw blocks: all full but the last.
#[must_use]
pub fn raw_stored_bytes(bytes: u64, block_bytes: u32) -> u64 {
    match block_count(bytes, block_bytes) {
        0 => 0,
        count => {
            let last = plain_bytes(bytes, block_bytes, count - 1);
            (count - 1) * u64::from(block_bytes) + stored_bytes(last)
        }
    }
}

#[cfg(test)]
mod tests;
