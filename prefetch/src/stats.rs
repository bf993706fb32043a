//! What the prefetcher did and how well.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters of a prefetcher at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PrefetchStats {
    /// Blocks asked for ahead of need.
    pub announced_blocks: u64,
    /// Announced reads that the job has made.
    pub consumed_reads: u64,
    /// Blocks that were not there yet when the job needed them.
    pub late_blocks: u64,
    /// How far ahead it looks now, in bytes of L1.
    pub window_bytes: u64,
    /// How far ahead it may look.
    pub budget_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) announced_blocks: AtomicU64,
    pub(crate) consumed_reads: AtomicU64,
    pub(crate) late_blocks: AtomicU64,
    pub(crate) window_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self, budget_bytes: u64) -> PrefetchStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PrefetchStats {
            announced_blocks: get(&self.announced_blocks),
            consumed_reads: get(&self.consumed_reads),
            late_blocks: get(&self.late_blocks),
            window_bytes: get(&self.window_bytes),
            budget_bytes,
        }
    }
}
