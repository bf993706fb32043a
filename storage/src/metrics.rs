//! What the store counts. The names in [`Snapshot`] are the only names these numbers have anywhere: reports, JSON,
//! documentation ([`names::METRICS`] lists them all, docs/reference/metrics.md explains them).
//!
//! Each is a relaxed atomic, so that counting costs next to nothing; hits of L1 are counted by each thread apart.

mod histogram;
mod io;
pub mod names;
mod striped;

pub use histogram::{Histogram, Latency};
pub(crate) use io::IoCounted;
pub use io::{EngineName, IoCounters, IoSnapshot};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use striped::Striped;

/// One hit of L1 in this many is timed: reading the clock takes as long as the hit.
const L1_SAMPLING: u64 = 64;

/// A tier, as reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TierName {
    /// Memory.
    L1,
    /// NVMe.
    L2,
    /// HDD or object store.
    L3,
}

#[derive(Debug, Default)]
struct TierCounters {
    hits: Striped,
    latency: Histogram,
}

/// Counters of one store.
#[derive(Debug, Default)]
pub struct Metrics {
    tiers: [TierCounters; 3],
    demand_waits: AtomicU64,
    demand_wait: Histogram,
    open_bytes: AtomicU64,
    open_nanos: AtomicU64,
    l2_admitted_bytes: AtomicU64,
    l2_dropped_blocks: AtomicU64,
    l2_healed_blocks: AtomicU64,
    read_errors: AtomicU64,
    drained_objects: AtomicU64,
    drained_bytes: AtomicU64,
}

/// Hits, bytes and latency of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierSnapshot {
    /// L1: reads answered from memory at once. L2, L3: blocks read from the device, ahead of need or on demand.
    pub hits: u64,
    /// L1: plain bytes delivered by those reads. L2, L3: stored bytes read.
    pub bytes: u64,
    /// L1: finding the block, one hit in 64. L2, L3: from asking for a block until its bytes are there, queue included.
    #[serde(default)]
    pub latency: Latency,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Memory.
    pub l1: TierSnapshot,
    /// NVMe.
    pub l2: TierSnapshot,
    /// HDD or object store.
    pub l3: TierSnapshot,
    /// Reads that had to wait for a block.
    pub demand_waits: u64,
    /// How long they waited.
    pub demand_wait: Latency,
    /// Stored bytes authenticated and opened.
    pub open_bytes: u64,
    /// CPU time that took, in nanoseconds, summed over threads.
    pub open_nanos: u64,
    /// Blocks in L1.
    pub l1_blocks: u64,
    /// Memory of the frames that hold them.
    pub l1_committed_bytes: u64,
    /// Bytes of the blocks in them.
    pub l1_used_bytes: u64,
    /// Blocks that left L1 to make room.
    pub l1_evictions: u64,
    /// Blocks on L2.
    pub l2_blocks: u64,
    /// Bytes that the segments of L2 take on its devices.
    pub l2_allocated_bytes: u64,
    /// Stored bytes written to L2.
    pub l2_admitted_bytes: u64,
    /// Stored bytes not written to L2 because of its write rate.
    pub l2_throttled_bytes: u64,
    /// Blocks found damaged or unreadable on L2, dropped and read from L3 instead.
    pub l2_dropped_blocks: u64,
    /// Of those, blocks that were written to L2 again.
    pub l2_healed_blocks: u64,
    /// Reads and writes that devices of L2 failed.
    pub l2_errors: u64,
    /// Devices of L2 that failed too often and are not used any more.
    pub l2_retired_devices: u64,
    /// Reads that a device failed, before retries.
    pub read_errors: u64,
    /// Reads and writes of blocks that are queued or under way.
    pub io_queue_depth: u64,
    /// Bytes that L2 alone has: acknowledged, and not on L3 yet.
    pub dirty_bytes: u64,
    /// Objects that were drained from L2 to L3.
    pub drained_objects: u64,
    /// Bytes of those.
    pub drained_bytes: u64,
    /// What the I/O threads did.
    pub io: IoSnapshot,
}

impl Metrics {
    fn tier(&self, tier: TierName) -> &TierCounters {
        match tier {
            TierName::L1 => &self.tiers[0],
            TierName::L2 => &self.tiers[1],
            TierName::L3 => &self.tiers[2],
        }
    }

    /// Counts a hit of `bytes` on `tier`.
    pub fn hit(&self, tier: TierName, bytes: u64) {
        self.tier(tier).hits.add(bytes);
    }

    /// Counts how long a hit on `tier` took.
    pub fn took(&self, tier: TierName, time: Duration) {
        self.tier(tier).latency.record(time);
    }

    /// Whether the next hit of L1 is one to be timed.
    #[must_use]
    pub fn times_l1(&self) -> bool {
        self.tiers[0].hits.is_due(L1_SAMPLING)
    }

    /// Counts a read that has to wait.
    pub fn demand_wait(&self) {
        self.demand_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long such a read waited.
    pub fn waited(&self, time: Duration) {
        self.demand_wait.record(time);
    }

    /// Counts a block opened.
    pub fn opened(&self, bytes: u64, took: Duration) {
        self.open_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.open_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a block written to L2.
    pub fn admitted(&self, bytes: u64) {
        self.l2_admitted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a block of L2 given up.
    pub fn dropped(&self) {
        self.l2_dropped_blocks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a block of L2 that was given up and written again.
    pub fn healed(&self) {
        self.l2_healed_blocks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a read that a device failed.
    pub fn read_error(&self) {
        self.read_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an object that was drained from L2 to L3.
    pub fn drained(&self, bytes: u64) {
        self.drained_objects.fetch_add(1, Ordering::Relaxed);
        self.drained_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All counters now. What tiers and queues know of themselves is the store's to add.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tier = |tier| {
            let counters = self.tier(tier);
            let (hits, bytes) = counters.hits.sums();
            TierSnapshot { hits, bytes, latency: counters.latency.latency() }
        };
        Snapshot {
            l1: tier(TierName::L1),
            l2: tier(TierName::L2),
            l3: tier(TierName::L3),
            demand_waits: get(&self.demand_waits),
            demand_wait: self.demand_wait.latency(),
            open_bytes: get(&self.open_bytes),
            open_nanos: get(&self.open_nanos),
            l2_admitted_bytes: get(&self.l2_admitted_bytes),
            l2_dropped_blocks: get(&self.l2_dropped_blocks),
            l2_healed_blocks: get(&self.l2_healed_blocks),
            read_errors: get(&self.read_errors),
            drained_objects: get(&self.drained_objects),
            drained_bytes: get(&self.drained_bytes),
            ..Snapshot::default()
        }
    }
}

impl Snapshot {
    /// Gigabytes (1e9) opened per second of one core: decryption, and decompression where there was some.
    #[must_use]
    pub fn open_gbps(&self) -> f64 {
        if self.open_nanos == 0 { 0.0 } else { self.open_bytes as f64 / self.open_nanos as f64 }
    }
}
