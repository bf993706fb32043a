//! What the store counts. The names in [`Snapshot`] are the only names these numbers have anywhere: reports, JSON,
//! documentation.

mod io;

pub(crate) use io::IoCounted;
pub use io::{EngineName, IoCounters, IoSnapshot};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    hits: AtomicU64,
    bytes: AtomicU64,
}

/// Counters of one store; each is a relaxed atomic, so that counting costs next to nothing.
#[derive(Debug, Default)]
pub struct Metrics {
    tiers: [TierCounters; 3],
    demand_waits: AtomicU64,
    open_bytes: AtomicU64,
    open_nanos: AtomicU64,
    l2_admitted_bytes: AtomicU64,
    l2_dropped_blocks: AtomicU64,
    l2_healed_blocks: AtomicU64,
    read_errors: AtomicU64,
}

/// Hits and bytes of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierSnapshot {
    /// L1: reads answered from memory at once. L2, L3: blocks read from the device, ahead of need or on demand.
    pub hits: u64,
    /// L1: plain bytes delivered by those reads. L2, L3: stored bytes read.
    pub bytes: u64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Memory.
    pub l1: TierSnapshot,
    /// NVMe.
    pub l2: TierSnapshot,
    /// HDD or object store.
    pub l3: TierSnapshot,
    /// Reads that had to wait for a block.
    pub demand_waits: u64,
    /// Stored bytes authenticated and opened.
    pub open_bytes: u64,
    /// CPU time that took, in nanoseconds, summed over threads.
    pub open_nanos: u64,
    /// Stored bytes written to L2.
    pub l2_admitted_bytes: u64,
    /// Blocks found damaged or unreadable on L2, dropped and read from L3 instead.
    pub l2_dropped_blocks: u64,
    /// Of those, blocks that were written to L2 again.
    pub l2_healed_blocks: u64,
    /// Reads that a device failed, before retries.
    pub read_errors: u64,
    /// What the I/O threads did.
    #[serde(default)]
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
        self.tier(tier).hits.fetch_add(1, Ordering::Relaxed);
        self.tier(tier).bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a read that had to wait.
    pub fn demand_wait(&self) {
        self.demand_waits.fetch_add(1, Ordering::Relaxed);
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

    /// All counters now but those of I/O, which its threads have.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tier = |tier| {
            let counters = self.tier(tier);
            TierSnapshot { hits: get(&counters.hits), bytes: get(&counters.bytes) }
        };
        Snapshot {
            l1: tier(TierName::L1),
            l2: tier(TierName::L2),
            l3: tier(TierName::L3),
            demand_waits: get(&self.demand_waits),
            open_bytes: get(&self.open_bytes),
            open_nanos: get(&self.open_nanos),
            l2_admitted_bytes: get(&self.l2_admitted_bytes),
            l2_dropped_blocks: get(&self.l2_dropped_blocks),
            l2_healed_blocks: get(&self.l2_healed_blocks),
            read_errors: get(&self.read_errors),
            io: IoSnapshot::default(),
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
