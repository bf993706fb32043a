//! fio's histogram of latencies: 64 steps for each power of two (stat.h, FIO_IO_U_PLAT_*).

use crate::to_usize;

/// Steps for each power of two, as a power of two.
const BITS: u32 = 6;
const STEPS: usize = 1 << BITS;
/// Powers of two: up to 2^34 ns in steps, what is longer in the last.
const GROUPS: usize = 29;
const BINS: usize = GROUPS * STEPS;

/// Counts by latency in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Histogram {
    bins: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS] }
    }
}

/// The bin of `nanos`.
#[inline]
fn bin_of(nanos: u64) -> usize {
    let top = (nanos | 1).ilog2();
    if top <= BITS {
        return to_usize(nanos);
    }
    let shift = top - BITS;
    let base = to_usize(u64::from(shift + 1)) << BITS;
    let within = to_usize(nanos >> shift) & (STEPS - 1);
    (base + within).min(BINS - 1)
}

/// The latency that stands for `bin`: the middle of it.
fn value_of(bin: usize) -> u64 {
    if bin < STEPS << 1 {
        return crate::to_u64(bin);
    }
    let shift = (bin >> BITS) - 1;
    let base = 1_u64 << (shift + to_usize(u64::from(BITS)));
    let width = 1_u64 << shift;
    base + crate::to_u64(bin % STEPS) * width + width / 2
}

impl Histogram {
    #[inline]
    pub(crate) fn add(&mut self, nanos: u64) {
        self.bins[bin_of(nanos)] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.bins.iter_mut().zip(&other.bins).for_each(|(bin, more)| *bin += more);
    }

    pub(crate) fn count(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// The latencies that so many percent of the counts do not exceed; `percents` ascend.
    pub(crate) fn percentiles(&self, percents: &[f64]) -> Vec<u64> {
        let all = self.count() as f64;
        let mut values = Vec::with_capacity(percents.len());
        let mut sum = 0_u64;
        let mut wanted = percents.iter().peekable();
        for (bin, count) in self.bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            sum += count;
            while wanted.next_if(|percent| sum as f64 >= **percent / 100.0 * all).is_some() {
                values.push(value_of(bin));
            }
        }
        values
    }

    /// Bins that are not empty, with the latency that stands for each.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bins
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| (value_of(bin), *count))
    }

    /// Shares of the counts in percent by `bounds` in nanoseconds: below each, and not below the one before.
    pub(crate) fn shares(&self, bounds: &[u64]) -> Vec<f64> {
        let all = self.count().max(1) as f64;
        let mut shares = vec![0_u64; bounds.len() + 1];
        for (nanos, count) in self.bins() {
            let at = bounds.partition_point(|bound| *bound <= nanos);
            shares[at] += count;
        }
        shares.into_iter().map(|count| 100.0 * count as f64 / all).collect()
    }

    /// Every bin, `1 << coarseness` added up to one, as fio's histogram logs have them.
    pub(crate) fn columns(&self, coarseness: u32) -> Vec<u64> {
        self.bins.chunks(1 << coarseness).map(|bins| bins.iter().sum()).collect()
    }

    /// What was counted since `earlier`, and then `earlier` is this.
    pub(crate) fn since(&self, earlier: &mut Self) -> Self {
        let bins = self.bins.iter().zip(&earlier.bins).map(|(now, before)| now - before).collect();
        earlier.bins.copy_from_slice(&self.bins);
        Self { bins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_fio() {
        // plat_val_to_idx and plat_idx_to_val of fio 3.33 for the same values.
        for (nanos, bin, value) in [
            (0, 0, 0),
            (63, 63, 63),
            (127, 127, 127),
            (128, 128, 129),
            (1000, 317, 1004),
            (u64::MAX, 1855, 0),
        ] {
            assert_eq!(bin_of(nanos), bin, "{nanos}");
            assert!(nanos == u64::MAX || value_of(bin) == value, "{nanos}: {}", value_of(bin));
        }
        for nanos in (0..200_000_u64).chain((0..33).map(|power| 1 << power)) {
            let value = value_of(bin_of(nanos));
            assert!(value.abs_diff(nanos) <= nanos / 64 + 1, "{nanos} stands in {value}");
        }
        assert!((0..200_000).map(bin_of).is_sorted());
    }

    #[test]
    fn percentiles_and_shares() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|nanos| histogram.add(nanos));
        assert_eq!(histogram.percentiles(&[1.0, 50.0, 99.0, 100.0]), [1, 50, 99, 100]);
        assert!(Histogram::default().percentiles(&[50.0]).is_empty());
        assert_eq!(histogram.shares(&[11, 51]), [10.0, 40.0, 50.0]);
        assert_eq!(histogram.columns(3).iter().sum::<u64>(), 100);
        let mut earlier = histogram.clone();
        histogram.add(7);
        assert_eq!(histogram.since(&mut earlier).count(), 1);
        assert_eq!(earlier, histogram);
    }
}
