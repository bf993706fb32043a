//! Which I/O comes next: direction, file, offset and length, as a function of the job, its number and the seed alone.
//!
//! Knows neither files nor clocks: files are lengths here. Random orders touch each block once before any is touched
//! again, as fio's random map does; a permutation does it without a map where all I/Os have one length.

mod coverage;
mod distribution;
mod lengths;
mod selector;

use self::coverage::Coverage;
use self::distribution::Sampler;
use self::lengths::Lengths;
use self::selector::Selector;
use super::job::{Distribution, Job, Sequencer};
use crate::random::Random;
use crate::to_u64;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read = 0,
    Write = 1,
}

impl Direction {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// One I/O to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) direction: Direction,
    /// Number of the file.
    pub(crate) file: u32,
    /// Bytes from the beginning of the file.
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// What of a file is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// State of one file.
#[derive(Debug)]
struct FileState {
    span: Span,
    /// Next sequential offset within the span, for reads and writes.
    next: [u64; 2],
    coverage: Coverage,
    sampler: Option<[Sampler; 2]>,
}

/// The I/Os of one job.
#[derive(Debug)]
pub(crate) struct Generator {
    reads: bool,
    writes: bool,
    random: bool,
    rwmixread: u64,
    percentage_random: [u64; 2],
    sequence: u64,
    identical: bool,
    skip: u64,
    align: [u64; 2],
    lengths: [Lengths; 2],
    files: Vec<FileState>,
    selector: Selector,
    mix: Random,
    place: Random,
    sequence_left: [u64; 2],
    last: [Option<Step>; 2],
    bytes_left: u64,
    bytes_each_pass: u64,
    /// One pass moves more than the files have: they begin again.
    wraps: bool,
    passes_left: u64,
    endless: bool,
    ios_left: u64,
}

impl Generator {
    /// The generator of job `number` on files with these spans. `bytes` is what one pass moves.
    pub(crate) fn new(job: &Job, number: usize, spans: &[Span], bytes: u64) -> Self {
        let pattern = &job.pattern;
        let seed = pattern.seed ^ to_u64(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let lengths =
            [0, 1].map(|of| Lengths::new(&pattern.bs[of], pattern.unaligned, seed ^ (0xb5 + to_u64(of))));
        let uniform = match (pattern.reads, pattern.writes) {
            (true, true) => lengths[0].fixed() == lengths[1].fixed() && lengths[0].fixed().is_some(),
            (true, false) => lengths[0].fixed().is_some(),
            _ => lengths[1].fixed().is_some(),
        };
        let least = pattern.block_bytes_min();
        let mapped = pattern.random && pattern.random_map && pattern.distribution == Distribution::Uniform;
        let aligned = pattern.align[usize::from(!pattern.reads)] == least;
        let all_random = pattern.percentage_random == [100, 100] && pattern.sequence == 1;
        let files = (0..)
            .zip(spans)
            .map(|(file, span)| {
                let seed = seed ^ (file << 40);
                let coverage = match (mapped, uniform && all_random && aligned) {
                    (false, _) => Coverage::none(),
                    (true, true) => Coverage::permuted(span.bytes / least.max(1), least, seed),
                    (true, false) => Coverage::mapped(span.bytes / least.max(1), least),
                };
                let sampler = |of: usize| {
                    let blocks = (span.bytes / pattern.align[of]).max(1);
                    Sampler::new(pattern.distribution, blocks, seed)
                };
                let sampler =
                    (pattern.distribution != Distribution::Uniform).then(|| [sampler(0), sampler(1)]);
                FileState { span: *span, next: [0, 0], coverage, sampler }
            })
            .collect();
        Self {
            reads: pattern.reads,
            writes: pattern.writes,
            random: pattern.random,
            rwmixread: pattern.rwmixread,
            percentage_random: pattern.percentage_random,
            sequence: pattern.sequence,
            identical: pattern.sequencer == Sequencer::Identical,
            skip: pattern.skip,
            align: pattern.align,
            lengths,
            files,
            selector: Selector::new(job.files.service, spans.len(), job.files.openfiles, seed ^ 0xf11e),
            mix: Random::new(seed ^ 0x317),
            place: Random::new(seed ^ 0x9_1ace),
            sequence_left: [0, 0],
            last: [None, None],
            bytes_left: bytes,
            bytes_each_pass: bytes,
            wraps: bytes > spans.iter().map(|span| span.bytes).sum(),
            passes_left: job.loops - 1,
            endless: job.time_based,
            ios_left: job.files.number_ios.unwrap_or(u64::MAX),
        }
    }

    /// The direction of the next I/O.
    pub(crate) fn direction(&mut self) -> Direction {
        match (self.reads, self.writes) {
            (true, false) => Direction::Read,
            (false, _) => Direction::Write,
            (true, true) if self.mix.scaled(100) < self.rwmixread => Direction::Read,
            _ => Direction::Write,
        }
    }

    /// Whether there is another I/O; begins another pass where one is left.
    fn has_more(&mut self) -> bool {
        if self.ios_left == 0 || self.bytes_each_pass == 0 {
            return false;
        }
        if self.bytes_left > 0 {
            return true;
        }
        if !self.endless {
            if self.passes_left == 0 {
                return false;
            }
            self.passes_left -= 1;
        }
        self.bytes_left = self.bytes_each_pass;
        self.restart_files();
        true
    }

    fn restart_files(&mut self) {
        for file in &mut self.files {
            file.next = [0, 0];
            file.coverage.restart();
        }
        self.selector.restart();
    }

    /// The next I/O in `direction`; none when the job is done.
    pub(crate) fn next(&mut self, direction: Direction) -> Option<Step> {
        let way = direction as usize;
        // Each round uses up a file or gives an I/O; a pass without any ends it.
        let mut idle_passes = 0;
        while idle_passes < 2 && self.has_more() {
            let Some(number) = self.selector.next() else {
                idle_passes += 1;
                if self.wraps {
                    self.restart_files();
                } else {
                    self.bytes_left = 0;
                }
                continue;
            };
            if let Some(step) = self.in_file(number, direction, way) {
                self.bytes_left = self.bytes_left.saturating_sub(u64::from(step.len));
                self.ios_left -= 1;
                self.last[way] = Some(step);
                return Some(step);
            }
            self.selector.used_up(number);
        }
        None
    }

    fn in_file(&mut self, number: usize, direction: Direction, way: usize) -> Option<Step> {
        let mut len = self.lengths[way].next();
        let file = &mut self.files[number];
        let bytes = file.span.bytes;
        let goes_on = self.random && self.sequence_left[way] > 0;
        let offset = if let (true, Some(last)) = (goes_on, self.last[way]) {
            self.sequence_left[way] -= 1;
            let at = last.offset - file.span.offset;
            let next = if self.identical { at } else { at + u64::from(last.len) };
            if next + len <= bytes { next } else { 0 }
        } else if self.random
            && (self.percentage_random[way] == 100 || self.mix.scaled(100) < self.percentage_random[way])
        {
            self.sequence_left[way] = self.sequence - 1;
            if let Some(samplers) = &mut file.sampler {
                let at = samplers[way].next() * self.align[way];
                at.min(bytes.saturating_sub(len) / self.align[way] * self.align[way])
            } else if file.coverage.is_some() {
                let (at, room) = file.coverage.next(len, &mut self.place)?;
                len = room;
                at
            } else {
                let places = bytes.checked_sub(len)? / self.align[way] + 1;
                self.place.scaled(places) * self.align[way]
            }
        } else {
            // A last piece shorter than a block is left out, as fio leaves it out.
            if file.next[way] + len > bytes {
                return None;
            }
            file.next[way]
        };
        if offset + len > bytes {
            return None;
        }
        file.next[way] = offset + len + if self.random { 0 } else { self.skip };
        if !self.random && self.reads && self.writes {
            // Mixed sequential jobs have one position for both ways.
            file.next = [file.next[way]; 2];
        }
        Some(Step {
            direction,
            file: u32::try_from(number).expect("at most 65536 files"),
            offset: file.span.offset + offset,
            len: u32::try_from(len).expect("at most 1 GiB"),
        })
    }
}

#[cfg(test)]
mod tests;
