//! Runs: reads that continue where another ended, however many are interleaved. A run is found by the block that would
//! continue it, so that it needs no stream, and costs one look at one cache line.

use super::hash::{index, spread};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    // The block that continues it; meaningless while `blocks` is zero.
    next: u64,
    // First block that was not proposed.
    pub(super) ahead: u64,
    /// Blocks read.
    pub(super) blocks: u32,
    /// Requests that read them.
    pub(super) requests: u32,
    touched: u32,
}

impl Run {
    /// Blocks of a request of this run.
    pub(super) fn stride(&self) -> u64 {
        u64::from(self.blocks / self.requests.max(1)).max(1)
    }
}

pub(super) struct Runs {
    cells: Box<[[Run; 2]]>,
}

impl Runs {
    pub(super) fn new(bits: u32) -> Self {
        Self { cells: vec![[Run::default(); 2]; 1 << bits].into() }
    }

    /// Notes a read of `first..end`; returns the run that it continues or begins, to be put back by [`Runs::keep`].
    pub(super) fn touch(&mut self, first: u64, end: u64) -> Run {
        let blocks = u32::try_from(end.wrapping_sub(first)).unwrap_or(u32::MAX);
        // A request that is not aligned begins in the block where the one before ended.
        let overlaps = || (blocks > 1).then_some(first.wrapping_add(1));
        let run = self.take(first).or_else(|| self.take(overlaps()?));
        let run = run.unwrap_or(Run { ahead: end, ..Run::default() });
        Run {
            next: end,
            ahead: run.ahead.max(end),
            blocks: run.blocks.saturating_add(blocks),
            requests: run.requests.saturating_add(1),
            touched: 0,
        }
    }

    fn take(&mut self, next: u64) -> Option<Run> {
        let at = index(spread(next), self.cells.len() - 1);
        self.cells[at].iter_mut().find(|run| run.blocks != 0 && run.next == next).map(std::mem::take)
    }

    pub(super) fn keep(&mut self, run: Run, now: u32) {
        let at = index(spread(run.next), self.cells.len() - 1);
        let bucket = &mut self.cells[at];
        let same = bucket.iter().position(|old| old.blocks != 0 && old.next == run.next);
        let way = same.unwrap_or_else(|| {
            let age = |run: &Run| if run.blocks == 0 { u32::MAX } else { now.wrapping_sub(run.touched) };
            usize::from(age(&bucket[1]) > age(&bucket[0]))
        });
        bucket[way] = Run { touched: now, ..run };
    }
}
