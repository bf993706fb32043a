//! When the next I/O may be issued: limits by rate, random arrivals, pauses.
//!
//! A linear rate is fio's: an I/O is late at most as long as the queue is full, and its latency begins when it is
//! issued. Random arrivals (`rate_process=poisson`) are an open loop: I/Os arrive whether or not earlier ones are done,
//! and their latency begins at the arrival, so that waiting for a slow device is not left out.

use super::super::job::{Job, RateOptions};
use super::super::pattern::Direction;
use crate::number::{float, whole};
use crate::random::Random;

const SECOND: f64 = 1e9;

#[derive(Debug)]
pub(super) struct Pace {
    limited: [bool; 2],
    bytes: [Option<u64>; 2],
    iops: [Option<u64>; 2],
    poisson: bool,
    due: [f64; 2],
    random: Random,
}

impl Pace {
    /// Limits of one of a job's threads, from `now` on. None where there are none.
    pub(super) fn new(job: &Job, seed: u64, now: u64) -> Option<Self> {
        let RateOptions { bytes, iops, poisson, .. } = &job.rate;
        job.rate.is_limited().then(|| {
            let mut pace = Self {
                limited: [0, 1].map(|way| bytes[way].is_some() || iops[way].is_some()),
                bytes: *bytes,
                iops: *iops,
                poisson: *poisson,
                due: [float(now); 2],
                random: Random::new(seed ^ 0x9ace),
            };
            if *poisson {
                // The first arrival is as random as the others.
                let block = job.pattern.block_bytes_min();
                [Direction::Read, Direction::Write].into_iter().for_each(|way| pace.issued(way, block));
            }
            pace
        })
    }

    /// When an I/O in `direction` may be issued.
    pub(super) fn due(&self, direction: Direction) -> u64 {
        let way = direction as usize;
        if self.limited[way] { whole(self.due[way]) } else { 0 }
    }

    /// When the latency of an I/O that is issued now begins.
    pub(super) fn start(&self, direction: Direction, now: u64) -> u64 {
        if self.poisson && self.limited[direction as usize] { self.due(direction).min(now) } else { now }
    }

    /// An I/O of so many bytes was issued.
    pub(super) fn issued(&mut self, direction: Direction, bytes: u64) {
        let way = direction as usize;
        let by_bytes = self.bytes[way].map_or(0.0, |rate| float(bytes) * SECOND / float(rate));
        let by_ios = self.iops[way].map_or(0.0, |rate| SECOND / float(rate));
        let gap = by_bytes.max(by_ios);
        self.due[way] += if self.poisson { gap * self.random.exponential() } else { gap };
    }

    /// Pauses are not made up for.
    pub(super) fn paused(&mut self, nanos: u64) {
        self.due.iter_mut().for_each(|due| *due += float(nanos));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::options::Arguments;

    fn pace(args: &[&str]) -> Pace {
        let args: Vec<&str> = args.iter().copied().chain(["--filename=f"]).collect();
        let job = Job::new(&Arguments::read(&args, &|_| None).unwrap().jobs[0]).unwrap();
        Pace::new(&job, 1, 0).unwrap()
    }

    #[test]
    fn a_linear_rate_has_even_gaps() {
        let mut pace = pace(&["--rate_iops=1000"]);
        assert_eq!(pace.due(Direction::Read), 0);
        (0..10).for_each(|_| pace.issued(Direction::Read, 4096));
        assert_eq!(pace.due(Direction::Read), 10_000_000);
        assert_eq!(pace.start(Direction::Read, 12_000_000), 12_000_000);
    }

    #[test]
    fn the_stricter_of_two_limits_holds() {
        let mut both = pace(&["--rate_iops=1000", "--rate=4096"]);
        both.issued(Direction::Read, 4096);
        assert_eq!(both.due(Direction::Read), 1_000_000_000);
        let mut writes = pace(&["--rate_iops=,10"]);
        writes.issued(Direction::Read, 4096);
        assert_eq!((writes.due(Direction::Read), writes.due(Direction::Write)), (0, 0));
    }

    #[test]
    fn arrivals_are_exponential_and_latency_begins_with_them() {
        let mut pace = pace(&["--rate_iops=1000", "--rate_process=poisson"]);
        let (mut last, mut gaps) = (pace.due(Direction::Read), Vec::new());
        for _ in 0..20_000 {
            pace.issued(Direction::Read, 4096);
            gaps.push(float(pace.due(Direction::Read) - last));
            last = pace.due(Direction::Read);
        }
        let mean = gaps.iter().sum::<f64>() / 20_000.0;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
        assert!(
            (mean / 1e6 - 1.0).abs() < 0.05 && (deviation / mean - 1.0).abs() < 0.1,
            "{mean} {deviation}"
        );
        assert_eq!(pace.start(Direction::Read, last + 5_000), last);
    }
}
