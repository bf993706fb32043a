//! The greatest depth at which latency stays below a target: fio's `latency_target`.

use super::super::job::LatencyTarget;

/// Searches by doubling, then between what held and what did not.
#[derive(Debug)]
pub(super) struct DepthSearch {
    target: LatencyTarget,
    pub(super) depth: usize,
    held: usize,
    missed: Option<usize>,
    deepest: usize,
    window_end: u64,
    ios: u64,
    late: u64,
    settled: bool,
}

/// What to do after a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    /// The job is done.
    Found,
    /// Not even depth 1 keeps the target.
    Impossible,
}

impl DepthSearch {
    pub(super) fn new(target: LatencyTarget, deepest: usize, now: u64) -> Self {
        Self {
            target,
            depth: 1,
            held: 0,
            missed: None,
            deepest,
            window_end: now + target.window_nanos,
            ios: 0,
            late: 0,
            settled: false,
        }
    }

    /// Counts a latency.
    #[inline]
    pub(super) fn add(&mut self, nanos: u64) {
        self.ios += 1;
        self.late += u64::from(nanos > self.target.nanos);
    }

    /// The depth that was found.
    pub(super) fn found(&self) -> usize {
        self.held
    }

    /// Looks at the window when it is over.
    pub(super) fn look(&mut self, now: u64) -> Verdict {
        if now < self.window_end || self.ios == 0 {
            return Verdict::GoOn;
        }
        let kept = 100.0 * (self.ios - self.late) as f64 / self.ios as f64;
        let holds = kept >= self.target.percentile;
        (self.ios, self.late) = (0, 0);
        self.window_end = now + self.target.window_nanos;
        if self.settled {
            if !holds && self.depth > 1 {
                self.depth -= 1;
                self.held = self.depth;
            }
            return Verdict::GoOn;
        }
        if holds {
            self.held = self.held.max(self.depth);
        } else if self.depth == 1 {
            return Verdict::Impossible;
        } else {
            self.missed = Some(self.depth);
        }
        let next = match self.missed {
            None => (self.depth * 2).min(self.deepest),
            Some(missed) => usize::midpoint(self.held, missed),
        };
        if next == self.held {
            self.depth = self.held;
            self.settled = true;
            return if self.target.runs_on { Verdict::GoOn } else { Verdict::Found };
        }
        self.depth = next;
        Verdict::GoOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latency grows by 10 us with each I/O in flight.
    fn search(nanos: u64, deepest: usize) -> (DepthSearch, Verdict) {
        let target = LatencyTarget { nanos, window_nanos: 100, percentile: 99.0, runs_on: false };
        let mut search = DepthSearch::new(target, deepest, 0);
        for window in 1..100 {
            (0..1000).for_each(|_| search.add(search.depth as u64 * 10_000));
            match search.look(window * 100) {
                Verdict::GoOn => {}
                verdict => return (search, verdict),
            }
        }
        panic!("no verdict");
    }

    #[test]
    fn the_greatest_depth_that_holds_is_found() {
        for (nanos, deepest, depth) in
            [(10_000, 64, 1), (130_000, 64, 13), (639_999, 64, 63), (10_000_000, 64, 64)]
        {
            let (search, verdict) = search(nanos, deepest);
            assert_eq!((search.found(), verdict), (depth, Verdict::Found), "{nanos}");
        }
        assert_eq!(search(9_999, 64).1, Verdict::Impossible);
    }
}
