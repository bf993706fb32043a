//! A counter for what happens millions of times a second on several threads: each thread counts in a cache line of its
//! own, and whoever reads adds them up.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// Enough that the threads of one host seldom share one.
const STRIPES: usize = 16;

/// Two sums that are raised together: how many, and how many bytes.
#[derive(Debug, Default)]
pub(super) struct Striped {
    stripes: [CachePadded<[AtomicU64; 2]>; STRIPES],
}

thread_local! {
    static STRIPE: usize = {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(std::thread::current().id());
        crate::units::to_usize(hash % crate::units::to_u64(STRIPES))
    };
}

impl Striped {
    fn mine(&self) -> &[AtomicU64; 2] {
        &self.stripes[STRIPE.with(|stripe| *stripe)]
    }

    /// Counts one of `bytes`.
    pub(super) fn add(&self, bytes: u64) {
        let [count, sum] = self.mine();
        count.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What this thread's stripe has counted so far: true once in `n` times, for sampling.
    pub(super) fn is_due(&self, n: u64) -> bool {
        self.mine()[0].load(Ordering::Relaxed).is_multiple_of(n)
    }

    pub(super) fn sums(&self) -> (u64, u64) {
        let sum =
            |which: usize| self.stripes.iter().map(|stripe| stripe[which].load(Ordering::Relaxed)).sum();
        (sum(0), sum(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together() {
        let striped = Striped::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|bytes| striped.add(bytes)));
            }
        });
        assert_eq!(striped.sums(), (8000, 8 * 499_500));
    }
}
