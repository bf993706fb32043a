//! Latencies in buckets: high dynamic range in little memory, recorded with one atomic increment.
//!
//! Sixteen buckets per power of two, from nanoseconds to hours: a quantile is off by at most one part in sixteen, which
//! no report of a latency needs to be better than, and 6 KiB hold it whatever was recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{to_u64, to_usize};

const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// Up to 2^44 ns, almost five hours; longer ones are counted there.
const EXPONENTS: usize = 44;
const BUCKETS: usize = (EXPONENTS - SUB_BITS as usize + 1) * SUB;

/// Counts of latencies.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    max_nanos: AtomicU64,
}

/// Quantiles of latencies at one moment, in nanoseconds; zeros when there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Half of them took at most this long.
    pub p50_ns: u64,
    /// 99 of a hundred.
    pub p99_ns: u64,
    /// 999 of a thousand.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), max_nanos: AtomicU64::new(0) }
    }
}

fn bucket_of(nanos: u64) -> usize {
    if nanos < to_u64(SUB) {
        return to_usize(nanos);
    }
    let exponent = 63 - nanos.leading_zeros();
    let sub = to_usize(nanos >> (exponent - SUB_BITS)) - SUB;
    let octave = to_usize(u64::from(exponent - SUB_BITS)) + 1;
    (octave * SUB + sub).min(BUCKETS - 1)
}

/// The largest value that falls into a bucket.
fn top_of(bucket: usize) -> u64 {
    let (octave, sub) = (bucket / SUB, to_u64(bucket % SUB));
    if octave == 0 {
        return sub;
    }
    let shift = octave - 1;
    ((to_u64(SUB) + sub + 1) << shift) - 1
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)].fetch_add(1, Ordering::Relaxed);
        // Rarely a new record: a load does not take the cache line from other threads.
        if nanos > self.max_nanos.load(Ordering::Relaxed) {
            self.max_nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// Quantiles of what was counted.
    #[must_use]
    pub fn latency(&self) -> Latency {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max_ns = self.max_nanos.load(Ordering::Relaxed);
        let quantile = |per_mille: u64| {
            let rank = (count * per_mille).div_ceil(1000).max(1);
            let mut seen = 0;
            let bucket = counts.iter().position(|in_bucket| {
                seen += in_bucket;
                seen >= rank
            });
            bucket.map_or(0, |bucket| top_of(bucket).min(max_ns))
        };
        Latency { count, p50_ns: quantile(500), p99_ns: quantile(990), p999_ns: quantile(999), max_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, announce_seed};

    #[test]
    fn buckets_follow_one_another_without_gaps() {
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(top_of(bucket)), bucket);
            assert_eq!(bucket_of(top_of(bucket) + 1), bucket + 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_off_by_a_sixteenth_at_most() {
        for seed in 0..10 {
            announce_seed("histogram", seed);
            let mut random = Random::new(seed);
            let histogram = Histogram::default();
            let mut all: Vec<u64> = (0..5000).map(|_| random.next_u64() >> (24 + random.below(36))).collect();
            all.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos)));
            all.sort_unstable();
            let found = histogram.latency();
            assert_eq!((found.count, found.max_ns), (5000, all[4999]));
            for (found, rank) in [(found.p50_ns, 2500), (found.p99_ns, 4950), (found.p999_ns, 4995)] {
                let exact = all[rank - 1];
                assert!(found >= exact && found - exact <= exact / 16 + 1, "{found} for {exact}");
            }
        }
        assert_eq!(Histogram::default().latency(), Latency::default());
    }
}
