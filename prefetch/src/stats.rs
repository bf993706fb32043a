//! What the prefetcher did and how well.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::learned::Outcome;

/// Counters of a prefetcher at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PrefetchStats {
    /// Blocks asked for ahead of need.
    pub announced_blocks: u64,
    /// Announced reads that the job has made.
    pub consumed_reads: u64,
    /// Blocks that were not there yet when the job needed them.
    pub late_blocks: u64,
    /// Blocks fetched ahead because they were likely to be read.
    pub predicted_blocks: u64,
    /// Those that were read: in time, and while on their way.
    pub used_blocks: u64,
    /// See `used_blocks`.
    pub late_predictions: u64,
    /// Those that left memory unread.
    pub unused_blocks: u64,
    /// Blocks that were neither announced nor predicted nor in memory.
    pub missed_blocks: u64,
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
    pub(crate) predicted_blocks: AtomicU64,
    pub(crate) used_blocks: AtomicU64,
    pub(crate) late_predictions: AtomicU64,
    pub(crate) unused_blocks: AtomicU64,
    pub(crate) missed_blocks: AtomicU64,
    pub(crate) window_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Hit => return,
            Outcome::FirstUse => &self.used_blocks,
            Outcome::Late => &self.late_predictions,
            Outcome::Miss => &self.missed_blocks,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, budget_bytes: u64) -> PrefetchStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PrefetchStats {
            announced_blocks: get(&self.announced_blocks),
            consumed_reads: get(&self.consumed_reads),
            late_blocks: get(&self.late_blocks),
            predicted_blocks: get(&self.predicted_blocks),
            used_blocks: get(&self.used_blocks),
            late_predictions: get(&self.late_predictions),
            unused_blocks: get(&self.unused_blocks),
            missed_blocks: get(&self.missed_blocks),
            window_bytes: get(&self.window_bytes),
            budget_bytes,
        }
    }
}
