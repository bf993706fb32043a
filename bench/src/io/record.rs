//! What one job counts while it runs: latencies, bytes, and throughput by half seconds.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::plan::Direction;

/// fio's default `bwavgtime` and `iopsavgtime`.
const WINDOW: Duration = Duration::from_millis(500);
/// An hour: a longer latency is counted as one.
const LATENCY_NANOS_MAX: u64 = 3_600_000_000_000;
/// Three decimal digits: percentiles within 0.1 %.
const DIGITS: u8 = 3;

/// Nanoseconds of a time below 584 years.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// When one I/O was made, handed to the kernel (where an engine can tell), and done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: Duration,
    pub(super) issue: Option<Duration>,
    pub(super) end: Duration,
}

/// The counts of one job.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) read: DirectionRecord,
    pub(super) write: DirectionRecord,
}

impl Record {
    /// Nothing counted yet; windows begin at `started`.
    pub(super) fn new(started: Duration) -> Self {
        Self { read: DirectionRecord::new(started), write: DirectionRecord::new(started) }
    }

    pub(super) fn of(&mut self, direction: Direction) -> &mut DirectionRecord {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    /// I/Os completed, both ways.
    pub(super) fn ios(&self) -> u64 {
        self.read.ios + self.write.ios
    }
}

/// The counts of one direction.
#[derive(Debug)]
pub(super) struct DirectionRecord {
    pub(super) ios: u64,
    pub(super) bytes: u64,
    pub(super) short_ios: u64,
    /// Submission latency: from making an I/O to handing it to the kernel.
    pub(super) slat: Histogram<u64>,
    /// Completion latency: from there to its completion.
    pub(super) clat: Histogram<u64>,
    /// Both together.
    pub(super) lat: Histogram<u64>,
    pub(super) windows: Windows,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, DIGITS).expect("bounds that the crate accepts")
}

impl DirectionRecord {
    fn new(started: Duration) -> Self {
        Self {
            ios: 0,
            bytes: 0,
            short_ios: 0,
            slat: histogram(),
            clat: histogram(),
            lat: histogram(),
            windows: Windows { end: started + WINDOW, ..Windows::default() },
        }
    }

    /// Counts one completed I/O.
    pub(super) fn done(&mut self, times: Times, bytes: u64) {
        self.windows.pass(times.end);
        self.windows.bytes += bytes;
        self.windows.ios += 1;
        self.ios += 1;
        self.bytes += bytes;
        let Times { start, issue, end } = times;
        if let Some(issue) = issue {
            self.slat.saturating_record(nanos(issue.saturating_sub(start)));
        }
        self.clat.saturating_record(nanos(end.saturating_sub(issue.unwrap_or(start))));
        self.lat.saturating_record(nanos(end.saturating_sub(start)));
    }
}

/// Throughput by windows of [`WINDOW`]; the last, unfinished one does not count.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// KiB/s.
    pub(super) bw: Spread,
    /// I/Os per second.
    pub(super) iops: Spread,
    end: Duration,
    bytes: u64,
    ios: u64,
}

impl Windows {
    /// Closes the windows that end at or before `now`; those without I/O count as such.
    pub(super) fn pass(&mut self, now: Duration) {
        while self.end <= now {
            let seconds = WINDOW.as_secs_f64();
            self.bw.add(self.bytes as f64 / 1024.0 / seconds);
            self.iops.add(self.ios as f64 / seconds);
            (self.bytes, self.ios) = (0, 0);
            self.end += WINDOW;
        }
    }
}

/// Least, most, mean and standard deviation, in one pass (Welford 1962).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread {
    pub(super) samples: u64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.min = if self.samples == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.samples += 1;
        let from_old = value - self.mean;
        self.mean += from_old / self.samples as f64;
        self.squares += from_old * (value - self.mean);
    }

    /// Of the sample, as fio computes it.
    pub(super) fn stddev(&self) -> f64 {
        if self.samples < 2 { 0.0 } else { (self.squares / (self.samples - 1) as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_add_up_and_windows_close_on_time() {
        let ms = Duration::from_millis;
        let mut record = Record::new(ms(1000));
        let read = record.of(Direction::Read);
        // Two windows with 3 and 1 I/Os, one without, then an unfinished one.
        for (start, end) in [(1000, 1100), (1000, 1200), (1100, 1499), (1400, 1500), (2400, 2600)] {
            read.done(Times { start: ms(start), issue: Some(ms(start + 10)), end: ms(end) }, 4096);
        }
        assert_eq!((read.ios, read.bytes), (5, 5 * 4096));
        let iops = read.windows.iops;
        assert_eq!((iops.samples, iops.min, iops.max), (3, 0.0, 6.0));
        assert!((iops.mean - 8.0 / 3.0).abs() < 1e-9 && (iops.stddev() - 3.055_050_463).abs() < 1e-6);
        assert!((read.windows.bw.max - 24.0).abs() < 1e-9, "3 x 4 KiB in half a second");
        let close = |found: u64, expected: u64| found.abs_diff(expected) <= expected / 1000;
        assert!(close(read.slat.max(), 10_000_000), "{}", read.slat.max());
        assert!(close(read.lat.max(), 399_000_000), "{}", read.lat.max());
        assert!(close(read.clat.max(), 389_000_000), "{}", read.clat.max());
        assert_eq!(record.write.ios, 0);
    }
}
