//! What one job counts while it runs, in a form that can be added to another's.

mod histogram;
mod series;
mod stat;

pub(crate) use histogram::Histogram;
pub(crate) use series::{Point, Series};
pub(crate) use stat::Stat;

use super::job::StatOptions;
use super::pattern::Direction;

/// fio's default `bwavgtime` and `iopsavgtime`, in nanoseconds.
const SAMPLE_NANOS: u64 = 500_000_000;
/// fio counts depths in powers of two up to this many.
const DEPTHS: usize = 7;

/// A latency: its distribution and moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) stat: Stat,
    pub(crate) histogram: Histogram,
}

impl Latency {
    #[inline]
    fn add(&mut self, nanos: u64) {
        self.stat.add(nanos);
        self.histogram.add(nanos);
    }

    fn merge(&mut self, other: &Self) {
        self.stat.merge(&other.stat);
        self.histogram.merge(&other.histogram);
    }
}

/// The counts of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirectionRecord {
    pub(crate) ios: u64,
    pub(crate) bytes: u64,
    pub(crate) short_ios: u64,
    pub(crate) failed_ios: u64,
    /// Submission latency: from making an I/O to handing it to the kernel.
    pub(crate) slat: Latency,
    /// Completion latency: from there to its completion.
    pub(crate) clat: Latency,
    /// Both together.
    pub(crate) lat: Latency,
    /// KiB/s of each half second.
    pub(crate) bw: Stat,
    /// I/Os per second of each half second.
    pub(crate) iops: Stat,
}

impl DirectionRecord {
    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.ios += other.ios;
        self.bytes += other.bytes;
        self.short_ios += other.short_ios;
        self.failed_ios += other.failed_ios;
        self.slat.merge(&other.slat);
        self.clat.merge(&other.clat);
        self.lat.merge(&other.lat);
        self.bw.merge(&other.bw);
        self.iops.merge(&other.iops);
    }
}

/// When one I/O was made, handed to the kernel and done, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) start: u64,
    /// None where the engine hands over and completes in one step.
    pub(crate) issue: Option<u64>,
    pub(crate) end: u64,
}

/// The counts of one job.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) directions: [DirectionRecord; 2],
    pub(crate) syncs: Latency,
    /// Depth when I/Os were submitted, number submitted and completed at once: 1, 2, 4, ... and the rest.
    pub(crate) depths: [u64; DEPTHS],
    pub(crate) submits: [u64; DEPTHS],
    pub(crate) completes: [u64; DEPTHS],
    pub(crate) series: Series,
    pub(crate) verified: u64,
    pub(crate) verify_errors: u64,
    measures: Measures,
    sample_end: u64,
    close_at: u64,
    sample: [(u64, u64); 2],
}

#[derive(Clone, Copy, Debug)]
struct Measures {
    slat: bool,
    clat: bool,
    lat: bool,
    bw: bool,
}

impl Record {
    /// Nothing counted yet; periods begin at `now`.
    pub(crate) fn new(options: &StatOptions, now: u64) -> Self {
        Self {
            directions: Default::default(),
            syncs: Latency::default(),
            depths: [0; DEPTHS],
            submits: [0; DEPTHS],
            completes: [0; DEPTHS],
            series: Series::new(now, options.window_nanos),
            verified: 0,
            verify_errors: 0,
            measures: Measures { slat: options.slat, clat: options.clat, lat: options.lat, bw: options.bw },
            sample_end: now + SAMPLE_NANOS,
            close_at: now + SAMPLE_NANOS.min(options.window_nanos),
            sample: [(0, 0); 2],
        }
    }

    /// Counts one completed I/O.
    #[inline]
    pub(crate) fn done(&mut self, direction: Direction, bytes: u64, times: Times) {
        let of = &mut self.directions[direction as usize];
        of.ios += 1;
        of.bytes += bytes;
        let Times { start, issue, end } = times;
        if self.measures.slat
            && let Some(issue) = issue
        {
            of.slat.add(issue.saturating_sub(start));
        }
        if self.measures.clat {
            of.clat.add(end.saturating_sub(issue.unwrap_or(start)));
        }
        if self.measures.lat {
            of.lat.add(end.saturating_sub(start));
        }
        if end >= self.close_at {
            self.close_samples(end);
        }
    }

    /// Counts a sync.
    pub(crate) fn synced(&mut self, nanos: u64) {
        self.syncs.add(nanos);
    }

    #[inline]
    pub(crate) fn submitted(&mut self, depth: usize, count: usize) {
        self.depths[power(depth).saturating_sub(1)] += crate::to_u64(count);
        self.submits[step(count)] += 1;
    }

    #[inline]
    pub(crate) fn completed(&mut self, count: usize) {
        self.completes[step(count)] += 1;
    }

    /// Closes the periods that end at or before `now`; those without I/O count as such.
    #[cold]
    pub(crate) fn close_samples(&mut self, now: u64) {
        while self.sample_end <= now {
            for way in 0..2 {
                let of = &mut self.directions[way];
                let (ios, bytes) = (of.ios - self.sample[way].0, of.bytes - self.sample[way].1);
                self.sample[way] = (of.ios, of.bytes);
                // A direction that was never used has no samples.
                if self.measures.bw && of.ios > 0 {
                    of.bw.add(bytes * 1_000_000_000 / 1024 / SAMPLE_NANOS);
                    of.iops.add(ios * 1_000_000_000 / SAMPLE_NANOS);
                }
            }
            self.sample_end += SAMPLE_NANOS;
        }
        self.series.close(now, &self.directions);
        self.close_at = self.sample_end.min(self.series.end());
    }

    /// I/Os completed, both ways.
    pub(crate) fn ios(&self) -> u64 {
        self.directions[0].ios + self.directions[1].ios
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.directions[0].bytes + self.directions[1].bytes
    }

    /// Adds what another thread counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for way in 0..2 {
            self.directions[way].add(&other.directions[way]);
        }
        self.syncs.merge(&other.syncs);
        for at in 0..DEPTHS {
            self.depths[at] += other.depths[at];
            self.submits[at] += other.submits[at];
            self.completes[at] += other.completes[at];
        }
        self.series.merge(&other.series);
        self.verified += other.verified;
        self.verify_errors += other.verify_errors;
    }
}

/// 1 for 1, 2 for 2 and 3, 3 for 4 to 7, ... and at most 7.
#[inline]
fn power(number: usize) -> usize {
    crate::to_usize(u64::from(usize::BITS - number.leading_zeros())).clamp(1, DEPTHS)
}

/// fio's steps of counts at once: 0, up to 4, 8, 16, 32, 64, more.
#[inline]
fn step(number: usize) -> usize {
    match number {
        0 => 0,
        1..=4 => 1,
        5..=8 => 2,
        9..=16 => 3,
        17..=32 => 4,
        33..=64 => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_fio() {
        assert_eq!([1, 2, 3, 4, 8, 16, 32, 63, 64, 1000].map(power), [1, 2, 2, 3, 4, 5, 6, 6, 7, 7]);
        assert_eq!([0, 1, 4, 5, 64, 65].map(step), [0, 1, 1, 2, 5, 6]);
    }
}
