//! The three tiers: memory, NVMe, and the home of all data below them.
//!
//! A read tier is a cache: losing it costs time, never data. L1 holds opened blocks, L2 the same sealed bytes as L3.

mod drain;
mod eviction;
mod file_table;
mod frames;
mod index;
mod inflight;
mod journal;
mod l2_device;
mod memory;
mod nvme;
mod packed;
mod packs;
mod place;
mod restore;
mod table;
mod write_rate;

pub use drain::{Admission, Ledger};
pub use eviction::{Auto, EvictionMode, EvictionPolicy, Lirs, Lru, Pin, Residents, S3Fifo};
pub use file_table::{FileNo, FileTable};
pub use frames::{Blank, BlockRef};
pub use inflight::{Flight, Ticket};
pub use l2_device::{L2Config, L2DeviceReport};
pub use memory::{L1Usage, Lookup, MemoryTier};
pub use nvme::{L2Block, NvmeTier, Reservation, SealedPlace};
pub use restore::{L2Summary, l2_summary};
pub use write_rate::{Throttle, WriteRate};

/// Names a block of a sealed file while the store is open: 8 bytes, cheap to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey {
    /// The file.
    pub file: FileNo,
    /// The block's number in the file's payload.
    pub block: u32,
}

impl BlockKey {
    /// The key as a number, for tables and request tags.
    #[must_use]
    pub fn tag(self) -> u64 {
        (u64::from(self.file.0) << 32) | u64::from(self.block)
    }

    /// The key that gave this number.
    pub(crate) fn of_tag(tag: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
        Self { file: FileNo(low(tag >> 32)), block: low(tag) }
    }
}
