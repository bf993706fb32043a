//! Which block comes next, and whether it is read or written: a function of the job, its number and the seed alone.

use tierstream_loader::Permutation;

use super::job::{IoJob, Pattern};
use crate::random::Random;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// The I/Os of one job. Random orders touch each block once before any is touched again, as fio's random map does.
#[derive(Debug)]
pub(super) struct Plan {
    pattern: Pattern,
    rwmixread: u64,
    bs: u64,
    blocks: u64,
    repeat: bool,
    seed: u64,
    // Seeds of the passes of different jobs must differ: job `n` of `jobs` uses n, n + jobs, n + 2 * jobs, ...
    epoch: u64,
    jobs: u64,
    index: u64,
    order: Permutation,
    mix: Random,
}

impl Plan {
    /// The plan of job `number` of the job's `numjobs`.
    pub(super) fn new(job: &IoJob, number: usize) -> Self {
        let epoch = tierstream_storage::units::to_u64(number);
        Self {
            pattern: job.rw,
            rwmixread: job.rwmixread,
            bs: job.bs,
            blocks: job.blocks(),
            repeat: job.time_based,
            seed: job.randseed,
            epoch,
            jobs: tierstream_storage::units::to_u64(job.numjobs),
            index: 0,
            order: Permutation::new(job.blocks(), job.randseed, epoch),
            mix: Random::new(job.randseed ^ (epoch << 32)),
        }
    }
}

impl Iterator for Plan {
    type Item = (Direction, u64);

    /// Direction and offset in bytes; none after the last block unless the job is time based.
    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.blocks {
            if !self.repeat {
                return None;
            }
            self.index = 0;
            self.epoch += self.jobs;
            self.order = Permutation::new(self.blocks, self.seed, self.epoch);
        }
        let block = if self.pattern.is_random() { self.order.get(self.index) } else { self.index };
        self.index += 1;
        let direction = match self.pattern {
            Pattern::Read | Pattern::RandRead => Direction::Read,
            Pattern::Write | Pattern::RandWrite => Direction::Write,
            Pattern::RandRw if self.mix.below(100) < self.rwmixread => Direction::Read,
            Pattern::RandRw => Direction::Write,
        };
        Some((direction, block * self.bs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(number: usize, more: &[(&str, &str)]) -> Plan {
        let least = [("filename", "f"), ("size", "403k"), ("bs", "4k"), ("numjobs", "2"), ("runtime", "1")];
        Plan::new(&IoJob::parse(&[&least[..], more].concat()).unwrap(), number)
    }

    #[test]
    fn each_block_comes_once_a_pass_in_an_order_of_its_own() {
        let passes: Vec<Vec<u64>> = [0, 1]
            .into_iter()
            .flat_map(|number| {
                let all: Vec<_> =
                    plan(number, &[("rw", "randread"), ("time_based", "1")]).take(200).collect();
                assert!(all.iter().all(|(direction, _)| *direction == Direction::Read));
                let offsets: Vec<u64> = all.iter().map(|(_, offset)| *offset).collect();
                offsets.chunks(100).map(<[u64]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        for (index, pass) in passes.iter().enumerate() {
            let mut sorted = pass.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq((0..100).map(|block| block * 4096)), "pass {index}");
            assert!(!passes[..index].contains(pass), "pass {index} repeats an order");
        }
        assert_eq!(plan(0, &[("rw", "randread")]).count(), 100, "403k holds 100 whole blocks of 4k");
    }

    #[test]
    fn sequential_is_in_order_and_mixed_is_mixed() {
        assert!(plan(0, &[("rw", "write")]).eq((0..100).map(|block| (Direction::Write, block * 4096))));
        let mixed = [("rw", "randrw"), ("rwmixread", "80"), ("time_based", "1")];
        let reads = plan(0, &mixed).take(10_000).filter(|(way, _)| *way == Direction::Read).count();
        assert!((7_800..8_200).contains(&reads), "{reads} of 10000 are reads, expected 8000");
    }
}
